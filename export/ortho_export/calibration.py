"""Speech that fixed scales are taken from: activations in 8 bits need to know what to expect.

Scales of weights follow from the weights. A scale of activations that is found before the artefact
is written needs speech like that of the device; noise would give other ranges.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32
from lhotse import CutSet
from torch import Tensor

from ortho_edge.cli import UserError
from ortho_edge.data.dataset import evaluation_batches
from ortho_edge.data.features import FRAME_LENGTH, fbank
from ortho_edge.precision import CALIBRATED, Asked
from ortho_edge.tokens import Tokens
from ortho_export.accuracy import DevSet
from ortho_export.facts import Facts

UTTERANCES = 24
"""At most, of labelled speech; ranges hardly move after the first few."""
PARTS = (1, 2, 3)
"""A clip on its own is used whole and in so many parts: means over an utterance depend on it."""

Calibration = Sequence[Float32[Tensor, "1 _ bins"]]
"""Features of speech, each an input of an encoder."""


def speech_for(
    precision: Asked,
    sample: Float32[np.ndarray, " samples"] | None,
    speech: DevSet | None,
    tokens: Tokens,
    facts: Facts,
) -> Calibration:
    """What a precision takes its scales from; nothing where it needs none.

    Args:
        precision: Of the artefacts.
        sample: The checkpoint's clip.
        speech: Labelled speech, which comes before the clip.
        tokens: Those of the encoder.
        facts: Its bounds.

    Raises:
        UserError: There is no speech.
    """
    if precision not in CALIBRATED:
        return ()
    cuts = None if speech is None else speech.cuts
    return calibration_features(sample, cuts, tokens, facts.min_frames, facts.max_frames)


def calibration_features(
    sample: Float32[np.ndarray, " samples"] | None,
    speech: CutSet | None,
    tokens: Tokens,
    min_frames: int,
    max_frames: int,
) -> list[Float32[Tensor, "1 _ bins"]]:
    """Features of real speech of several lengths, each an input of an encoder.

    Args:
        sample: Mono 16 kHz speech; used where there is no `speech`.
        speech: Utterances, of which `UTTERANCES` are taken evenly.
        tokens: Those of the encoder.
        min_frames: Shortest input; what is shorter is left out.
        max_frames: Longest input; what is longer is cut.

    Raises:
        UserError: There is no speech, or none that is long enough.
    """
    found = _of_utterances(speech, tokens) if speech is not None else _of_clip(sample)
    usable = [one[None, :max_frames] for one in found if len(one) >= min_frames]
    if not usable:
        raise UserError(
            "fixed scales of activations are taken from speech, and there is none of at least "
            f"{min_frames} frames: name some with --dev-set, or put a sample.flac into the "
            "checkpoint"
        )
    return usable


def _of_utterances(speech: CutSet, tokens: Tokens) -> list[Tensor]:
    cuts = list(speech)
    step = max(1, len(cuts) // UTTERANCES)
    chosen = CutSet.from_cuts(cuts[::step][:UTTERANCES])
    return [
        features[:length]
        for batch in evaluation_batches(chosen, tokens=tokens, max_duration=100.0)
        for features, length in zip(batch.features, batch.feature_lengths.tolist(), strict=True)
    ]


def _of_clip(sample: np.ndarray | None) -> list[Tensor]:
    if sample is None:
        return []
    parts = [part for count in PARTS for part in np.array_split(sample, count)]
    return [fbank(part) for part in parts if len(part) >= FRAME_LENGTH]
