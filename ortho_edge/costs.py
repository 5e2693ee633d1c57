"""Cost models: what a subnet costs, by how many units each of its modules keeps open.

Every cost that a budget limits follows from these counts alone: which units are kept, and in which
block, does not matter. So a table per module, looked up by its number of open units, is exact; it
holds what a module costs as soon as it is open, and no straight line is assumed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ortho_edge.components import ComponentSpace, Criterion, Module
from ortho_edge.subnet import Subnet


@dataclass(frozen=True, kw_only=True)
class CostTable:
    """`fixed + sum over modules of by_units + max(floor, largest of peak_by_units)`.

    Attributes:
        fixed: What a subnet without any unit costs.
        by_units: Added by a module, by its number of open units; 0 for none.
        floor: Smallest peak.
        peak_by_units: Peak of a module, by its number of open units; of all, the largest counts.
    """

    fixed: float
    by_units: Mapping[Module, tuple[float, ...]]
    floor: float = 0.0
    peak_by_units: Mapping[Module, tuple[float, ...]] = field(default_factory=dict)

    def cost(self, space: ComponentSpace, subnet: Subnet) -> float:
        """Cost of a subnet."""
        counts: list[tuple[Module, int]] = [
            (one.module, len(one.units)) for one in space.modules(subnet)
        ]
        peaks = [self.peak_by_units[name][n] for name, n in counts if name in self.peak_by_units]
        added = sum(self.by_units[name][n] for name, n in counts)
        return self.fixed + added + max([self.floor, *peaks])


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """What every subnet of a component space costs, exactly.

    Attributes:
        space: The component space.
        name: What is counted, in words, such as `flops` or `latency on pixel8`.
        tables: The one in which a subnet costs most counts: the slowest of several runtimes.
    """

    space: ComponentSpace
    name: str
    tables: tuple[CostTable, ...]

    def cost(self, subnet: Subnet) -> float:
        """Cost of a compacted subnet."""
        return max(table.cost(self.space, subnet) for table in self.tables)

    @cached_property
    def total(self) -> float:
        """Cost of the full network."""
        return self.cost(self.space.full())

    @cached_property
    def smallest(self) -> float:
        """Cost of the subnet that keeps nothing: front end (its first chunk), norms, CTC head."""
        return self.cost(Subnet(len(self.space), ()))

    def component_costs(self) -> np.ndarray:
        """Cost (N,) that each component adds to a module which is already open, on average.

        A module of one unit has no other state: its unit carries all of its cost.
        """
        table = self._table_of_full
        units = {name: _unit_cost(table.by_units[name]) for name in self.space.kinds}
        return np.array([units[one.module] for one in self.space.components], dtype=np.float64)

    def rest(self) -> float:
        """Cost of the full network that `component_costs` leave over: what no component owns."""
        return self.total - float(self.component_costs().sum())

    @property
    def _table_of_full(self) -> CostTable:
        return max(self.tables, key=lambda table: table.cost(self.space, self.space.full()))


def _unit_cost(by_units: tuple[float, ...]) -> float:
    last = len(by_units) - 1
    return by_units[1] if last == 1 else (by_units[last] - by_units[1]) / (last - 1)


def criterion_costs(space: ComponentSpace, criterion: Criterion) -> CostModel:
    """Parameters, or FLOPs of the reference utterance."""
    table = tabulate(space, lambda subnet: space.cost(subnet, criterion))
    return CostModel(space=space, name=criterion, tables=(table,))


def flops_costs(space: ComponentSpace, seconds: float) -> CostModel:
    """FLOPs for `seconds` of audio."""
    table = tabulate(space, lambda subnet: space.flops(subnet, seconds))
    return CostModel(space=space, name=f"FLOPs of {seconds:g} s", tables=(table,))


def tabulate(space: ComponentSpace, cost: Callable[[Subnet], float]) -> CostTable:
    """The table of a cost that adds up over modules, by pricing each module alone."""
    fixed = cost(Subnet(len(space), ()))
    return CostTable(
        fixed=fixed,
        by_units={
            name: tuple(cost(one) - fixed if one.kept else 0.0 for one in probes)
            for name, probes in single_modules(space).items()
        },
    )


def tabulate_peak(space: ComponentSpace, peak: Callable[[Subnet], float]) -> CostTable:
    """The table of a cost of which the largest module counts."""
    floor = peak(Subnet(len(space), ()))
    return CostTable(
        fixed=0.0,
        by_units={name: (0.0,) * (space.num_units(name) + 1) for name in space.kinds},
        floor=floor,
        peak_by_units={
            name: tuple(peak(one) for one in probes)
            for name, probes in single_modules(space).items()
        },
    )


def single_modules(space: ComponentSpace) -> dict[Module, tuple[Subnet, ...]]:
    """Per module, the subnets that keep its first 0, 1, ... units and nothing else, in block 0."""
    return {
        name: tuple(
            Subnet.of(len(space), range(start, start + count))
            for count in range(space.num_units(name) + 1)
        )
        for name in space.kinds
        for start in [space.module_slice(0, name).start]
    }
