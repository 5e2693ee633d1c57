"""Which symbol an encoder frame should carry, where it is known when each word was said."""

from typing import Protocol, runtime_checkable

import torch
from lhotse.cut import Cut

UNKNOWN = -1
"""Nothing is known about the frame."""


@runtime_checkable
class Vocabulary(Protocol):
    """What batches need of the tokens."""

    def encode(self, text: str) -> list[int]:
        """Returns ids; raises ValueError where a character has none."""
        ...

    def minimum_frames(self, ids: list[int]) -> int:
        """Returns the fewest output frames in which CTC can say ``ids``."""
        ...


def frame_targets(cut: Cut, tokens: Vocabulary, num_frames: int) -> torch.Tensor:
    """Symbols of the encoder frames of a cut whose words are aligned.

    Augmentation may have stretched the audio evenly, so times count as shares of the cut. The
    middle half of a word that is one symbol carries it, frames outside words are blank; a word's
    edges and words of several symbols stay open.

    Args:
        cut: One whose supervision may have a ``word`` alignment.
        tokens: Turns words into ids.
        num_frames: Encoder frames of the features.

    Returns:
        ``(num_frames,)`` int64, `UNKNOWN` wherever nothing is known.
    """
    words = (cut.supervisions[0].alignment or {}).get("word", []) if cut.supervisions else []
    targets = torch.full((num_frames,), 0 if words else UNKNOWN, dtype=torch.int64)
    for word in words:
        ids = tokens.encode(word.symbol)
        start, length = word.start / cut.duration, word.duration / cut.duration
        targets[_frames(start, start + length, num_frames)] = UNKNOWN
        if len(ids) == 1:
            targets[_frames(start + length / 4, start + 3 * length / 4, num_frames)] = ids[0]
    return targets


def _frames(start: float, stop: float, num_frames: int) -> slice:
    """Frames that hold the shares from ``start`` to ``stop`` of a cut, at least one."""
    first = int(start * num_frames)
    return slice(first, max(first + 1, round(stop * num_frames)))
