"""Costs by lookup: what a compiler says of every module of one architecture, at given lengths.

A compiler for an accelerator knows the cost of one shape and nothing of the next: cycles of a
convolution jump where a tile is full. So nothing is fitted. A table has a row per number of open
units and a column per length of audio; a network costs the sum over its modules in cycles and in
bytes of its program, and the largest module in memory. Between two lengths the straight line
counts, which is no less than the cost of attention, whose curve bends upwards. Another architecture
has no figures here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ortho_edge.cli import UserError
from ortho_edge.conformer.architecture import Architecture

LARGEST = 1e12
"""Of cycles and of kilobytes in a table: more is a mistake of the file."""


@dataclass(frozen=True, kw_only=True)
class ModuleTable:
    """One kind of module: a row per number of open units, a column per length."""

    cycles: tuple[tuple[float, ...], ...]
    sram_kb: tuple[tuple[float, ...], ...]
    """Memory of its tensors at its fullest moment, of 1000 bytes."""
    file_kb: tuple[tuple[float, ...], ...]
    """What it adds to a program: weights as the compiler packs them, and commands."""


@dataclass(frozen=True, kw_only=True)
class ShapeTables:
    """Tables of all kinds of modules of one architecture."""

    shape: str
    """The architecture, as `shape_of` says it."""
    audio_seconds: tuple[float, ...]
    """Lengths of the columns, shortest first."""
    modules: Mapping[str, ModuleTable]
    """By kind, such as `ffn`."""

    def __post_init__(self) -> None:
        """Raises ValueError when lengths are out of order or a table is not of their number."""
        columns = self.audio_seconds
        if not columns or list(columns) != sorted(set(columns)) or columns[0] <= 0:
            raise ValueError(f"audio_seconds must rise from above 0, not {list(columns)}")
        for kind, table in self.modules.items():
            columns_of = (table.cycles, table.sram_kb, table.file_kb)
            if len({len(one) for one in columns_of}) > 1 or not table.cycles:
                raise ValueError(
                    f"modules.{kind}: cycles, sram_kb and file_kb need as many rows, and one"
                )
            for row in (row for one in columns_of for row in one):
                if len(row) != len(columns) or not all(0 <= one <= LARGEST for one in row):
                    raise ValueError(
                        f"modules.{kind}: a row holds {len(columns)} numbers from 0 to "
                        f"{LARGEST:g}, one per length, not {list(row)}"
                    )

    def check(self, architecture: Architecture, seconds: float, device: str) -> None:
        """Checks that there are figures for an architecture and a length.

        Raises:
            UserError: There are none.
        """
        if (asked := shape_of(architecture)) != self.shape:
            raise UserError(
                f"device {device!r} has figures for {self.shape}, not for {asked}; make a profile "
                f"of yours: python -m ortho_edge.profile --on {device} --checkpoint DIR"
            )
        shortest, longest = self.audio_seconds[0], self.audio_seconds[-1]
        if not shortest <= seconds <= longest:
            known = f"{shortest:g} to {longest:g}" if shortest < longest else f"{longest:g}"
            raise UserError(
                f"device {device!r} has figures for {known} s of audio, not for {seconds:g} s"
            )

    def cycles(self, modules: Iterable[tuple[str, int]], seconds: float) -> float:
        """Cycles of a network of these kinds with so many open units, for `seconds` of audio."""
        return sum(
            self._at(self.modules[kind].cycles[units - 1], seconds) for kind, units in modules
        )

    def file_kb(self, modules: Iterable[tuple[str, int]], seconds: float) -> float:
        """What the modules of such a network add to its program."""
        return sum(
            self._at(self.modules[kind].file_kb[units - 1], seconds) for kind, units in modules
        )

    def sram_kb(self, modules: Iterable[tuple[str, int]], seconds: float) -> float:
        """Memory of the tensors of such a network: that of its largest module."""
        return max(
            self._at(self.modules[kind].sram_kb[units - 1], seconds) for kind, units in modules
        )

    def without_memory(self) -> "ShapeTables":
        """The same cycles, and no memory."""
        empty = {
            kind: replace(table, sram_kb=tuple((0.0,) * len(row) for row in table.sram_kb))
            for kind, table in self.modules.items()
        }
        return replace(self, modules=empty)

    def _at(self, row: tuple[float, ...], seconds: float) -> float:
        return float(np.interp(seconds, self.audio_seconds, row))


def shape_of(architecture: Architecture) -> str:
    """Everything about an architecture that decides what one of its modules costs."""
    one = architecture
    channels = "-".join(map(str, one.front_end_channels))
    chunks = f" in {one.front_end_chunks} chunks" if one.front_end_chunks > 1 else ""
    return (
        f"dim {one.dim}, heads of {one.head_dim}, chunks of {one.chunk_dim}, kernel "
        f"{one.kernel_size}, {one.vocab_size} symbols, {one.front_end} front end of {channels} "
        f"channels{chunks} on {one.feature_dim} bins"
    )
