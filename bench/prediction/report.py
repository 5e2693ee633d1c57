"""The results of the prediction bench as JSON, and latencies as a plot."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bench.prediction.rows import Row
from ortho_edge.atomic import write_atomically
from ortho_edge.devices.host import host_hardware
from ortho_export.manifest import versions


def write(path: Path, rows: Sequence[Row], more: Mapping[str, Any]) -> None:
    """Everything that was compared, with the machine and the versions."""
    content = {
        "host": host_hardware().soc.value,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        **more,
        "rows": [{k: _short(v) for k, v in asdict(one).items()} for one in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, separators=(",", ":")) + "\n")


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def plot(path: Path, rows: Sequence[Row]) -> None:
    """Predicted against measured latency per runtime, and the errors of all as a histogram."""
    from matplotlib.figure import Figure

    runtimes = list(dict.fromkeys((one.runtime, one.precision) for one in rows))
    figure = Figure(figsize=(3.8 * (len(runtimes) + 1), 3.6), layout="constrained")
    panels = figure.subplots(1, len(runtimes) + 1, squeeze=False)[0]
    bins = np.arange(-16, 16.5, 1)
    for axes, (runtime, precision) in zip(panels, runtimes, strict=False):
        mine = [one for one in rows if (one.runtime, one.precision) == (runtime, precision)]
        for seconds in sorted({one.seconds for one in mine if one.seconds is not None}):
            points = [(one.measured, one.predicted) for one in mine if one.seconds == seconds]
            axes.plot(*zip(*points, strict=True), "o", markersize=3, label=f"{seconds:g} s")
        ends = np.array([min(one.measured for one in mine), max(one.measured for one in mine)])
        axes.plot(ends, ends, color="gray", linewidth=1)
        for factor in (0.9, 1.1):
            axes.plot(ends, factor * ends, color="gray", linewidth=0.7, linestyle="--")
        axes.set(title=f"{runtime} {precision}", xscale="log", yscale="log")
        axes.set(xlabel="measured, ms", ylabel="predicted, ms (dashed: 10 % off)")
        axes.legend()
        panels[-1].hist(
            np.clip([one.error_percent for one in mine], bins[0], bins[-1]),
            bins=list(bins), histtype="step", label=f"{runtime} {precision}",
        )  # fmt: skip
    panels[-1].set(title="errors", xlabel="predicted over measured - 1, %", ylabel="figures")
    panels[-1].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
