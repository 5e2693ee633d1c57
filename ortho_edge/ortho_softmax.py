"""OrthoSoftmax: which components a subnet keeps, learned by near-orthogonal softmaxes (section 3).

Scores (G, G) hold a row per slot and a column per selectable group (a component, or a whole
module). Each row's softmax, annealed, becomes a choice of one group; orthogonality makes the
choices differ; the leading rows whose expected cost reaches a target are that target's subnet, so
subnets are nested.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ortho_edge.components import ComponentSpace, Criterion, Granularity
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


@dataclass(frozen=True)
class SelectionProblem:
    """What is selected and what it costs.

    Attributes:
        space: The component space.
        criterion: Cost that the targets are shares of.
        granularity: Single components or whole modules.
    """

    space: ComponentSpace
    criterion: Criterion
    granularity: Granularity

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The component indices of each of the G selectable groups."""
        return self.space.groups(self.granularity)

    def group_costs(self) -> Tensor:
        """(G,) cost of each group in float64, as a share of the full network's cost."""
        costs = self.space.component_costs(self.criterion)
        total = self.space.total_cost(self.criterion)
        return torch.tensor([costs[list(group)].sum() / total for group in self.groups])

    def rest_share(self) -> float:
        """Share of the cost that every subnet pays."""
        return self.space.rest_cost(self.criterion) / self.space.total_cost(self.criterion)

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


def decode(
    problem: SelectionProblem, scores: Tensor, temperature: float, targets: Sequence[float]
) -> list[Subnet]:
    """Nested subnets for `targets`, each as large as its target allows.

    Slots are taken in their order; one whose component no longer fits is passed over for later,
    cheaper ones. Every subnet starts from the next smaller one, so they are nested.

    Args:
        problem: What is selected and what it costs.
        scores: (G, G).
        temperature: At which the largest trained row is found.
        targets: Shares of the full cost.

    Returns:
        One subnet per target with exact cost <= target.

    Raises:
        ValueError: A target is below what the empty subnet costs.
    """
    space, criterion = problem.space, problem.criterion
    probabilities = row_probabilities(scores.detach().cpu().double(), temperature)
    leading = rows_for_target(
        probabilities, problem.group_costs(), problem.rest_share(), max(targets)
    )
    order = assign_columns(probabilities.numpy(), leading)
    total = space.total_cost(criterion)
    smallest = space.cost(Subnet(len(space), ()), criterion) / total
    if smallest > min(targets):
        raise ValueError(
            f"target {min(targets):g} of {criterion} is below {smallest:.3f}, "
            "what front end and output cost alone"
        )
    subnets: dict[float, Subnet] = {}
    subnet = Subnet(len(space), ())
    for target in sorted(targets):
        for column in order:
            grown = Subnet.of(len(space), (*subnet.kept, *problem.groups[column]))
            if space.cost(grown, criterion) <= target * total:
                subnet = grown
        subnets[target] = subnet
    return [subnets[target] for target in targets]
