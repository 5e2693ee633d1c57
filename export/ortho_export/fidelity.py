"""Fidelity: how much of what the encoder says survives quantisation.

A quantised artefact is not equal to the encoder it was made from, so parity in absolute terms says
little. Counted instead are the signal-to-noise ratio of its log-probabilities and the words that
stay the same; word error rates on labelled speech are measured where there is some.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jiwer
import numpy as np

from ortho_edge.compaction import DenseEncoder
from ortho_edge.decoding import greedy_text
from ortho_edge.precision import Precision
from ortho_export.artefact import Recognizer
from ortho_export.parity import Clips, ParityError, encode

FLOORS_DB: Mapping[Precision, float] = {
    "fp16": 50.0, "int8": 30.0, "int8-static": 20.0, "int4": 15.0
}  # fmt: skip
"""Lowest ratio of signal to quantisation noise. docs/results.md has what the shipped sizes reach on
real speech; a floor lies several dB below the worst of them. A wrong scale, a lost bias or a layer
left out costs more than that."""
SAMPLE = "sample"
"""The clip whose words must stay the same."""


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Agreement of a quantised artefact with the eager fp32 encoder.

    Attributes:
        snr_db: Power of the log-probabilities over that of their errors. The mean over the symbols
            of a frame is left out of both: it cancels in every comparison of symbols.
        floor_db: The lowest allowed.
        same_words: Share of the eager encoder's words that the artefact says too, less those that
            it adds.
        words: Words of the eager encoder.
        frames: Length of every clip, by its name.
    """

    snr_db: float
    floor_db: float
    same_words: float
    words: int
    frames: Mapping[str, int]


def check_fidelity(
    reference: DenseEncoder, recognizer: Recognizer, clips: Clips, precision: Precision
) -> Fidelity:
    """Compares a quantised artefact with the encoder it was made from, clip by clip.

    Args:
        reference: The eager compact encoder.
        recognizer: The artefact.
        clips: Mono 16 kHz audio by name, each inside the artefact's bounds. Where there is speech,
            it alone counts; the clip named `sample` must give the same words.
        precision: Whose floor to hold.

    Raises:
        ParityError: The ratio is below the floor, the words of the sample differ, or shapes do.
    """
    spoken = [name for name in clips if not name.startswith("noise")]
    counted = set(spoken or clips)
    signal = noise = 0.0
    said: dict[str, tuple[str, str]] = {}
    frames = {}
    for name, clip in clips.items():
        expected = encode(reference, clip)
        features = recognizer.features(clip)
        found = recognizer.log_probs(features)
        frames[name] = len(features)
        if found.shape != expected.shape:
            raise ParityError(
                f"{name}: log-probabilities {found.shape} instead of {expected.shape}"
            )
        if name in counted:
            power, error = powers(expected, found)
            signal, noise = signal + power, noise + error
            said[name] = (
                greedy_text(expected, recognizer.tokens),
                greedy_text(found, recognizer.tokens),
            )
    snr_db, floor_db = decibels(signal, noise), FLOORS_DB[precision]
    if not snr_db >= floor_db:
        raise ParityError(
            f"{recognizer.name}: {snr_db:.1f} dB between the log-probabilities and their "
            f"quantisation noise, less than the {floor_db:g} dB that {precision} must keep"
        )
    if SAMPLE in said and len(set(said[SAMPLE])) > 1:
        raise ParityError(
            f"{recognizer.name} hears {said[SAMPLE][1]!r} in the sample instead of "
            f"{said[SAMPLE][0]!r}"
        )
    same_words, words = _same_words(said)
    return Fidelity(
        snr_db=snr_db, floor_db=floor_db, same_words=same_words, words=words, frames=frames
    )


def powers(expected: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Energy of log-probabilities (T', V) and of their errors, less the mean of each frame."""
    difference = found - expected
    difference = difference - difference.mean(-1, keepdims=True)
    signal = expected - expected.mean(-1, keepdims=True)
    return float((signal.astype(np.float64) ** 2).sum()), float(
        (difference.astype(np.float64) ** 2).sum()
    )


def decibels(signal: float, noise: float) -> float:
    """Ratio of two energies; infinite without noise."""
    return float("inf") if noise == 0 else float(10 * np.log10(signal / noise))


def _same_words(said: Mapping[str, tuple[str, str]]) -> tuple[float, int]:
    """One minus the word error rate against the expected words, and how many these are."""
    spoken = [pair for pair in said.values() if pair[0].split()]
    if not spoken:
        return 1.0, 0
    expected, found = zip(*spoken, strict=True)
    words = sum(len(text.split()) for text in expected)
    return max(0.0, 1 - float(jiwer.wer(list(expected), list(found)))), words
