"""OrthoSoftmax: which components a subnet keeps, learned by near-orthogonal softmaxes (section 3).

Scores (G, G) hold a row per slot and a column per selectable group (a component, or a whole
module). Each row's softmax, annealed, becomes a choice of one group; orthogonality makes the
choices differ; the leading rows whose expected cost reaches a target are that target's subnet, so
subnets are nested.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ortho_edge.components import ComponentSpace, Granularity
from ortho_edge.costs import CostModel
from ortho_edge.subnet import Subnet
from ortho_kernels.ortho_softmax.op import ortho_softmax
from ortho_kernels.ortho_softmax.reference import leading_rows, row_probabilities


@dataclass(frozen=True)
class SoftSelection:
    """A differentiable choice for one target.

    Attributes:
        gates: (G,) soft gates z_j = sum over the leading rows of P_ij.
        num_rows: How many leading rows the target takes.
        penalty: Scalar, 0 when the rows are one-hot and distinct.
    """

    gates: Tensor
    num_rows: int
    penalty: Tensor


@dataclass(frozen=True, kw_only=True)
class Target:
    """What one size may cost.

    Attributes:
        name: Of the size, such as `s030`.
        costs: What is counted.
        limit: The largest cost, in the unit of `costs`.
        device: The device whose profile prices the components; None for parameters and FLOPs.
    """

    name: str
    costs: CostModel
    limit: float
    device: str | None = None

    @property
    def share(self) -> float:
        """The limit as a share of the full network's cost."""
        return self.limit / self.costs.total

    def facts(self) -> dict[str, Any]:
        """What a record says of the target."""
        return {"name": self.name, "of": self.costs.name, "limit": self.limit, "share": self.share}


@dataclass(frozen=True)
class SelectionProblem:
    """What is selected.

    Attributes:
        space: The component space.
        granularity: Single components or whole modules.
    """

    space: ComponentSpace
    granularity: Granularity

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The component indices of each of the G selectable groups."""
        return self.space.groups(self.granularity)

    def group_costs(self, costs: CostModel) -> Tensor:
        """(G,) cost of each group in float64, as a share of the full network's cost."""
        single = costs.component_costs()
        return torch.tensor([single[list(group)].sum() / costs.total for group in self.groups])

    def component_gates(self, group_gates: Tensor) -> Tensor:
        """Spreads gates (G,) of the groups over their components (N,)."""
        index = torch.empty(len(self.space), dtype=torch.long)
        for number, group in enumerate(self.groups):
            index[list(group)] = number
        return group_gates[index.to(group_gates.device)]


def initial_scores(num_groups: int, seed: int, scale: float = 0.01) -> Tensor:
    """Small seeded noise (G, G): identical rows would leave the tie to rounding."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(num_groups, num_groups, generator=generator)


def rows_for_target(probabilities: Tensor, costs: Tensor, rest: float, target: float) -> int:
    """Number of leading rows whose cumulated expected cost plus `rest` is nearest to `target`.

    Args:
        probabilities: (G, G).
        costs: (G,) in the unit of `rest` and `target`.
        rest: Cost that every subnet pays.
        target: Cost aimed at.
    """
    return int(leading_rows(probabilities, costs, rest, target))


def select_softly(
    scores: Tensor, temperature: float, costs: Tensor, rest: float, target: float
) -> SoftSelection:
    """The soft gates and penalty of one target at one temperature.

    Args:
        scores: (G, G).
        temperature: Of the softmaxes.
        costs: (G,) group costs.
        rest: Cost that every subnet pays.
        target: Cost aimed at, in the unit of `costs`.
    """
    gates, num_rows, penalty = ortho_softmax(scores, costs, temperature, rest, target)
    return SoftSelection(gates, int(num_rows), penalty)


def row_entropy(probabilities: Tensor) -> float:
    """Mean entropy of the rows as a share of the largest possible: 1 undecided, 0 decided."""
    num_groups = probabilities.shape[1]
    if num_groups == 1:
        return 0.0
    return float(torch.special.entr(probabilities).sum(-1).mean() / math.log(num_groups))


def count_collisions(probabilities: Tensor) -> int:
    """Leading rows (k, G) whose largest entry stands in a column that an earlier row claims."""
    choices = probabilities.argmax(-1).tolist()
    return len(choices) - len(set(choices))


def assign_columns(probabilities: np.ndarray, num_rows: int) -> list[int]:
    """A distinct column for every row, most probable in total.

    The leading `num_rows` rows were trained and choose first; the others share what is left.

    Args:
        probabilities: (G, G).
        num_rows: Rows that choose first.
    """
    with np.errstate(divide="ignore"):
        scores = np.maximum(np.log(probabilities), -1e4)
    columns = linear_sum_assignment(scores[:num_rows], maximize=True)[1].tolist()
    left = sorted(set(range(scores.shape[1])) - set(columns))
    rest = linear_sum_assignment(scores[num_rows:][:, left], maximize=True)[1]
    return columns + [left[index] for index in rest]


def decided_rows(
    problem: SelectionProblem, probabilities: Tensor, targets: Sequence[Target]
) -> int:
    """Number of leading rows that the largest target takes: those that training decided."""
    return max(
        rows_for_target(
            probabilities, problem.group_costs(one.costs), one.costs.rest() / one.costs.total,
            one.share,
        )
        for one in targets
    )  # fmt: skip


def slot_order(
    problem: SelectionProblem, scores: Tensor, temperature: float, targets: Sequence[Target]
) -> list[int]:
    """Every group, in the order of the slots that it is assigned to."""
    probabilities = row_probabilities(scores.detach().cpu().double(), temperature)
    return assign_columns(probabilities.numpy(), decided_rows(problem, probabilities, targets))


def component_order(
    problem: SelectionProblem, scores: Tensor, temperature: float, targets: Sequence[Target]
) -> tuple[int, ...]:
    """Every component, in the order of the slots that take them."""
    groups = slot_order(problem, scores, temperature, targets)
    return tuple(index for group in groups for index in problem.groups[group])


def decode(
    problem: SelectionProblem, scores: Tensor, temperature: float, targets: Sequence[Target]
) -> list[Subnet]:
    """Nested subnets for `targets`, each as large as its target allows.

    Slots are taken in their order; one whose component no longer fits is passed over for later,
    cheaper ones. Every subnet starts from the next smaller one, so they are nested. Targets may
    count different costs, such as the latency of different devices: sizes are ordered by share, and
    what a size takes must also be within the targets of all larger ones, which will contain it.

    Args:
        problem: What is selected.
        scores: (G, G).
        temperature: At which the largest trained row is found.
        targets: In any order.

    Returns:
        One subnet per target with exact cost <= its limit.

    Raises:
        ValueError: A target is below what the empty subnet costs.
    """
    return fill_nested(problem, slot_order(problem, scores, temperature, targets), targets)


def fill_nested(
    problem: SelectionProblem, order: Sequence[int], targets: Sequence[Target]
) -> list[Subnet]:
    """Nested subnets that take groups in the given order; `decode` says how.

    Args:
        problem: What is selected.
        order: Every group once.
        targets: In any order.

    Returns:
        One subnet per target with exact cost <= its limit.

    Raises:
        ValueError: A target is below what the empty subnet costs.
    """
    for one in targets:
        smallest = one.costs.smallest / one.costs.total
        if one.costs.smallest > one.limit:
            raise ValueError(
                f"target {one.share:g} of {one.costs.name} is below {smallest:.3f}, "
                "what front end and output cost alone"
            )
    ascending = sorted(range(len(targets)), key=lambda number: targets[number].share)
    subnets: dict[int, Subnet] = {}
    subnet = Subnet(len(problem.space), ())
    for place, number in enumerate(ascending):
        holding = [targets[other] for other in ascending[place:]]
        for column in order:
            grown = Subnet.of(len(problem.space), (*subnet.kept, *problem.groups[column]))
            if all(one.costs.cost(grown) <= one.limit for one in holding):
                subnet = grown
        subnets[number] = subnet
    return [subnets[number] for number in range(len(targets))]
