"""One utterance: from a cut with audio and text to features and tokens, or why it is left out.

The chance in a cut's augmentation depends on (seed, epoch, cut) alone.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from lhotse.cut import Cut

from ortho_edge.conformer.architecture import subsampled_length
from ortho_edge.data.alignment import UNKNOWN, Vocabulary, frame_targets
from ortho_edge.data.audio import SAMPLE_RATE, AudioError
from ortho_edge.data.augmentation import (
    Augmentation,
    augment_features,
    augment_waveform,
    draw_silences,
)
from ortho_edge.data.features import FRAME_LENGTH, fbank, num_frames
from ortho_edge.data.recordings import UNKNOWN_SECONDS
from ortho_edge.data.transcripts import normalizer
from ortho_edge.data.waveforms import WaveformCache, load_cut


@dataclass(frozen=True, kw_only=True)
class Example:
    """What a batch is made of; the names are those of `Batch`."""

    features: torch.Tensor
    frame_targets: torch.Tensor
    tokens: list[int]
    text: str
    cut_id: str
    speaker: str
    seconds: float = 0.0


class SkipError(Exception):
    """A cut cannot be used; the message is the reason to count.

    Attributes:
        detail: The same in one line, with the file or text.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail or reason


@dataclass(frozen=True, kw_only=True)
class Omission:
    """An utterance that was left out.

    Attributes:
        utterance: Its name.
        reason: A word or two, for counting.
        seconds: How long it is; None where nothing tells.
        detail: The reason in one line.
    """

    utterance: str
    reason: str
    seconds: float | None
    detail: str

    @classmethod
    def of(cls, cut: Cut, error: SkipError) -> "Omission":
        """The omission of a cut for a reason."""
        custom = getattr(cut, "custom", None) or {}
        seconds = None if custom.get(UNKNOWN_SECONDS) else cut.duration
        return cls(utterance=cut.id, reason=str(error), seconds=seconds, detail=error.detail)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an evaluation takes.

    Attributes:
        shortest: Frames of 10 ms of the shortest audio.
        longest: Of the longest; None for no limit.
        empty_references: Take cuts without a reference, or with one that has no words. Those that
            `NO_SPEECH` marks are always taken.
    """

    shortest: int = 0
    longest: int | None = None
    empty_references: bool = True


TOO_LONG = "too long"
"""Reason to leave out what an encoder does not take as a whole."""
NO_SPEECH = "no_speech"
"""Custom field of a cut in which, as is known, nothing is said."""


def training_example(
    cut: Cut,
    *,
    tokens: Vocabulary,
    augmentation: Augmentation,
    seed: int,
    epoch: int,
    cache: WaveformCache | None,
) -> Example:
    """The cut, augmented.

    Raises:
        SkipError: It cannot be trained on.
    """
    text = _text(cut, tokens)
    try:
        ids = tokens.encode(text)
    except ValueError as error:
        raise SkipError("unrepresentable text", str(error)) from None
    rng = _generator(seed, epoch, cut.id)
    silences = draw_silences(rng, augmentation)
    samples = augment_waveform(np.pad(_load(cut, cache), silences), rng, augmentation)
    if len(samples) < FRAME_LENGTH:
        raise SkipError("too short")
    features = augment_features(fbank(samples), rng, augmentation)
    if subsampled_length(len(features)) < tokens.minimum_frames(ids):
        raise SkipError("too short for its text")
    return Example(
        features=features,
        frame_targets=frame_targets(
            cut,
            tokens,
            subsampled_length(len(features)),
            (silences[0] / SAMPLE_RATE, silences[1] / SAMPLE_RATE),
        ),
        tokens=ids,
        text=text,
        cut_id=cut.id,
        speaker=_speaker(cut),
    )


def evaluation_example(
    cut: Cut,
    *,
    tokens: Vocabulary,
    cache: WaveformCache | None,
    features: Callable[[np.ndarray], torch.Tensor],
    limits: Limits | None = None,
) -> Example:
    """The cut as it is.

    Raises:
        SkipError: Its audio cannot be read, or it is not within the limits.
    """
    limits = limits or Limits()
    text = reference(cut, tokens, limits)
    try:
        ids = tokens.encode(text)
    except ValueError:
        ids = []
    samples = _load(cut, cache)
    _check_limits(cut, num_frames(len(samples)), limits)
    found = features(_long_enough(samples))
    return Example(
        features=found,
        frame_targets=torch.full((subsampled_length(len(found)),), UNKNOWN),
        tokens=ids,
        text=text,
        cut_id=cut.id,
        speaker=_speaker(cut),
        seconds=len(samples) / SAMPLE_RATE,
    )


def reference(cut: Cut, tokens: Vocabulary, limits: Limits) -> str:
    """The reference of a cut as it is compared with.

    Raises:
        SkipError: It has no words, and the limits do not take that.
    """
    text = _text(cut, tokens)
    marked = (getattr(cut, "custom", None) or {}).get(NO_SPEECH)
    if not (text or marked or limits.empty_references):
        written = " ".join(one.text for one in cut.supervisions if one.text)
        raise SkipError("no reference", f"{cut.id} has no words in its reference {written!r}")
    return text


def _check_limits(cut: Cut, frames: int, limits: Limits) -> None:
    if frames < limits.shortest:
        detail = f"{cut.id} has {frames} frames of 10 ms, fewer than {limits.shortest}"
        raise SkipError("too short", detail)
    if limits.longest is not None and frames > limits.longest:
        detail = f"{cut.id} has {frames} frames of 10 ms, more than {limits.longest}"
        raise SkipError(TOO_LONG, detail)


def _long_enough(samples: np.ndarray) -> np.ndarray:
    """Puts silence after audio that is shorter than one analysis window."""
    return np.pad(samples, (0, max(0, FRAME_LENGTH - len(samples))))


def _load(cut: Cut, cache: WaveformCache | None) -> np.ndarray:
    try:
        return load_cut(cut, cache)
    except AudioError as error:
        raise SkipError(error.reason, str(error)) from error


def _generator(seed: int, epoch: int, name: str) -> np.random.Generator:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return np.random.default_rng([seed, epoch, int.from_bytes(digest, "little")])


def _text(cut: Cut, tokens: Vocabulary) -> str:
    return normalizer(tokens)(" ".join(s.text for s in cut.supervisions if s.text))


def _speaker(cut: Cut) -> str:
    return next((s.speaker for s in cut.supervisions if s.speaker), "")
