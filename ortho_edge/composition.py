"""Composing the subnet that uses a set of budgets best, trained or not, by integer programming.

What is maximised: a component is worth more the more trained sizes keep it. The worth of a subnet
is the share of a trained size that it covers, in FLOPs, averaged over all sizes; so the full
network is worth 1, and what the small sizes keep is worth most. Where the checkpoint says in which
order training took the components, every leading part of that order counts as a size.

How: costs follow from the number of open units of each module, and of a module the most valuable
units are taken first. So one binary per module and count, at most one of them set per module, is an
exact model whatever the tables hold: a multiple-choice knapsack with a row per limit and runtime.
"""

import ctypes
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from ortho_edge.cli import UserError
from ortho_edge.components import ComponentSpace, Module, Place
from ortho_edge.costs import CostModel, CostTable
from ortho_edge.nesting import nested_order
from ortho_edge.subnet import Subnet

ROW_SCALE = 1e4
"""The solver forgives 1e-6 in a row, so this much makes it 1e-10 of the full network's cost."""
ROUNDING = 1e-9
"""Share of the full cost that a row is wider than its limit, so that rounding excludes nothing.
The result is compared with the exact limit afterwards."""
ATTEMPTS = 20
TIME_LIMIT_SECONDS = 30.0
TIMED_OUT = 1
"""Status of `scipy.optimize.milp` when it stops at the time limit."""

logger = logging.getLogger(__name__)

Limits = Sequence[tuple[CostModel, float]]


def component_worth(
    space: ComponentSpace, subnets: Sequence[Subnet], order: Sequence[int] | None = None
) -> np.ndarray:
    """Worth (N,) of each component; that of all is 1.

    Args:
        space: The component space.
        subnets: The trained ones; the full network need not be among them.
        order: Every component, in the order in which training took them, where that is known.
    """
    costs = space.component_costs("flops")
    distinct = {*subnets, space.full()}
    sizes = [kept for one in distinct if (kept := one.gates().numpy().astype(bool)).any()]
    if order is not None:
        ranked = nested_order(space, list(distinct), order)
        sizes = [np.isin(np.arange(len(space)), ranked[: end + 1]) for end in range(len(ranked))]
    worth = sum(kept / costs[kept].sum() for kept in sizes) * costs
    return worth / len(sizes)


def compose(
    space: ComponentSpace,
    worth: np.ndarray,
    limits: Limits,
    holds: Callable[[Subnet], bool] | None = None,
) -> Subnet | None:
    """The subnet of the largest worth whose every cost is at most its limit.

    Args:
        space: The component space.
        worth: (N,) of each component, not negative.
        limits: Cost models of `space` with their limits.
        holds: Says whether a subnet is within all limits; by the cost models where left out.

    Returns:
        A subnet of at least one component; None when none fits.

    Raises:
        UserError: The solver ran out of time before it found one.
    """
    options = _options(space, worth)
    rejected: list[tuple[int, ...]] = []
    for attempt in range(ATTEMPTS + 1):
        # Many subnets that exceed a limit by rounding: stay below it by more than that.
        tightening = 0.0 if attempt < ATTEMPTS else 1e-6
        chosen = _solve(space, options, limits, rejected, tightening)
        if chosen is None:
            return None
        kept = [unit for index in chosen for unit in options[index].units]
        subnet = Subnet.of(len(space), kept)
        if _within(subnet, limits) and (holds is None or holds(subnet)):
            return subnet
        rejected.append(chosen)
    return None


def _within(subnet: Subnet, limits: Limits) -> bool:
    return all(cost.cost(subnet) <= limit for cost, limit in limits)


@dataclass(frozen=True)
class _Option:
    """Keeping so many units of one module: the most valuable ones."""

    block: int | None
    module: Module
    units: tuple[int, ...]
    worth: float


def _options(space: ComponentSpace, worth: np.ndarray) -> list[_Option]:
    """Every choice but the empty one, the options of a module side by side."""
    options = []
    for block, module in space.places:
        place = space.module_slice(block, module)
        best = sorted(range(place.start, place.stop), key=lambda index: -worth[index])
        options += [
            _Option(block, module, tuple(best[:count]), float(worth[best[:count]].sum()))
            for count in range(1, len(best) + 1)
        ]
    return options


def _solve(
    space: ComponentSpace,
    options: Sequence[_Option],
    limits: Limits,
    rejected: Sequence[tuple[int, ...]],
    tightening: float,
) -> tuple[int, ...] | None:
    """Indices of the options to take, at most one per module; None when nothing fits."""
    num, groups = len(options), _groups(options)
    one_each = np.zeros((len(groups), num))
    for row, group in enumerate(groups):
        one_each[row, group] = 1
    constraints = [
        LinearConstraint(one_each, -np.inf, 1),
        LinearConstraint(np.ones((1, num)), 1, np.inf),
    ]
    for cost, limit in limits:
        for table in cost.tables:
            scale = ROW_SCALE / table.cost(space, space.full())
            room = scale * (limit - table.fixed - table.floor) + ROW_SCALE * (ROUNDING - tightening)
            rows = scale * _rows(table, options, groups)
            constraints.append(LinearConstraint(rows, -np.inf, room))
    for chosen in rejected:
        row = np.full((1, num), -1.0)
        row[0, list(chosen)] = 1
        constraints.append(LinearConstraint(row, -np.inf, len(chosen) - 1))
    with _quiet_stdout():
        result = milp(
            [-one.worth for one in options],
            integrality=np.ones(num),
            bounds=Bounds(0, 1),
            constraints=constraints,
            options={"mip_rel_gap": 0.0, "time_limit": TIME_LIMIT_SECONDS},
        )
    if result.status == TIMED_OUT:
        if result.x is None:
            raise UserError(
                f"no subnet within the budget was found in {TIME_LIMIT_SECONDS:g} s, "
                "nor that there is none; widen a limit or name fewer"
            )
        logger.warning(
            "the search for a subnet stopped after %g s: a better one may exist", TIME_LIMIT_SECONDS
        )
    if result.x is None:
        return None
    return tuple(np.flatnonzero(result.x > 0.5).tolist())


def _rows(table: CostTable, options: Sequence[_Option], groups: Sequence[list[int]]) -> np.ndarray:
    """Rows (R, options) that must all stay within a limit, less `fixed` and `floor`.

    The first is the sum over modules with the floor as peak. Of all peaks the largest counts: so
    each module whose peak can rise above the floor has a row with its own.
    """
    sums = np.array([table.by_units[one.module][len(one.units)] for one in options])
    rows = [sums]
    for group in groups:
        module = options[group[0]].module
        above = [max(0.0, peak - table.floor) for peak in table.peak_by_units.get(module, (0.0,))]
        if max(above) > 0:
            row = sums.copy()
            row[group] += [above[len(options[index].units)] for index in group]
            rows.append(row)
    return np.stack(rows)


@contextmanager
def _quiet_stdout() -> Iterator[None]:
    """Drops what native code prints: HiGHS 1.12 leaves a line of debugging in every repair."""
    sys.stdout.flush()
    kept = os.dup(1)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            # What the C library still holds back would come out later.
            ctypes.CDLL(None).fflush(None)
            os.dup2(kept, 1)
            os.close(kept)


def _groups(options: Sequence[_Option]) -> list[list[int]]:
    """Indices of the options of each module."""
    groups: dict[Place, list[int]] = {}
    for index, one in enumerate(options):
        groups.setdefault((one.block, one.module), []).append(index)
    return list(groups.values())


def grown(space: ComponentSpace, worth: np.ndarray, subnet: Subnet) -> list[tuple[Subnet, int]]:
    """The subnet with one more unit, the most valuable of each module, and that component."""
    best: dict[Place, int] = {}
    for index in sorted(range(len(space)), key=lambda index: -worth[index]):
        one = space.components[index]
        if index not in subnet:
            best.setdefault((one.block, one.module), index)
    return [(Subnet.of(len(space), (*subnet.kept, index)), index) for index in best.values()]
