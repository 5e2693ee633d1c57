"""Figures of a report that one checkpoint or several fill."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ortho_edge.reporting.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMOOTHING = 0.04
"""Share of a curve's points that the moving average spans."""


def training_curves(run: Run) -> "Figure":
    """Losses, dev WER and what the selection did, over the updates.

    Raises:
        ValueError: The run has no log.
    """
    from matplotlib.figure import Figure

    if not run.curves:
        raise ValueError(f"{run.name} has no log of its training")
    sizes = {f"loss/target{one.head}": one.name for one in run.checkpoint.subnets}
    sizes["loss/full"] = run.checkpoint.subnets[0].name
    panels = {
        "loss per frame": {
            sizes.get(name, name.removeprefix("loss/")): curve
            for name, curve in run.curves.items()
            if name.startswith("loss/")
        },
        "dev WER, %": {
            name.partition("_wer/")[2] or name: curve
            for name, curve in run.curves.items()
            if "_wer/" in name
        },
        "selection": {
            name.removeprefix("selection/"): curve
            for name, curve in run.curves.items()
            if name in ("selection/entropy", "selection/temperature")
        },
    }
    panels = {title: curves for title, curves in panels.items() if curves}
    figure = Figure(figsize=(4.2 * len(panels), 3.2), layout="constrained")
    row = np.atleast_1d(figure.subplots(1, len(panels)))
    for axes, (title, curves) in zip(row, panels.items(), strict=True):
        _curves(axes, title, curves, smooth=title.startswith("loss"))
        _stage_boundary(axes, run)
    return figure


def _curves(
    axes: "Axes",
    title: str,
    curves: Mapping[str, tuple[list[float], list[float]]],
    *,
    smooth: bool,
) -> None:
    for name, (steps, values) in sorted(curves.items()):
        shown = moving_average(values) if smooth else np.array(values)
        axes.plot(steps, shown, label=name, marker="" if smooth or len(steps) > 40 else ".")
    axes.set(xlabel="update", title=title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def moving_average(values: Sequence[float]) -> np.ndarray:
    """Mean over a window that is centred, and cut at the ends."""
    half = round(SMOOTHING * len(values) / 2)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - half, 0)
    last = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)


def _stage_boundary(axes: "Axes", run: Run) -> None:
    """A line where the selection was frozen, for methods that learn one."""
    if "selection/entropy" not in run.curves:
        return
    steps = float(str(run.settings.get("num_steps", 0)))
    fraction = float(str(run.settings.get("stage1_fraction", 0)))
    if steps * fraction > 0:
        axes.axvline(steps * fraction, linestyle=":", color="gray")


def runs_against_flops(runs: Sequence[Run], set_name: str) -> "Figure":
    """WER on a set over FLOPs: a line per run, runs of one size alone as single points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 4.0), layout="constrained")
    axes = figure.subplots()
    for run in runs:
        sizes = sorted(run.checkpoint.subnets, key=run.flops_share)
        rates = [run.scores[set_name][one.name].rates for one in sizes]
        centres = np.array([one.wer for one in rates])
        bounds = np.array([one.wer_interval for one in rates]).T
        axes.errorbar(
            [100 * run.flops_share(one) for one in sizes],
            centres,
            yerr=np.abs(bounds - centres),
            marker="o",
            capsize=2,
            linestyle="-" if len(sizes) > 1 else "none",
            label=f"{run.name} ({run.method})",
        )
    axes.set(xlabel="FLOPs, % of the full network", ylabel="WER, % (95 % interval)", title=set_name)
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, 112)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    return figure
