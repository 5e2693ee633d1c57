"""What a batch is divided into, and what it holds as a whole."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ortho_edge.conformer.architecture import subsampled_length
from ortho_edge.data.alignment import UNKNOWN
from ortho_edge.data.dataset import Batch
from ortho_edge.data.features import NUM_BINS
from ortho_edge.training.distributed import Ranks

SILENT_FRAMES = 64


@dataclass(frozen=True, kw_only=True)
class BatchCounts:
    """What a whole batch holds, and what its processes have to tell each other.

    Attributes:
        frames: Encoder frames.
        known: Those of them whose symbol is known.
        skipped: Cuts left out since the batch before.
        stopping: Processes that were asked to stop.
    """

    frames: int
    known: int
    skipped: int
    stopping: int


def count(batch: Batch, ranks: Ranks, *, stopping: bool) -> BatchCounts:
    """The counts of a batch, summed over the processes that share it."""
    own = (
        int(subsampled_length(batch.feature_lengths).sum()),
        int((batch.frame_targets >= 0).sum()),
        sum(batch.skipped.values()),
        int(stopping),
    )
    frames, known, skipped, stops = ranks.total(torch.tensor(own)).tolist()
    return BatchCounts(frames=frames, known=known, skipped=skipped, stopping=stops)


def split(batch: Batch, number: int) -> list[Batch]:
    """At most `number` parts of like size, none empty, padded no longer than each needs."""
    rows = torch.arange(len(batch.feature_lengths))
    if number == 1 and len(rows):
        return [batch]
    tokens = batch.tokens.split(batch.token_lengths.tolist())
    return [_rows(batch, tokens, rows[start::number]) for start in range(min(number, len(rows)))]


def _rows(batch: Batch, tokens: tuple[Tensor, ...], rows: Tensor) -> Batch:
    lengths = batch.feature_lengths[rows]
    longest = int(lengths.max())
    numbers = rows.tolist()
    return replace(
        batch,
        features=batch.features[rows, :longest],
        feature_lengths=lengths,
        tokens=torch.cat([tokens[row] for row in numbers]),
        token_lengths=batch.token_lengths[rows],
        frame_targets=batch.frame_targets[rows, : subsampled_length(longest)],
        texts=tuple(batch.texts[row] for row in numbers),
        cut_ids=tuple(batch.cut_ids[row] for row in numbers),
        speakers=tuple(batch.speakers[row] for row in numbers),
    )


def silence() -> Batch:
    """An utterance for a process that has none: it must take part in the others' reduction."""
    return Batch(
        features=torch.zeros(1, SILENT_FRAMES, NUM_BINS),
        feature_lengths=torch.tensor([SILENT_FRAMES]),
        tokens=torch.zeros(0, dtype=torch.int64),
        token_lengths=torch.tensor([0]),
        frame_targets=torch.full((1, subsampled_length(SILENT_FRAMES)), UNKNOWN),
        texts=("",),
        cut_ids=("",),
        speakers=("",),
    )
