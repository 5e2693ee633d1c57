"""Words that a quantised artefact shares with the encoder it was made from, with their interval.

One clip proves nothing: where two symbols are nearly as likely, the last digit of a scale decides,
and it differs between processors. Counted are the words of many utterances, and only an interval
that lies below the limit as a whole is a reason to refuse.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jiwer
import numpy as np
import soxr
from jaxtyping import Float32
from scipy.stats import binomtest

from ortho_edge.data.audio import SAMPLE_RATE

CONFIDENCE = 0.95
ENOUGH_WORDS = 50
"""Fewer prove nothing: of these, a whole interval below 80 % takes fifteen wrong ones."""
SPOKEN_AS = ((1.0, 0.0), (0.9, -6.0), (1.1, -12.0), (1.0, -20.0))
"""Speeds and levels in dB."""
PARTS = 3
_QUIET = SAMPLE_RATE // 10


@dataclass(frozen=True, kw_only=True)
class WordAgreement:
    """Words of the eager encoder that an artefact says too.

    Attributes:
        speech: What they were heard in.
        utterances: How many.
        words: Those of the eager encoder.
        same: Share that the artefact says too, less what it adds; at least 0.
        low: Lower end of Wilson's 95 % interval of that share, which takes words as independent.
        high: Its upper end.
    """

    speech: str
    utterances: int
    words: int
    same: float
    low: float
    high: float

    def is_below(self, limit: float) -> bool:
        """Whether enough words show that less than `limit` of them stay the same."""
        return self.words >= ENOUGH_WORDS and self.high < limit


def word_agreement(pairs: Iterable[tuple[str, str]], speech: str) -> WordAgreement | None:
    """Counts the words of transcripts by the eager encoder and by an artefact.

    Args:
        pairs: Both transcripts of every utterance.
        speech: What it is.

    Returns:
        None where the eager encoder hears no word.
    """
    pairs = list(pairs)
    spoken = [pair for pair in pairs if pair[0].split()]
    words = sum(len(expected.split()) for expected, _ in spoken)
    if not words:
        return None
    expected, found = map(list, zip(*spoken, strict=True))
    counts = jiwer.process_words(expected, found)
    added = sum(len(found.split()) for expected, found in pairs if not expected.split())
    errors = counts.substitutions + counts.deletions + counts.insertions + added
    same = max(0, words - errors)
    interval = binomtest(same, words).proportion_ci(CONFIDENCE, method="wilson")
    return WordAgreement(
        speech=speech,
        utterances=len(pairs),
        words=words,
        same=same / words,
        low=float(interval.low),
        high=float(interval.high),
    )


def describe_words(stated: Mapping[str, Any] | None) -> str:
    """The agreement that a manifest states, for a person; None where no words were compared."""
    if stated is None:
        return "words were not compared, for the checkpoint carries no speech"
    return (
        f"{100 * stated['same']:.1f} % of {stated['words']:,} words the same, "
        f"{100 * CONFIDENCE:g} % interval {100 * stated['low']:.1f} to {100 * stated['high']:.1f} "
        f"({stated['utterances']} utterances of {stated['speech']})"
    )


def utterances_of(
    clip: Float32[np.ndarray, " samples"],
) -> dict[str, Float32[np.ndarray, " _"]]:
    """Many utterances of one: its parts in every order, at several speeds and levels.

    Args:
        clip: Mono 16 kHz speech, cut where it is quietest near its thirds.
    """
    cuts = [_quietest(clip, len(clip) * part // PARTS) for part in range(1, PARTS)]
    parts = np.split(clip, cuts)
    return {
        f"words-{''.join(map(str, order))}-{speed:g}-{decibels:g}": _spoken(
            [parts[index] for index in order], speed, decibels
        )
        for order in itertools.permutations(range(PARTS))
        for speed, decibels in SPOKEN_AS
    }


def _quietest(clip: np.ndarray, near: int) -> int:
    """The sample around which there is least energy, at most an eighth of the clip away."""
    first, last = max(0, near - len(clip) // 8), near + len(clip) // 8
    energy = np.convolve(clip[first:last].astype(np.float64) ** 2, np.ones(_QUIET), "same")
    return first + int(energy.argmin())


def _spoken(parts: Sequence[np.ndarray], speed: float, decibels: float) -> np.ndarray:
    clip = np.concatenate(parts)
    if speed != 1:
        clip = soxr.resample(clip, SAMPLE_RATE, SAMPLE_RATE * speed)
    return (clip * 10 ** (decibels / 20)).astype(np.float32)
