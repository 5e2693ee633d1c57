"""The Pareto front: sizes that no other size beats in error rate and in a cost on a device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ortho_edge.checkpoint import Checkpoint
from ortho_edge.cli import UserError
from ortho_edge.devices.profile import Budget
from ortho_edge.fleet import Demand
from ortho_edge.selector import Candidate, by_cheapness, candidate, fits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COSTS = {"latency_ms": "latency, ms", "memory_mb": "memory, MB", "size_mb": "file size, MB"}


@dataclass(frozen=True, kw_only=True)
class Front:
    """What every trained subnet costs on a device.

    Attributes:
        basis: What latencies and memory rest on.
        candidates: The cheapest first; each has an error rate.
    """

    device: str
    basis: str
    budget: Budget
    candidates: tuple[Candidate, ...]

    def names(self, cost: str) -> frozenset[str]:
        """Subnets on the front of error rate against that cost, a name of `COSTS`."""
        return frozenset(
            one.trained.name
            for one in self.candidates
            if not any(_beats(other, one, cost) for other in self.candidates)
        )


def _beats(one: Candidate, other: Candidate, cost: str) -> bool:
    """Whether `one` is no worse in both, and better in one of them."""
    ours, theirs = (_point(which, cost) for which in (one, other))
    return ours != theirs and ours[0] <= theirs[0] and ours[1] <= theirs[1]


def _point(one: Candidate, cost: str) -> tuple[float, float]:
    assert one.error_rate is not None
    return one.error_rate, getattr(one, cost)


def fronts(checkpoint: Checkpoint, demands: Sequence[Demand]) -> list[Front]:
    """The front of each device.

    Raises:
        UserError: A trained subnet has no dev WER; or a profile has no figures for a runtime.
    """
    space = checkpoint.supernet.space
    found = []
    for demand in demands:
        candidates = by_cheapness(
            [
                candidate(demand.profile, space, one, demand.budget.audio_seconds, demand.runtimes)
                for one in checkpoint.subnets
            ]
        )
        unknown = [one.trained.name for one in candidates if one.error_rate is None]
        if unknown or not candidates:
            raise UserError(
                "a Pareto front needs the dev WER of every trained subnet; "
                f"the checkpoint has none for: {', '.join(unknown) or 'it has no subnet'}"
            )
        sources = sorted({one.basis for one in candidates[0].latency})
        found.append(
            Front(
                device=demand.profile.name,
                basis=f"{' and '.join(sources)}; memory {candidates[0].memory_basis}",
                budget=demand.budget,
                candidates=candidates,
            )
        )
    return found


def front_table(found: Sequence[Front]) -> str:
    """Every size with its costs, a star where it is on the front of that cost."""
    lines = []
    for front in found:
        seconds = f"{front.budget.audio_seconds:g} s"
        lines.append(
            f"{front.device}, {seconds} of audio, {front.basis}. "
            "* on the Pareto front, - over the budget"
        )
        lines.append(
            f"{'size':<8}{'dev WER %':>10}" + "".join(f"{title:>17}" for title in COSTS.values())
        )
        on_front = {cost: front.names(cost) for cost in COSTS}
        for one in front.candidates:
            cells = "".join(
                f"{getattr(one, cost):>15.4g} {'*' if one.trained.name in on_front[cost] else ' '}"
                for cost in COSTS
            )
            within = "" if fits(front.budget, one) else "  -"
            lines.append(f"{one.trained.name:<8}{one.error_rate:>10.2f}{cells}{within}")
        lines.append("")
    return "\n".join(lines)


def front_figure(found: Sequence[Front]) -> "Figure":
    """A row per device, a panel per cost; sizes on the front joined, limits as dashed lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(COSTS), 3.0 * len(found)), layout="constrained")
    panels = figure.subplots(len(found), len(COSTS), squeeze=False, sharey=True)
    for row, front in zip(panels, found, strict=True):
        for axes, (cost, title) in zip(row, COSTS.items(), strict=True):
            _panel(axes, front, cost, title)
        row[0].set_ylabel(f"{front.device}\ndev WER, %")
    return figure


def _panel(axes: "Axes", front: Front, cost: str, title: str) -> None:
    on_front = front.names(cost)
    ordered = sorted(front.candidates, key=lambda one: _point(one, cost)[::-1])
    joined = [_point(one, cost) for one in ordered if one.trained.name in on_front]
    axes.plot([x for _, x in joined], [y for y, _ in joined], marker="o")
    beaten = [_point(one, cost) for one in ordered if one.trained.name not in on_front]
    axes.plot([x for _, x in beaten], [y for y, _ in beaten], "o", markerfacecolor="none")
    for one in ordered:
        error, value = _point(one, cost)
        axes.annotate(one.trained.name, (value, error), xytext=(4, 5), textcoords="offset points")
    limit = getattr(front.budget, cost)
    highest = max(value for _, value in joined + beaten)
    if limit is not None and limit <= 2 * highest:
        axes.axvline(limit, linestyle="--", color="gray")
        highest = max(highest, limit)
    axes.set_xlim(0, 1.2 * highest)
    axes.set_ylim(0, 1.12 * max(error for error, _ in joined + beaten))
    suffix = "" if cost == "size_mb" else f" for {front.budget.audio_seconds:g} s of audio"
    axes.set_xlabel(f"{title}{suffix}")
    axes.grid(alpha=0.3)
