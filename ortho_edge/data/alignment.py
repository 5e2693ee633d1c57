"""Which symbol an encoder frame should carry, where it is known when words or symbols were said."""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from lhotse.cut import Cut
from lhotse.supervision import AlignmentItem

from ortho_edge.data.audio import SAMPLE_RATE
from ortho_edge.data.transcripts import normalizer

UNKNOWN = -1
"""Nothing is known about the frame."""


@runtime_checkable
class Vocabulary(Protocol):
    """What batches need of the tokens."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """What the ids mean."""
        ...

    def encode(self, text: str) -> list[int]:
        """Returns ids; raises ValueError where a character has none."""
        ...

    def minimum_frames(self, ids: list[int]) -> int:
        """Returns the fewest output frames in which CTC can say ``ids``."""
        ...


def frame_targets(
    cut: Cut, tokens: Vocabulary, num_frames: int, silences: tuple[float, float] = (0.0, 0.0)
) -> torch.Tensor:
    """Symbols of the encoder frames of a cut whose words are aligned.

    Augmentation may have stretched the audio evenly, so times count as shares of the cut. The
    middle half of a word that is one symbol carries it, frames outside words are blank; a word's
    edges and words of several symbols stay open. Likewise for a ``symbol`` alignment, whose items
    are the symbols of the text one by one.

    Args:
        cut: One whose supervision may have a ``word`` or a ``symbol`` alignment.
        tokens: Turns words into ids.
        num_frames: Encoder frames of the features.
        silences: Seconds that were put in front of the cut and behind it.

    Returns:
        ``(num_frames,)`` int64, `UNKNOWN` wherever nothing is known.
    """
    items = _aligned(cut, tokens)
    targets = torch.full((num_frames,), 0 if items else UNKNOWN, dtype=torch.int64)
    whole = silences[0] + cut.duration + silences[1]
    for item, ids in items:
        start, length = (silences[0] + item.start) / whole, item.duration / whole
        targets[_frames(start, start + length, num_frames)] = UNKNOWN
        if len(ids) == 1:
            targets[_frames(start + length / 4, start + 3 * length / 4, num_frames)] = ids[0]
    return targets


def _aligned(cut: Cut, tokens: Vocabulary) -> list[tuple[AlignmentItem, list[int]]]:
    """Where things were said, and their ids."""
    if not cut.supervisions:
        return []
    supervision = cut.supervisions[0]
    tiers = supervision.alignment or {}
    normalized = normalizer(tokens)
    if "symbol" in tiers:
        ids = tokens.encode(normalized(supervision.text or ""))
        return [(item, [one]) for item, one in zip(tiers["symbol"], ids, strict=True)]
    return [(item, tokens.encode(normalized(item.symbol))) for item in tiers.get("word", [])]


def spread_evenly(cut: Cut, samples: np.ndarray, tokens: Vocabulary) -> Cut:
    """The cut with a ``symbol`` alignment as in the flat start of hidden Markov models.

    The symbols share the time between the first and the last loud frame. Few are where they were
    said, but they are no blanks, which is where CTC takes long to get to by itself.

    Args:
        cut: An utterance with its text.
        samples: Its audio, ``(N,)`` at `SAMPLE_RATE`.
        tokens: Turns the text into ids; a cut that it cannot spell is returned as it is.
    """
    supervision = cut.supervisions[0]
    try:
        ids = tokens.encode(normalizer(tokens)(supervision.text or ""))
    except ValueError:
        return cut
    start, stop = loud_stretch(samples)
    length = (stop - start) / max(len(ids), 1)
    items = [AlignmentItem(str(one), start + i * length, length) for i, one in enumerate(ids)]
    return cut.map_supervisions(lambda one: one.with_alignment("symbol", items))


def loud_stretch(samples: np.ndarray) -> tuple[float, float]:
    """Seconds of the first and the last 10 ms that are nearer to the loud than to the quiet ones.

    Loud and quiet are the 95th and the 10th percentile of the energy in decibels.

    Args:
        samples: ``(N,)`` at `SAMPLE_RATE`; all of it where it is shorter than 10 ms.
    """
    step = SAMPLE_RATE // 100
    frames = samples[: len(samples) // step * step].reshape(-1, step)
    if not len(frames):
        return 0.0, len(samples) / SAMPLE_RATE
    level = np.log(np.square(frames, dtype=np.float64).mean(1) + 1e-10)
    loud = np.flatnonzero(level >= np.percentile(level, [10, 95]).mean())
    return loud[0] / 100, (loud[-1] + 1) / 100


def _frames(start: float, stop: float, num_frames: int) -> slice:
    """Frames that hold the shares from ``start`` to ``stop`` of a cut, at least one."""
    first = int(start * num_frames)
    return slice(first, max(first + 1, round(stop * num_frames)))
