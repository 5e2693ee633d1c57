"""The table and the plot of the latency bench: size, FLOPs share, latency share.

They end every run of the bench; `python -m bench.latency_table --help` makes them from its JSON.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ortho_edge.cli import UserError, run

BENCH = "latency"
"""In `extra_info` of the benchmarks that the table shows."""
MARGIN = 0.08
"""A size should cost its share of the FLOPs and at most so much more of the full network's time."""
FIELDS = ("subnet", "runtime", "precision", "seconds", "params", "flops", "flops_share", "share")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One benchmark: a subnet in a runtime on audio of one length."""

    subnet: str
    runtime: str
    precision: str
    seconds: float
    milliseconds: float
    """Minimum."""
    median: float
    params: int
    flops: float
    flops_share: float
    """Of the full network, for audio of this length."""
    share: float
    """Of the full network's time, both timed in turns."""

    @property
    def column(self) -> str:
        """The runtime, and the precision where it is not fp32."""
        return self.runtime if self.precision == "fp32" else f"{self.runtime} {self.precision}"


def records(benchmarks: Sequence[Any]) -> list[Record]:
    """The latency benchmarks among those that pytest-benchmark ran."""
    return [
        _record(one.extra_info, one.stats.min, one.stats.median)
        for one in benchmarks
        if one.extra_info.get("bench") == BENCH and not one.has_error
    ]


def records_of(path: Path) -> list[Record]:
    """The latency benchmarks in a file that `--benchmark-json` wrote.

    Raises:
        UserError: It is no such file.
    """
    try:
        benchmarks = json.loads(path.read_text("utf-8"))["benchmarks"]
        return [
            _record(one["extra_info"], one["stats"]["min"], one["stats"]["median"])
            for one in benchmarks
            if one["extra_info"].get("bench") == BENCH
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no results of the latency bench: {error!r}") from error


def _record(extra: Mapping[str, Any], minimum: float, median: float) -> Record:
    facts = {name: extra[name] for name in FIELDS}
    return Record(milliseconds=1000 * minimum, median=1000 * median, **facts)


def latency_table(found: Sequence[Record]) -> list[str]:
    """Lines: per audio length, the subnets from the largest down, minimum and median.

    fp32 comes with its share of the full network's time, any other precision with how many times
    faster than fp32 it was.
    """
    runtimes = list(dict.fromkeys(one.column for one in found))
    rows = [["audio", "size", "parameters", "FLOPs", *(f"{one} (ms)" for one in runtimes)]]
    for seconds in sorted({one.seconds for one in found}):
        of_length = [one for one in found if one.seconds == seconds]
        by_subnet: dict[str, dict[str, Record]] = {}
        for one in sorted(of_length, key=lambda one: one.flops, reverse=True):
            by_subnet.setdefault(one.subnet, {})[one.column] = one
        for subnet, by_runtime in by_subnet.items():
            any_record = next(iter(by_runtime.values()))
            cells = [_cell(by_runtime.get(name), by_runtime) for name in runtimes]
            share = f"{100 * any_record.flops_share:.1f} %"
            rows.append([f"{seconds:g} s", subnet, f"{any_record.params:,}", share, *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]


def _cell(one: Record | None, same_subnet: Mapping[str, Record]) -> str:
    if one is None:
        return "-"
    times = f"{one.milliseconds:.2f} {one.median:5.2f}"
    if one.precision == "fp32":
        return f"{times}  {100 * one.share:5.1f} %"
    plain = same_subnet.get(one.runtime)
    gain = "" if plain is None else f"{plain.milliseconds / one.milliseconds:4.2f} x"
    return f"{times}  {gain}"


def disproportionate(found: Sequence[Record]) -> list[str]:
    """Lines: which sizes cost more than their FLOPs and the margin."""
    above = [
        f"{one.subnet} at {one.seconds:g} s in {one.column}: {100 * one.share:.1f} % of the time, "
        f"{100 * one.flops_share:.1f} % of the FLOPs"
        for one in found
        if one.share > one.flops_share + MARGIN
    ]
    limit = f"their share of the FLOPs and {100 * MARGIN:g} points"
    if not above:
        return [f"all sizes are within {limit}"]
    return [f"{len(above)} of {len(found)} are above {limit}:", *above]


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


@dataclass(frozen=True)
class Arguments:
    """Show the results of the latency bench."""

    results: Annotated[Path, tyro.conf.Positional]
    """What `pytest bench --benchmark-only --benchmark-json FILE` wrote."""
    plot: Path | None = None
    """Image of latency against FLOPs."""


def main(arguments: Arguments) -> None:
    """Prints the table and draws the plot."""
    found = records_of(arguments.results)
    if not found:
        raise UserError(f"{arguments.results} holds no results of the latency bench")
    print("\n".join([*latency_table(found), *disproportionate(found)]))
    if arguments.plot is not None:
        plot_latency(found, arguments.plot)


if __name__ == "__main__":
    run(main, Arguments, prog="python -m bench.latency_table")
