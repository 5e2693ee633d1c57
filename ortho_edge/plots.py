"""Pictures of a supernet: error rates against cost, and which components each size keeps."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from ortho_edge.components import MODULES, ComponentSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ortho_edge.checkpoint import TrainedSubnet
    from ortho_edge.training.evaluation import ErrorRates

LABELS = {"ffn1": "FFN 1", "conv": "conv", "mhsa": "heads", "ffn2": "FFN 2"}


def kept_units(space: ComponentSpace, trained: "TrainedSubnet") -> np.ndarray:
    """Kept units (blocks, modules) of a subnet, the modules in the order of `MODULES`.

    Those of the front end, which stands in no block, are left out.
    """
    counts = np.zeros((space.architecture.num_blocks, len(MODULES)), dtype=int)
    for one in space.modules(trained.subnet):
        if one.block is not None:
            counts[one.block, MODULES.index(one.module)] = len(one.units)
    return counts


def selection_map(space: ComponentSpace, subnets: "Sequence[TrainedSubnet]") -> "Figure":
    """One panel per subnet: how many units of each block's modules it keeps.

    An elastic front end stands above the blocks, with its kept chunks of all.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.1 * len(subnets) + 0.6, 3.2), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(subnets), sharey=True))
    largest = [space.num_units(module) for module in MODULES]
    for panel, trained in zip(panels, subnets, strict=True):
        counts = kept_units(space, trained)
        panel.imshow(counts / largest, cmap="Blues", vmin=0, vmax=1.3, aspect="auto")
        for (block, module), count in np.ndenumerate(counts):
            panel.text(module, block, f"{count}/{largest[module]}", ha="center", va="center")
        share = space.cost(trained.subnet, "flops") / space.total_cost("flops")
        panel.set_title(f"{trained.name}\n{100 * share:.0f} % of the FLOPs", fontsize=10)
        panel.set_xticks(range(len(MODULES)), [LABELS[module] for module in MODULES], fontsize=8)
        if space.num_units("front_end"):
            _add_front_end(panel, space, trained)
    panels[0].set_ylabel("block")
    return figure


def _add_front_end(panel: "Axes", space: ComponentSpace, trained: "TrainedSubnet") -> None:
    """A bar above block 0, as wide as all modules."""
    blocks, chunks = space.architecture.num_blocks, space.architecture.front_end_chunks
    kept, right = len(space.front_end_chunks(trained.subnet)), len(MODULES) - 0.5
    panel.imshow(
        [[kept / chunks]], cmap="Blues", vmin=0, vmax=1.3, aspect="auto",
        extent=(-0.5, right, -0.5, -1.5),
    )  # fmt: skip
    panel.text((right - 0.5) / 2, -1, f"front end {kept}/{chunks}", ha="center", va="center")
    panel.set(xlim=(-0.5, right), ylim=(blocks - 0.5, -1.5), yticks=range(blocks))


def error_rates_against_flops(
    rates: "Mapping[str, ErrorRates]", flops_shares: Mapping[str, float], title: str
) -> "Figure":
    """WER of every subnet with its interval over the share of the full network's FLOPs.

    Args:
        rates: By name of the subnet.
        flops_shares: Likewise, from 0 to 1.
        title: What was evaluated.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.subplots()
    names = sorted(rates, key=lambda name: flops_shares[name])
    shares = [100 * flops_shares[name] for name in names]
    centres = np.array([rates[name].wer for name in names])
    bounds = np.array([rates[name].wer_interval for name in names]).T
    spread = np.abs(bounds - centres)
    axes.errorbar(shares, centres, yerr=spread, marker="o", capsize=3)
    for name, share, centre in zip(names, shares, centres, strict=True):
        axes.annotate(name, (share, centre), xytext=(5, 6), textcoords="offset points")
    axes.set(xlabel="FLOPs, % of the full network", ylabel="WER, % (95 % interval)", title=title)
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, 112)
    axes.grid(alpha=0.3)
    return figure


def to_png(figure: "Figure") -> bytes:
    """The bytes of a figure as PNG."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
