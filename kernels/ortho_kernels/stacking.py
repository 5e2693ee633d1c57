"""How an operation runs over stacked subnets of which each has its own open units."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

OpenUnits = Sequence[Sequence[int]]


def over_subnets(
    x: Tensor, open_units: OpenUnits, run: Callable[[int, list[int]], Tensor]
) -> Tensor:
    """Stacks `run(s, units)` for every subnet; a subnet without open units gives zeros.

    Args:
        x: Input (S, ...); results have the shape of x[s].
        open_units: Open units of each of the S subnets.
        run: The operation for subnet s and its open units.
    """
    return torch.stack(
        [
            run(index, list(units)) if units else torch.zeros_like(x[index])
            for index, units in enumerate(open_units)
        ]
    )


def open_slabs(weight: Tensor, units: Sequence[int]) -> Tensor:
    """Slabs `weight[units]`: the weight itself when all are open, a view for a run of units.

    Args:
        weight: (units, ...), one contiguous slab per unit.
        units: Ascending indices.
    """
    if len(units) == weight.shape[0]:
        return weight
    if units[-1] - units[0] + 1 == len(units):
        return weight[units[0] : units[-1] + 1]
    return weight[torch.tensor(units, device=weight.device)]
