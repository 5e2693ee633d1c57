"""The table and the plot at the end of the latency bench: size, FLOPs share, latency share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCH = "latency"
"""In `extra_info` of the benchmarks that the table shows."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One benchmark: a subnet in a runtime on audio of one length."""

    subnet: str
    runtime: str
    precision: str
    seconds: float
    milliseconds: float
    params: int
    flops: float
    flops_share: float
    """Of the full network, for audio of this length."""

    @property
    def column(self) -> str:
        """The runtime, and the precision where it is not fp32."""
        return self.runtime if self.precision == "fp32" else f"{self.runtime} {self.precision}"


def records(benchmarks: Sequence[Any]) -> list[Record]:
    """The latency benchmarks among those that pytest-benchmark ran, by their minimum."""
    found = []
    for one in benchmarks:
        extra: Mapping[str, Any] = one.extra_info
        if extra.get("bench") == BENCH and not one.has_error:
            facts = {
                name: extra[name]
                for name in (
                    "subnet",
                    "runtime",
                    "precision",
                    "seconds",
                    "params",
                    "flops",
                    "flops_share",
                )
            }
            found.append(Record(milliseconds=1000 * one.stats.min, **facts))
    return found


def latency_table(found: Sequence[Record]) -> list[str]:
    """Lines: per audio length, the subnets from the largest down.

    fp32 comes with its share of the largest subnet, any other precision with how many times faster
    than fp32 it was.
    """
    runtimes = list(dict.fromkeys(one.column for one in found))
    rows = [["audio", "size", "parameters", "FLOPs", *(f"{one} (ms)" for one in runtimes)]]
    for seconds in sorted({one.seconds for one in found}):
        of_length = [one for one in found if one.seconds == seconds]
        by_subnet: dict[str, dict[str, Record]] = {}
        for one in sorted(of_length, key=lambda one: one.flops, reverse=True):
            by_subnet.setdefault(one.subnet, {})[one.column] = one
        largest = next(iter(by_subnet.values()))
        for subnet, by_runtime in by_subnet.items():
            any_record = next(iter(by_runtime.values()))
            cells = [_cell(by_runtime.get(name), largest, by_runtime) for name in runtimes]
            share = f"{100 * any_record.flops_share:.1f} %"
            rows.append([f"{seconds:g} s", subnet, f"{any_record.params:,}", share, *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]


def _cell(
    one: Record | None, largest: Mapping[str, Record], same_subnet: Mapping[str, Record]
) -> str:
    if one is None:
        return "-"
    if one.precision == "fp32":
        whole = largest.get(one.column)
        share = "" if whole is None else f"{100 * one.milliseconds / whole.milliseconds:5.1f} %"
        return f"{one.milliseconds:.2f}  {share}"
    plain = same_subnet.get(one.runtime)
    gain = "" if plain is None else f"{plain.milliseconds / one.milliseconds:4.2f} x"
    return f"{one.milliseconds:.2f}  {gain}"


def plot_latency(found: Sequence[Record], path: Path) -> None:
    """Latency against FLOPs, one line per runtime and one panel per length, to an image file."""
    from matplotlib.figure import Figure

    lengths = sorted({one.seconds for one in found})
    figure = Figure(figsize=(4 * len(lengths), 3.5), layout="constrained")
    for index, seconds in enumerate(lengths):
        axes = figure.add_subplot(1, len(lengths), index + 1)
        for runtime in dict.fromkeys(one.column for one in found):
            points = sorted(
                (one.flops / 1e6, one.milliseconds)
                for one in found
                if one.column == runtime and one.seconds == seconds
            )
            axes.plot(*zip(*points, strict=True), marker="o", label=runtime)
        axes.set(title=f"{seconds:g} s of audio", xlabel="MFLOP", xlim=(0, None), ylim=(0, None))
        axes.set_ylabel("latency (ms)")
        axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
