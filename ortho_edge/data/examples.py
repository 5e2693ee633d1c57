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
from ortho_edge.data.features import FRAME_LENGTH, fbank
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


class SkipError(Exception):
    """A cut cannot be used; the message is the reason to count."""


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
    text = _text(cut)
    try:
        ids = tokens.encode(text)
    except ValueError:
        raise SkipError("unrepresentable text") from None
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
) -> Example:
    """The cut as it is.

    Raises:
        SkipError: Its audio cannot be read.
    """
    text = _text(cut)
    try:
        ids = tokens.encode(text)
    except ValueError:
        ids = []
    found = features(_long_enough(_load(cut, cache)))
    return Example(
        features=found,
        frame_targets=torch.full((subsampled_length(len(found)),), UNKNOWN),
        tokens=ids,
        text=text,
        cut_id=cut.id,
        speaker=_speaker(cut),
    )


def _long_enough(samples: np.ndarray) -> np.ndarray:
    """Puts silence after audio that is shorter than one analysis window."""
    return np.pad(samples, (0, max(0, FRAME_LENGTH - len(samples))))


def _load(cut: Cut, cache: WaveformCache | None) -> np.ndarray:
    try:
        return load_cut(cut, cache)
    except AudioError as error:
        raise SkipError(error.reason) from error


def _generator(seed: int, epoch: int, name: str) -> np.random.Generator:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return np.random.default_rng([seed, epoch, int.from_bytes(digest, "little")])


def _text(cut: Cut) -> str:
    return " ".join(s.text for s in cut.supervisions if s.text)


def _speaker(cut: Cut) -> str:
    return next((s.speaker for s in cut.supervisions if s.speaker), "")
