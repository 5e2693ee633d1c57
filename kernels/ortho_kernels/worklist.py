"""Which (subnet, unit) pairs a launch works on: the open units of stacked subnets, for a kernel.

A pair is one piece of work; its number is its row in every compact activation. The host writes the
lists of all modules of a step into one buffer and uploads it once. Buffers have room for every
pair, and how many are in use stands in the buffer itself, so a captured CUDA graph stays valid when
the masks change.

A module's buffer of int32, for S subnets of U units:

| entries | name | meaning |
| --- | --- | --- |
| S + 1 | offsets | pairs of subnet s: offsets[s] ... offsets[s + 1] - 1; in all offsets[S] |
| S U | subnets | subnet of each pair |
| S U | units | unit of each pair |
| S U | slots | number of the pair (s, u) at s U + u; -1 where it is closed |
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ortho_kernels.stacking import OpenUnits


@dataclass(frozen=True)
class WorkList:
    """The open units of one gated module in S stacked subnets.

    Attributes:
        open_units: Ascending open units of each subnet, on the host.
        num_units: U, units of the module.
        capacity: Rows of a compact activation: the number of pairs, or S U for a CUDA graph.
        buffer: int32 on the device, laid out as this module's docstring says.
    """

    open_units: OpenUnits
    num_units: int
    capacity: int
    buffer: Tensor

    @property
    def num_subnets(self) -> int:
        """S."""
        return len(self.open_units)

    @property
    def num_pairs(self) -> int:
        """Open (subnet, unit) pairs."""
        return sum(len(units) for units in self.open_units)

    def part(self, name: str) -> Tensor:
        """A view of `offsets`, `subnets`, `units` or `slots`."""
        start, length = _layout(self.num_subnets, self.num_units)[name]
        return self.buffer[start : start + length]


@dataclass(frozen=True)
class SubnetPlan:
    """The work lists of every gated module for one step.

    Attributes:
        modules: One per module, in the order in which they were given.
        buffer: What all their buffers are views of.
    """

    modules: tuple[WorkList, ...]
    buffer: Tensor


def work_list(
    open_units: OpenUnits,
    num_units: int,
    device: torch.device | str = "cpu",
    *,
    full_capacity: bool = False,
) -> WorkList:
    """The work list of a single module; `plan` uploads those of a whole network at once.

    Raises:
        ValueError: Units are not ascending, or not in 0 ... num_units - 1.
    """
    return plan([(open_units, num_units)], device, full_capacity=full_capacity).modules[0]


def plan(
    modules: Sequence[tuple[OpenUnits, int]],
    device: torch.device | str,
    *,
    full_capacity: bool = False,
) -> SubnetPlan:
    """Writes and uploads the work lists of a step.

    Args:
        modules: Open units per subnet and number of units, of each module.
        device: Where the kernels run.
        full_capacity: Give activations room for every pair, as a CUDA graph needs.

    Raises:
        ValueError: Units are not ascending, or not in 0 ... num_units - 1.
    """
    rows = [_entries(open_units, num_units) for open_units, num_units in modules]
    host = torch.tensor([entry for row in rows for entry in row], dtype=torch.int32)
    if torch.device(device).type == "cuda":
        host = host.pin_memory()
    buffer = host.to(device, non_blocking=True)
    lists, start = [], 0
    for (open_units, num_units), row in zip(modules, rows, strict=True):
        units = tuple(map(tuple, open_units))
        pairs = len(units) * num_units if full_capacity else sum(map(len, units))
        lists.append(WorkList(units, num_units, pairs, buffer[start : start + len(row)]))
        start += len(row)
    return SubnetPlan(tuple(lists), buffer)


def refill(old: SubnetPlan, open_units: Sequence[OpenUnits]) -> SubnetPlan:
    """A plan for other masks in the same device memory, for the replay of a captured graph.

    Args:
        old: A plan made with `full_capacity`.
        open_units: Of each module, for as many subnets as before.

    Raises:
        ValueError: The number of modules or subnets changed, or activations have no room.
    """
    if len(open_units) != len(old.modules):
        raise ValueError(f"{len(open_units)} modules instead of {len(old.modules)}")
    for one, units in zip(old.modules, open_units, strict=True):
        if len(units) != one.num_subnets:
            raise ValueError(f"{len(units)} subnets instead of {one.num_subnets}")
        if sum(map(len, units)) > one.capacity:
            raise ValueError(f"{sum(map(len, units))} pairs in room for {one.capacity}")
    new = plan(
        [(units, one.num_units) for one, units in zip(old.modules, open_units, strict=True)],
        "cpu",
    )
    host = new.buffer.pin_memory() if old.buffer.is_cuda else new.buffer
    old.buffer.copy_(host, non_blocking=True)
    return SubnetPlan(
        tuple(
            replace(one, open_units=fresh.open_units)
            for one, fresh in zip(old.modules, new.modules, strict=True)
        ),
        old.buffer,
    )


def by_unit(values: Tensor, work: Tensor, num_subnets: int, num_units: int) -> Tensor:
    """Spreads one value per pair over (S, U); exactly 0 where a unit is closed.

    It gathers rather than scatters, so nothing waits for the host and sums have a fixed order.

    Args:
        values: (capacity, ...); rows beyond the pairs may hold anything.
        work: Buffer of the work list.
        num_subnets: S.
        num_units: U.
    """
    start, length = _layout(num_subnets, num_units)["slots"]
    slots = work[start : start + length]
    shape = (num_subnets, num_units, *values.shape[1:])
    if values.shape[0] == 0:
        return values.new_zeros(shape)
    spread = values[slots.clamp(min=0)]
    closed = (slots < 0).view(-1, *(1 for _ in values.shape[1:]))
    return spread.masked_fill(closed, 0).view(shape)


def open_subnets(work: Tensor, num_subnets: int) -> Tensor:
    """Which subnets have an open unit, (S,) on the device of the work list's buffer."""
    return work[1 : num_subnets + 1] > work[:num_subnets]


def _layout(num_subnets: int, num_units: int) -> dict[str, tuple[int, int]]:
    """Start and length of each part of a buffer."""
    room = num_subnets * num_units
    lengths = {"offsets": num_subnets + 1, "subnets": room, "units": room, "slots": room}
    parts, start = {}, 0
    for name, length in lengths.items():
        parts[name] = (start, length)
        start += length
    return parts


def _entries(open_units: OpenUnits, num_units: int) -> list[int]:
    offsets, subnets, units, slots = [0], [], [], []
    for subnet, row in enumerate(open_units):
        if list(row) != sorted(set(row)) or (row and not 0 <= row[0] <= row[-1] < num_units):
            raise ValueError(f"open units {list(row)} are not ascending in 0 ... {num_units - 1}")
        numbers = dict(zip(row, range(len(units), len(units) + len(row)), strict=True))
        slots += [numbers.get(unit, -1) for unit in range(num_units)]
        subnets += [subnet] * len(row)
        units += row
        offsets.append(len(units))
    spare = [0] * (len(slots) - len(units))
    return [*offsets, *subnets, *spare, *units, *spare, *slots]
