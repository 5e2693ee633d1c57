"""Command: selects the subnet for one or several devices and says why, without exporting it.

python -m ortho_edge.select --device pixel8 raspberrypi5 [--subnet any] [--per-device] [--pareto]
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ortho_edge.budget_options import BudgetOptions
from ortho_edge.cli import UserError, run

if TYPE_CHECKING:
    from ortho_edge.checkpoint import Checkpoint
    from ortho_edge.fleet import Demand
    from ortho_edge.selector import Selection


@dataclass(frozen=True, kw_only=True)
class Arguments(BudgetOptions):
    """Select the most accurate subnet within the budgets of one or several devices.

    Says what it costs on each device, which limit binds, what is left of the others and what the
    next size up would take. Nothing is exported.
    """

    device: tuple[str, ...]
    """Names of devices, such as pixel8 or host, or profiles' .toml files; each may carry a limit of
    its own, such as pixel8@7ms of latency or pixel8@12MB of memory."""
    checkpoint: Path | None = None
    """Checkpoint folder; by default the one that ships."""
    subnet: Literal["trained", "any"] = "trained"
    """trained: a size whose error rate was measured. any: whatever fills the budget best, composed
    of the components that the trained sizes keep; its error rate is unknown."""
    per_device: bool = False
    """A subnet for each device, instead of one that fits all."""
    pareto: bool = False
    """Also list which sizes no other size beats in error rate and cost, on each device."""
    plot: Path | None = None
    """Also draw error rates against predicted latency, memory and file size, as PNG."""


def main(arguments: Arguments) -> None:
    """Prints the selection.

    Raises:
        UserError: A device is unknown, the checkpoint unusable or a budget impossible.
    """
    if not arguments.device:
        raise UserError("name at least one device: --device pixel8")

    from ortho_edge.checkpoint import load_checkpoint, shipped_checkpoint
    from ortho_edge.fleet import select_for_all

    demands = [_demand(arguments, name) for name in dict.fromkeys(arguments.device)]
    checkpoint = load_checkpoint(arguments.checkpoint or shipped_checkpoint())
    groups = [[one] for one in demands] if arguments.per_device else [demands]
    for group in groups:
        selections = select_for_all(group, checkpoint, arguments.subnet)
        print("\n".join(_lines(checkpoint, group, selections)), end="\n\n")
    if arguments.pareto or arguments.plot is not None:
        _pareto(arguments, checkpoint, demands)


def _demand(arguments: Arguments, device: str) -> "Demand":
    from ortho_edge.devices.catalogue import load_profile
    from ortho_edge.devices.limits import device_limit
    from ortho_edge.fleet import Demand

    if "@" not in device:
        profile = load_profile(device)
        return Demand(profile=profile, budget=arguments.budget(profile))
    limit = device_limit(device)
    return Demand(profile=limit.profile, budget=limit.within(arguments.budget(limit.profile)))


def _lines(
    checkpoint: "Checkpoint", demands: "list[Demand]", selections: "tuple[Selection, ...]"
) -> list[str]:
    chosen = selections[0].chosen
    subnet = chosen.trained.subnet
    rate = "unknown" if chosen.error_rate is None else f"{chosen.error_rate:.2f} %"
    lines = [
        f"{', '.join(one.profile.name for one in demands)}: {chosen.trained.name}, dev WER {rate}, "
        f"{chosen.params:,} parameters, {100 * chosen.flops_share:.0f} % of the FLOPs, "
        f"{len(subnet.kept)} of {subnet.num_components} components"
    ]
    for demand, one in zip(demands, selections, strict=True):
        seconds = demand.budget.audio_seconds
        sources = sorted({prediction.basis for prediction in one.chosen.latency})
        lines.append(
            f"  {one.device}: {one.chosen.latency_ms:.4g} ms for {seconds:g} s of audio "
            f"(RTF {one.chosen.latency_ms / 1000 / seconds:.2g}), {' and '.join(sources)}; "
            f"memory {one.chosen.memory_basis}"
        )
        lines += [f"    {line}" for line in one.slack()]
        lines.append(f"    {one.next_size()}")
    return lines + [f"  {note}" for note in selections[0].notes]


def _pareto(arguments: Arguments, checkpoint: "Checkpoint", demands: "list[Demand]") -> None:
    from ortho_edge.atomic import write_atomically
    from ortho_edge.pareto import front_figure, front_table, fronts
    from ortho_edge.plots import to_png

    found = fronts(checkpoint, demands)
    print(front_table(found))
    if arguments.plot is not None:
        write_atomically(arguments.plot, to_png(front_figure(found)))
        print(f"written: {arguments.plot}")


if __name__ == "__main__":
    run(main, Arguments, prog="python -m ortho_edge.select")
