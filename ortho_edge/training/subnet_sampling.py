"""Which subnets one update trains: full and a soft one, then the sandwich."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ortho_edge.checkpoint import TrainedSubnet
from ortho_edge.components import ComponentSpace, Place
from ortho_edge.ortho_softmax import (
    SelectionProblem,
    SoftSelection,
    Target,
    count_collisions,
    row_entropy,
    row_probabilities,
    select_softly,
)
from ortho_edge.subnet import Subnet, stack_gates


@dataclass(frozen=True)
class Step:
    """The subnets of one update.

    Attributes:
        gates: (S, N); row 0 is the full network.
        heads: CTC head per subnet: 0 for the full network, 1 + i for target i; a subnet between
            the sizes takes one of theirs.
        computed: What each subnet computes: at least what has a gate other than 0.
        soft: The soft selection behind row 1, in stage 1.
        penalty: Scalar that the loss grows by.
        numbers: What is logged of the choice.
        between: Whether row 1 lies between the sizes.
    """

    gates: Tensor
    heads: tuple[int, ...]
    computed: tuple[Subnet, ...]
    soft: SoftSelection | None = None
    penalty: Tensor | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    between: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What the log calls the subnets."""
        names = ["full", *(f"target{head}" for head in self.heads[1:])]
        if self.between:
            names[1] = "between"
        return tuple(names)


def soft_step(
    problem: SelectionProblem,
    scores: Tensor,
    temperature: float,
    targets: Sequence[Target],
    rng: np.random.Generator,
) -> Step:
    """Stage 1: the full network and a soft subnet of a target drawn uniformly."""
    choice = int(rng.integers(len(targets)))
    target = targets[choice]
    soft = select_softly(
        scores,
        temperature,
        problem.group_costs(target.costs).to(scores.device),
        target.costs.rest() / target.costs.total,
        target.share,
    )
    gates = problem.component_gates(soft.gates)
    # A soft gate that underflows to 0 is computed too: asking which did would wait for the device.
    full = problem.space.full()
    return Step(torch.stack([torch.ones_like(gates), gates]), (0, 1 + choice), (full, full), soft)


@torch.no_grad()
def selection_numbers(scores: Tensor, temperature: float, soft: SoftSelection) -> dict[str, float]:
    """What the log says of a soft selection."""
    rows = row_probabilities(scores, temperature)[: soft.num_rows]
    return {
        "selection/penalty": soft.penalty.item(),
        "selection/entropy": row_entropy(rows),
        "selection/collisions": float(count_collisions(rows)),
        "selection/temperature": temperature,
    }


def sandwich_step(
    full: Subnet, subnets: Sequence[Subnet], rng: np.random.Generator, device: torch.device
) -> Step:
    """Stage 2: the full network, the smallest subnet and a random one between them.

    Without subnets `full` is trained alone.
    """
    last = len(subnets) - 1
    chosen = [last][: len(subnets)] if last <= 0 else [int(rng.integers(last)), last]
    trained = (full, *(subnets[index] for index in chosen))
    return _step(trained, (0, *(1 + index for index in chosen)), device)


def any_budget_step(
    full: Subnet,
    smallest: TrainedSubnet,
    between: Sequence[TrainedSubnet],
    rng: np.random.Generator,
    device: torch.device,
) -> Step:
    """Stage 2 for any budget: the middle subnet is the largest within a random share of the FLOPs.

    Args:
        full: The full network.
        smallest: The smallest size.
        between: What lies between them, the smallest first, each with its share as `target`.
        rng: Draws the share, uniformly from that of the first of `between` to 1.
        device: Where the step runs.
    """
    share = rng.uniform(between[0].target, 1)
    middle = [one for one in between if one.target <= share][-1]
    subnets = (full, middle.subnet, smallest.subnet)
    chosen = _step(subnets, (0, middle.head, smallest.head), device)
    return replace(chosen, numbers={"selection/share": middle.target}, between=True)


def _step(subnets: tuple[Subnet, ...], heads: tuple[int, ...], device: torch.device) -> Step:
    return Step(stack_gates(subnets).to(device), heads, subnets)


def droppable_modules(space: ComponentSpace, smallest: Subnet) -> frozenset[Place]:
    """Modules that the smallest subnet lacks altogether: layer drop may skip them (section 4).

    Never the front end: it is no residual branch.
    """
    modules = [one for one in space.modules(smallest) if one.block is not None]
    return frozenset((one.block, one.module) for one in modules if not one.units)
