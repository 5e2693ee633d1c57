"""Log-probabilities of audio of any length, from an encoder that takes half a minute.

Letters: T' encoder frames of 40 ms, V vocabulary.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from ortho_edge.data.audio import SAMPLE_RATE
from ortho_edge.data.segmentation import ENCODER_SHIFT, Piece, pieces

SHORTEST = SAMPLE_RATE // 10
"""Samples of the shortest input of an encoder; a shorter last piece gets silence behind it."""

LogProbs = Callable[[Float32[np.ndarray, " N"]], Float32[np.ndarray, "T4 V"]]
"""From samples at 16 kHz to log-probabilities."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What was heard between two pauses, or in windows that were joined.

    Attributes:
        start: Its begin in seconds.
        end: Its end in seconds.
        log_probs: (T', V).
        windows: Windows that it was joined of; 1 where pauses are close enough.
    """

    start: float
    end: float
    log_probs: Float32[np.ndarray, "T4 V"]
    windows: int


def stretches(blocks: Iterable[np.ndarray], log_probs: LogProbs, longest: int) -> Iterator[Stretch]:
    """Encodes audio piece by piece; windows that overlap are joined in the middle of the overlap.

    Args:
        blocks: float32 samples at 16 kHz, as they come.
        log_probs: The encoder.
        longest: Most samples that it takes.
    """
    joined: list[Piece] = []
    outputs: list[np.ndarray] = []
    for piece in pieces(blocks, longest):
        if joined and piece.overlap == 0:
            yield _joined(joined, outputs)
            joined, outputs = [], []
        samples = np.pad(piece.samples, (0, max(0, SHORTEST - len(piece.samples))))
        found = log_probs(samples)
        if joined:
            half = piece.overlap // ENCODER_SHIFT // 2
            outputs[-1], found = outputs[-1][:-half], found[half:]
        joined.append(piece)
        outputs.append(found)
    if joined:
        yield _joined(joined, outputs)


def _joined(windows: list[Piece], outputs: list[np.ndarray]) -> Stretch:
    return Stretch(
        start=windows[0].start / SAMPLE_RATE,
        end=windows[-1].end / SAMPLE_RATE,
        log_probs=np.concatenate(outputs),
        windows=len(windows),
    )
