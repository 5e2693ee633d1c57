"""Simple-Top-k (arXiv 2407.18930): one score per group, the best that fit, straight through."""

import numpy as np
import torch
from torch import Tensor, nn

from ortho_edge.ortho_softmax import SelectionProblem, Target, fill_nested
from ortho_edge.training.config import TrainingConfig
from ortho_edge.training.selection.base import Frozen, Selection
from ortho_edge.training.subnet_sampling import Step


class SimpleTopK(Selection):
    """k falls over stage 1 from all groups to those that fit the target.

    A closed group's branch is not computed, so its score has no gradient: it comes back when
    open ones fall below it. This is why k is annealed.
    """

    def __init__(
        self, problem: SelectionProblem, config: TrainingConfig, targets: tuple[Target, ...]
    ) -> None:
        """Starts from small seeded noise: equal scores would leave the tie to their order."""
        super().__init__(problem, config, targets, stage1_steps=config.stage1_steps)
        generator = torch.Generator().manual_seed(config.seed)
        self.scores = nn.Parameter(0.01 * torch.randn(len(problem.groups), generator=generator))

    def choose(self, step: int, rng: np.random.Generator) -> Step:
        """The full network and the top k of a random target."""
        number = int(rng.integers(len(self.targets)))
        target = self.targets[number]
        done = min(step / max(self.stage1_steps - 1, 1), 1.0)
        budget = 1 - (1 - target.share) * done
        hard = self._top(target, budget)
        soft = torch.sigmoid(self.scores)
        # Exactly 0 or 1 forward; the gradient of the sigmoid backward.
        gates = self.problem.component_gates(hard + (soft - soft.detach()) * hard)
        return Step(
            torch.stack([torch.ones_like(gates), gates]),
            (0, 1 + number),
            (self.problem.space.full(), self._subnet(hard)),
            numbers={"selection/open": float(hard.sum()), "selection/budget": budget},
        )

    def frozen(self, step: int) -> Frozen:
        """Groups by falling score, as long as they fit."""
        order = self._order()
        return Frozen(
            subnets=fill_nested(self.problem, order, self.targets),
            order=tuple(index for group in order for index in self.problem.groups[group]),
        )

    def _order(self) -> list[int]:
        return torch.argsort(self.scores.detach(), descending=True, stable=True).tolist()

    def _top(self, target: Target, budget: float) -> Tensor:
        costs = self.problem.group_costs(target.costs)
        order = self._order()
        rest = target.costs.rest() / target.costs.total
        # Shares are sums of floats: the whole network's may be 1 and a rounding error.
        fits = rest + costs[order].cumsum(0) <= budget + 1e-9
        hard = torch.zeros_like(self.scores)
        hard[[group for group, fit in zip(order, fits.tolist(), strict=True) if fit]] = 1
        return hard
