"""Fidelity: how much of what the encoder says survives quantisation.

A quantised artefact is not equal to the encoder it was made from, so parity in absolute terms says
little. Counted instead are the signal-to-noise ratio of its log-probabilities and the words of many
utterances that stay the same; word error rates on labelled speech are measured where there is some.
Both gates hold on every processor: neither is a single symbol.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ortho_edge.compaction import DenseEncoder
from ortho_edge.data.features import num_frames
from ortho_edge.decoding import greedy_text
from ortho_edge.precision import Precision
from ortho_export.artefact import Recognizer
from ortho_export.machine import this_machine
from ortho_export.parity import Clips, ParityError, encode
from ortho_export.words import WordAgreement, utterances_of, word_agreement

FLOORS_DB: Mapping[Precision, float] = {
    "fp16": 50.0, "int8": 30.0, "int8-static": 20.0, "int4": 15.0
}  # fmt: skip
"""Lowest ratio of signal to quantisation noise. docs/results.md has what the shipped sizes reach on
real speech; a floor lies several dB below the worst of them. A wrong scale, a lost bias or a layer
left out costs more than that."""
LEAST_WORDS: Mapping[Precision, float] = {
    "fp16": 0.95, "int8": 0.8, "int8-static": 0.75, "int4": 0.7
}  # fmt: skip
"""Lowest share of words that must stay the same: refused is what has its whole interval below it.
Trained networks keep 0.96 and more of their words in 8 bits; an untrained one, which is undecided
everywhere, 0.91, and 0.88 in 4. Processors differ by less than a word in a hundred."""
SAMPLE = "sample"
"""The clip that utterances are made of."""


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Agreement of a quantised artefact with the eager fp32 encoder.

    Attributes:
        snr_db: Power of the log-probabilities over that of their errors. The mean over the symbols
            of a frame is left out of both: it cancels in every comparison of symbols.
        floor_db: The lowest allowed.
        words: Those that stay the same; None where there was no speech.
        least_words: The lowest share of them that is allowed.
        frames: Length of every clip, by its name.
        machine: Where it was found.
    """

    snr_db: float
    floor_db: float
    words: WordAgreement | None
    least_words: float
    frames: Mapping[str, int]
    machine: str = field(default_factory=this_machine)


def check_fidelity(
    reference: DenseEncoder,
    recognizer: Recognizer,
    clips: Clips,
    precision: Precision,
    words: WordAgreement | None = None,
) -> Fidelity:
    """Compares a quantised artefact with the encoder it was made from, clip by clip.

    Args:
        reference: The eager compact encoder.
        recognizer: The artefact.
        clips: Mono 16 kHz audio by name, each inside the artefact's bounds. Where there is speech,
            it alone counts; of the clip named `sample` many utterances are made.
        precision: Whose floors to hold.
        words: What is known of labelled speech, which counts instead of the clips' words.

    Raises:
        ParityError: The ratio is below the floor, too few words stay the same, or shapes differ.
    """
    clips = {**clips, **_utterances(clips, recognizer)}
    spoken = [name for name in clips if not name.startswith("noise")]
    signal = noise = 0.0
    said: list[tuple[str, str]] = []
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
        if name in spoken or not spoken:
            power, error = powers(expected, found)
            signal, noise = signal + power, noise + error
        if name in spoken:
            said.append(
                (greedy_text(expected, recognizer.tokens), greedy_text(found, recognizer.tokens))
            )
    found_words = word_agreement(said, "the sample clip") if words is None else words
    fidelity = Fidelity(
        snr_db=decibels(signal, noise),
        floor_db=FLOORS_DB[precision],
        words=found_words,
        least_words=LEAST_WORDS[precision],
        frames=frames,
    )
    _check(fidelity, recognizer.name, precision)
    return fidelity


def _utterances(clips: Clips, recognizer: Recognizer) -> Clips:
    """What is made of the sample, as far as it is inside the artefact's bounds."""
    if SAMPLE not in clips:
        return {}
    longest = float("inf") if recognizer.max_frames is None else recognizer.max_frames
    return {
        name: clip
        for name, clip in utterances_of(clips[SAMPLE]).items()
        if recognizer.min_frames <= num_frames(len(clip)) <= longest
    }


def _check(fidelity: Fidelity, name: str, precision: Precision) -> None:
    """Raises ParityError where too little survives."""
    if not fidelity.snr_db >= fidelity.floor_db:
        raise ParityError(
            f"{name}: {fidelity.snr_db:.1f} dB between the log-probabilities and their "
            f"quantisation noise, less than the {fidelity.floor_db:g} dB that {precision} must keep"
        )
    words = fidelity.words
    if words is not None and words.is_below(fidelity.least_words):
        raise ParityError(
            f"{name}: {100 * words.same:.1f} % of {words.words} words of {words.speech} are those "
            f"of the fp32 encoder, with confidence at most {100 * words.high:.1f} %, less than the "
            f"{100 * fidelity.least_words:g} % that {precision} must keep"
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
