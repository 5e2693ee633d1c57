"""The comparison of encoders as tables in Markdown and as a plot, from its results."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.peer_files import OURS
from ortho_edge.atomic import write_atomically

Row = Mapping[str, Any]


def table(rows: Sequence[Row]) -> list[str]:
    """Lines: a table per group of encoders and length, then who is faster than ours."""
    lines = []
    for group in dict.fromkeys(row["group"] for row in rows):
        for seconds in sorted({row["seconds"] for row in rows}):
            chosen = [row for row in rows if (row["group"], row["seconds"]) == (group, seconds)]
            lines += [f"### {group}, {seconds:g} s", "", *_one(chosen), ""]
    return [*lines, *_faster(rows)]


def _one(rows: Sequence[Row]) -> Iterator[str]:
    runtimes = list(dict.fromkeys(row["runtime"] for row in rows))
    head = ["encoder", "input", "parameters", "MFLOP", "frames/s"]
    head += [f"{one}: min / p50 (ms), peak (MB)" for one in runtimes]
    yield f"| {' | '.join(head)} |"
    yield f"| --- | --- |{' ---: |' * (len(head) - 2)}"
    encoders: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        encoders.setdefault((row["name"], row["input"]), {})[row["runtime"]] = row
    for (name, takes), by_runtime in encoders.items():
        any_row = next(iter(by_runtime.values()))
        cells = [
            name, takes, f"{any_row['params']:,}", f"{any_row['mflops']:,.0f}",
            f"{any_row['frames'] / any_row['seconds']:.1f}",
            *(_cell(by_runtime.get(one)) for one in runtimes),
        ]  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    memory = "" if row["memory_mb"] is None else f", {row['memory_mb']:.0f}"
    return f"{row['min_ms']:.2f} / {row['p50_ms']:.2f}{memory}"


def _faster(rows: Sequence[Row]) -> list[str]:
    """Where a peer of our size takes less time than ours with the same input, and what it does."""
    ours = {_place(row): row for row in rows if row["name"] == OURS}
    found = []
    for row in rows:
        one = ours.get(_place(row))
        if row["name"] == OURS or one is None or row["min_ms"] >= one["min_ms"]:
            continue
        found.append(
            f"- {row['name']} ({row['group']}, {row['seconds']:g} s, {row['runtime']}, "
            f"{row['input']}): {row['min_ms'] / one['min_ms']:.2f} of our time, with "
            f"{row['mflops'] / one['mflops']:.2f} of our FLOPs and "
            f"{row['frames'] / one['frames']:.2f} of our frames; per MFLOP "
            f"{row['min_ms'] * one['mflops'] / (row['mflops'] * one['min_ms']):.2f} of our time."
        )
    return ["Faster than ours:", "", *found] if found else ["No peer is faster than ours."]


def _place(row: Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("group", "seconds", "runtime", "input"))


def plot(rows: Sequence[Row], path: Path) -> None:
    """Latency against FLOPs, a panel per runtime and a colour per encoder, all lengths."""
    import io

    from matplotlib.figure import Figure

    runtimes = [one for one in dict.fromkeys(row["runtime"] for row in rows) if "torch" not in one]
    names = list(dict.fromkeys(row["name"] for row in rows))
    figure = Figure(figsize=(6 * len(runtimes), 4.5), layout="constrained")
    for index, runtime in enumerate(runtimes):
        axes = figure.add_subplot(1, len(runtimes), index + 1)
        for number, name in enumerate(names):
            points = [row for row in rows if (row["runtime"], row["name"]) == (runtime, name)]
            axes.scatter(
                [row["mflops"] / row["seconds"] for row in points],
                [1000 * row["rtf"] for row in points],
                label=name, color=f"C{number}", marker="*" if name == OURS else "o",
            )  # fmt: skip
        axes.set(title=runtime, xlabel="MFLOP per second of audio", xscale="log", yscale="log")
        axes.set_ylabel("ms per second of audio")
    figure.axes[0].legend(fontsize="small")
    image = io.BytesIO()
    figure.savefig(image, format=path.suffix[1:] or "png", dpi=120)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, image.getvalue())
