"""Selection for one or several devices at once, among the trained subnets or beyond them.

One subnet for all devices must be within the budget of each. `any` composes a subnet that training
need not have seen (`ortho_edge.composition`): it fills the budgets, and its error rate is unknown
until someone measures it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ortho_edge.checkpoint import Checkpoint, TrainedSubnet
from ortho_edge.cli import UserError
from ortho_edge.components import ComponentSpace, Module
from ortho_edge.composition import component_worth, compose, grown
from ortho_edge.costs import CostModel, single_modules
from ortho_edge.devices.costs import budget_costs
from ortho_edge.devices.filter_banks import FEATURES_IN, Input
from ortho_edge.devices.profile import Budget, DeviceProfile
from ortho_edge.nesting import leading_subnets, named
from ortho_edge.selector import (
    Candidate,
    Selection,
    by_cheapness,
    candidate,
    choose,
    fits,
    impossible,
    limits,
    selection_of,
)
from ortho_edge.subnet import Subnet

Source = Literal["trained", "any"]

UNIT_WORDS: dict[Module, str] = {
    "ffn1": "chunk of the first FFN",
    "conv": "convolution",
    "mhsa": "head",
    "ffn2": "chunk of the second FFN",
    "front_end": "chunk of the front end",
}


@dataclass(frozen=True, kw_only=True)
class Demand:
    """A device and what a subnet must hold there.

    Attributes:
        runtimes: That must all hold the budget; every runtime of the profile by default.
        precision: Of the artefacts, see `ortho_edge.selector.select`.
        takes: What the artefacts take; the filter banks inside those of audio cost as well.
    """

    profile: DeviceProfile
    budget: Budget
    runtimes: tuple[str, ...] = ()
    precision: str = "fp32"
    takes: Input = FEATURES_IN

    def limits(self, space: ComponentSpace) -> list[tuple[CostModel, float]]:
        """Every limit of the budget, with the cost model of what it limits."""
        return budget_costs(
            self.profile, self.budget, space, self.runtimes, self.precision, self.takes
        )


def select_for_all(
    demands: Sequence[Demand], checkpoint: Checkpoint, source: Source = "trained"
) -> tuple[Selection, ...]:
    """The best single subnet within the budgets of all devices, as one selection per device.

    Args:
        demands: The devices, at least one.
        checkpoint: Whose subnets to choose from.
        source: `trained`: the subnet with the best dev WER. `any`: the one that covers most of
            the trained sizes; a trained one where that covers as much.

    Raises:
        UserError: Nothing fits; a profile has no figures for a runtime; or the checkpoint has no
            trained subnet.
    """
    if not checkpoint.subnets:
        raise UserError("the checkpoint has no trained subnet")
    trained = [
        [_price(demand, checkpoint, one) for one in checkpoint.subnets] for demand in demands
    ]
    if source == "any":
        return _composed(demands, checkpoint, trained)
    return _selections(demands, trained, _best_trained(demands, trained).trained)


def _best_trained(demands: Sequence[Demand], trained: Sequence[Sequence[Candidate]]) -> Candidate:
    """The best trained subnet within every budget, as the first device's candidate.

    Raises:
        UserError: There is none.
    """
    for demand, candidates in zip(demands, trained, strict=True):
        # Alone first: its message names the smallest values that can be reached.
        choose(demand.profile.name, demand.budget, candidates)
    together = [
        prices[0]
        for prices in zip(*trained, strict=True)
        if all(fits(one.budget, price) for one, price in zip(demands, prices, strict=True))
    ]
    if not together:
        names = ", ".join(repr(demand.profile.name) for demand in demands)
        raise UserError(f"no trained subnet fits the budgets of {names} together")
    # Error rates and FLOPs are those of the subnet, whatever the device.
    return choose(demands[0].profile.name, demands[0].budget, together).chosen


def _price(demand: Demand, checkpoint: Checkpoint, subnet: TrainedSubnet) -> Candidate:
    return candidate(
        demand.profile,
        checkpoint.supernet.space,
        subnet,
        demand.budget.audio_seconds,
        demand.runtimes,
        demand.precision,
        demand.takes,
    )


def _selections(
    demands: Sequence[Demand], trained: Sequence[Sequence[Candidate]], best: TrainedSubnet
) -> tuple[Selection, ...]:
    return tuple(
        selection_of(
            demand.profile.name,
            demand.budget,
            candidates,
            next(one for one in candidates if one.trained == best),
        )
        for demand, candidates in zip(demands, trained, strict=True)
    )


def _composed(
    demands: Sequence[Demand], checkpoint: Checkpoint, trained: Sequence[Sequence[Candidate]]
) -> tuple[Selection, ...]:
    space = checkpoint.supernet.space
    worth = component_worth(space, [one.subnet for one in checkpoint.subnets], checkpoint.order)

    def price(one: TrainedSubnet) -> list[Candidate]:
        return [_price(demand, checkpoint, one) for demand in demands]

    def holds(subnet: Subnet) -> bool:
        prices = price(named(space, subnet, checkpoint.subnets))
        return all(fits(one.budget, cost) for one, cost in zip(demands, prices, strict=True))

    subnet = _largest_leading(checkpoint, holds)
    if subnet is None:
        table = [limit for one in demands for limit in one.limits(space)]
        subnet = compose(space, worth, table, holds)
    if subnet is None:
        raise UserError(_unreachable(demands, checkpoint))
    known = [one for one in checkpoint.subnets if one.subnet == subnet]
    if known:
        return _selections(demands, trained, known[0])
    chosen = named(space, subnet, checkpoint.subnets)
    larger = [
        price(
            replace(chosen, subnet=more, name=f"{chosen.name} with one more {_unit(space, index)}")
        )
        for more, index in grown(space, worth, subnet)
    ]
    nearest = min(larger, key=lambda prices: _excess(demands, prices), default=None)
    return tuple(
        Selection(
            device=demand.profile.name,
            budget=demand.budget,
            candidates=by_cheapness(candidates),
            chosen=cost,
            next_up=None if nearest is None else nearest[number],
            notes=_notes(checkpoint, worth, chosen, demands, trained),
        )
        for number, (demand, candidates, cost) in enumerate(
            zip(demands, trained, price(chosen), strict=True)
        )
    )


def _largest_leading(checkpoint: Checkpoint, holds: Callable[[Subnet], bool]) -> Subnet | None:
    """The largest subnet within all budgets that any-budget training trained, if it did."""
    drawn = [one.subnet for one in leading_subnets(checkpoint)]
    if not drawn:
        return None
    sizes = {*drawn, *(one.subnet for one in checkpoint.subnets)}
    largest_first = sorted(sizes, key=lambda one: -len(one.kept))
    return next((one for one in largest_first if holds(one)), None)


def _unit(space: ComponentSpace, index: int) -> str:
    component = space.components[index]
    words = UNIT_WORDS[component.module]
    return words if component.block is None else f"{words} in block {component.block}"


def _excess(demands: Sequence[Demand], prices: Sequence[Candidate]) -> float:
    """By which factor the tightest limit of all devices is exceeded."""
    return max(
        (
            limit.value / limit.limit
            for demand, price in zip(demands, prices, strict=True)
            for limit in limits(demand.budget, price)
        ),
        default=0.0,
    )


def _notes(
    checkpoint: Checkpoint,
    worth: np.ndarray,
    chosen: TrainedSubnet,
    demands: Sequence[Demand],
    trained: Sequence[Sequence[Candidate]],
) -> tuple[str, ...]:
    """What must be known of a subnet that was not trained."""

    def share(subnet: Subnet) -> float:
        return float(worth[list(subnet.kept)].sum())

    head = next(one.name for one in checkpoint.subnets if one.head == chosen.head)
    drawn = chosen.subnet in [one.subnet for one in leading_subnets(checkpoint)]
    kind = "trained between the sizes" if drawn else "not a trained size"
    lines = [
        f"{chosen.name} is {kind}: its error rate is unknown. Measure that of the "
        "exported file: python -m ortho_edge.evaluate FILE --set RECIPE/SET",
        f"it covers {100 * share(chosen.subnet):.0f} % of the trained sizes on average and takes "
        f"the CTC head of {head}, the most similar of them",
    ]
    if share(chosen.subnet) < min(share(one.subnet) for one in checkpoint.subnets):
        lines.append("it is smaller than every trained size: expect many errors")
    try:
        best = _best_trained(demands, trained)
    except UserError:
        return (*lines, "no trained size fits")
    rate = "" if best.error_rate is None else f" (dev WER {best.error_rate:.2f} %)"
    covers = f"covers {100 * share(best.trained.subnet):.0f} %"
    return (*lines, f"the best trained size that fits, {best.trained.name}{rate}, {covers}")


def _unreachable(demands: Sequence[Demand], checkpoint: Checkpoint) -> str:
    """Why no subnet at all fits, with the smallest values that can be reached."""
    space = checkpoint.supernet.space
    # Every other subnet holds a module with as many units, so none is cheaper than all of these.
    smallest = [
        TrainedSubnet(name=f"{len(one.kept)} x {UNIT_WORDS[module]}", subnet=one, head=0, target=0)
        for module, probes in single_modules(space).items()
        for one in probes[1:]
    ]
    for demand in demands:
        candidates = [_price(demand, checkpoint, one) for one in smallest]
        if not any(fits(demand.budget, one) for one in candidates):
            return impossible(demand.profile.name, demand.budget, candidates, "subnet")
    names = ", ".join(repr(demand.profile.name) for demand in demands)
    return f"no subnet fits the budgets of {names} together, though each device has one that fits"
