"""Where long audio is cut: into pieces that a model takes, at pauses wherever there are any.

A model hears an utterance as a whole and takes half a minute at most. Cut where nobody speaks, a
piece is what the utterance alone would be, and gives the same words. Speech without a pause in all
that time is cut into windows that overlap, for `ortho_edge.long_audio` to join in the middle of the
overlap. All audio is in some piece; silence and noise are, too.

Shapes: N samples at 16 kHz, F frames of 10 ms.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from ortho_edge.data.audio import SAMPLE_RATE
from ortho_edge.data.features import FRAME_SHIFT

ENCODER_SHIFT = 4 * FRAME_SHIFT
"""Samples from one frame of an encoder to the next."""
OVERLAP = 2 * SAMPLE_RATE
"""Samples that two windows share; whole frames of an encoder, in an even number."""
PAUSE = 50
"""Frames of the shortest pause at which audio is always cut."""
SHORT_PAUSE = 15
"""Frames of the shortest at which it is cut for want of a longer one."""
MARGIN = 50
"""Most frames of a pause that stay with the speech beside it."""
SHORTEST_PIECE = 100
"""Frames: nothing shorter is cut off in front of a pause."""
SHORTEST_SILENCE = 25
"""Frames of the shortest silence that is a piece of its own."""
QUIET_DB = (3.0, 12.0)
"""Least and most by which a pause may be louder than the quietest tenth of a window."""
STEADY_DB = 6.0
"""A window whose level varies less has no speech in it, or nothing but speech."""
DEEPEST_DB = 60.0
"""Below the loudest level everything is equally quiet: digital silence sets no measure."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of audio.

    Attributes:
        start: Its first sample, in the whole audio.
        samples: float32 (N,).
        overlap: How many samples at its begin the piece before it has, too.
    """

    start: int
    samples: Float32[np.ndarray, " N"]
    overlap: int

    @property
    def end(self) -> int:
        """The sample behind its last."""
        return self.start + len(self.samples)


def can_be_cut(longest_frames: int | None) -> bool:
    """Whether audio may be heard in pieces of so many frames of 10 ms."""
    return longest_frames is not None and FRAME_SHIFT * longest_frames >= 4 * OVERLAP


def pieces(blocks: Iterable[np.ndarray], longest: int) -> Iterator[Piece]:
    """Cuts audio that comes block by block; never holds much more than one piece.

    Args:
        blocks: float32 samples at 16 kHz.
        longest: Most samples of a piece, at least four times `OVERLAP`; rounded down to whole
            frames of an encoder.

    Yields:
        Pieces in order; together they are the audio, but for what overlaps.

    Raises:
        ValueError: `longest` is too short to overlap.
    """
    longest -= longest % ENCODER_SHIFT
    if longest < 4 * OVERLAP:
        raise ValueError(f"longest must be at least {4 * OVERLAP} samples, not {longest}")
    held: list[np.ndarray] = []
    start = overlap = 0
    for block in blocks:
        held.append(block)
        if sum(map(len, held)) <= longest:
            continue
        buffer = np.concatenate(held)
        while len(buffer) > longest:
            cut, shared = _cut(buffer[:longest], overlap)
            yield Piece(start=start, samples=buffer[:cut], overlap=overlap)
            buffer, start, overlap = buffer[cut - shared :], start + cut - shared, shared
        held = [buffer]
    yield from _last_pieces(
        np.concatenate(held) if held else np.zeros(0, np.float32), start, overlap
    )


def _last_pieces(buffer: np.ndarray, start: int, overlap: int) -> Iterator[Piece]:
    """What is left, no longer than a piece, is cut at long pauses alone."""
    while len(buffer):
        cut = _cut_at_pause(buffer, overlap) or len(buffer)
        yield Piece(start=start, samples=buffer[:cut], overlap=overlap)
        buffer, start, overlap = buffer[cut:], start + cut, 0


def _cut(window: np.ndarray, overlap: int) -> tuple[int, int]:
    """Samples of the next piece, and how many of them the one after it repeats."""
    if (cut := _cut_at_pause(window, overlap)) is not None:
        return cut, 0
    quiet = quiet_frames(window)
    if quiet.all():
        return len(window), 0
    # Late rather than early: a piece of half a minute has more to go by than one of ten seconds.
    late = [
        one for one in _runs(quiet) if one[0] >= len(quiet) // 3 and one[1] - one[0] >= SHORT_PAUSE
    ]
    if late:
        first, last = max(late, key=lambda run: run[1] - run[0])
        return (first + last) // 2 * FRAME_SHIFT, 0
    return len(window), OVERLAP


def _cut_at_pause(window: np.ndarray, overlap: int) -> int | None:
    """The first place to cut at a long pause, in samples; None where there is none."""
    quiet = quiet_frames(window)
    if quiet.all() or len(quiet) == 0:
        return None
    for first, last in _runs(quiet):
        length = last - first
        if first == 0 and overlap == 0:
            # Silence in front: a piece of its own, but for what stays with the speech behind it.
            if length >= MARGIN + SHORTEST_SILENCE and last < len(quiet):
                return (last - MARGIN) * FRAME_SHIFT
        elif length >= PAUSE and first >= SHORTEST_PIECE + overlap // FRAME_SHIFT:
            cut = first + min(length // 2, MARGIN)
            return cut * FRAME_SHIFT if cut * FRAME_SHIFT < len(window) else None
    return None


def quiet_frames(samples: Float32[np.ndarray, " N"]) -> np.ndarray:
    """Which frames are about as quiet as the quietest of them, bool (F,); the last may be short."""
    whole = len(samples) // FRAME_SHIFT * FRAME_SHIFT
    frames = samples[:whole].reshape(-1, FRAME_SHIFT).astype(np.float64)
    if len(frames) == 0:
        return np.ones(0, dtype=bool)
    # The variance: a constant offset is no sound.
    levels = 10 * np.log10(frames.var(1) + 1e-12)
    kernel = np.ones(min(5, len(levels)))
    smooth = np.convolve(levels, kernel, "same") / np.convolve(np.ones(len(levels)), kernel, "same")
    loudest = smooth.max()
    floor = max(float(np.percentile(levels, 10)), loudest - DEEPEST_DB)
    if loudest - floor < STEADY_DB:
        return np.ones(len(levels), dtype=bool)
    return smooth < floor + np.clip(0.3 * (loudest - floor), *QUIET_DB)


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """First and last (exclusive) index of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]
