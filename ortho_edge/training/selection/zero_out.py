"""Iterative-Zero-Out (arXiv 2407.18930): now and then the groups of the lowest gates are zeroed."""

import numpy as np
import torch
from torch import Tensor, nn

from ortho_edge.ortho_softmax import SelectionProblem, Target, fill_nested
from ortho_edge.training.config import TrainingConfig
from ortho_edge.training.selection.base import Frozen, Selection
from ortho_edge.training.subnet_sampling import Step

INITIAL_SCORE = 1.0
"""A gate of 0.73: open, and not where the sigmoid is flat."""


class IterativeZeroOut(Selection):
    """The zeroed share grows linearly to that of the smallest target over stage 1.

    A target's subnet follows the zeroing until it is small enough, so subnets are nested.

    Attributes:
        removed: (G,) when each group was zeroed: 0 first; -1 for those that are left.
    """

    removed: Tensor

    def __init__(
        self, problem: SelectionProblem, config: TrainingConfig, targets: tuple[Target, ...]
    ) -> None:
        """Starts with every group and small seeded noise."""
        super().__init__(problem, config, targets, stage1_steps=config.stage1_steps)
        generator = torch.Generator().manual_seed(config.seed)
        noise = 0.01 * torch.randn(len(problem.groups), generator=generator)
        self.scores = nn.Parameter(INITIAL_SCORE + noise)
        self.register_buffer("removed", torch.full((len(problem.groups),), -1))

    def choose(self, step: int, rng: np.random.Generator) -> Step:
        """Zeroes what is due; then the full network and the gates of a random target."""
        self._zero_out(step)
        number = int(rng.integers(len(self.targets)))
        hard = self._kept(self.targets[number])
        gates = self.problem.component_gates(hard * torch.sigmoid(self.scores))
        return Step(
            torch.stack([torch.ones_like(gates), gates]),
            (0, 1 + number),
            (self.problem.space.full(), self._subnet(hard)),
            numbers={"selection/open": float((self.removed < 0).sum())},
        )

    def frozen(self, step: int) -> Frozen:
        """What is left by falling score, then what was zeroed, the last first."""
        scores, removed = self.scores.tolist(), self.removed.tolist()
        left = sorted((g for g, when in enumerate(removed) if when < 0), key=lambda g: -scores[g])
        order = left + self._zeroed()[::-1]
        return Frozen(
            subnets=fill_nested(self.problem, order, self.targets),
            order=tuple(index for group in order for index in self.problem.groups[group]),
        )

    def _zeroed(self) -> list[int]:
        removed = self.removed.tolist()
        return sorted((g for g, when in enumerate(removed) if when >= 0), key=lambda g: removed[g])

    def _zero_out(self, step: int) -> None:
        every = max(1, self.stage1_steps // self.config.zero_outs)
        if step % every:
            return
        smallest = min(self.targets, key=lambda one: one.share)
        # The last multiple of `every` within stage 1 must reach the smallest target.
        last = (self.stage1_steps - 1) // every * every
        done = step / last if last else 1.0
        budget = 1 - (1 - smallest.share) * done
        costs = self.problem.group_costs(smallest.costs).tolist()
        rest = smallest.costs.rest() / smallest.costs.total
        scores, removed = self.scores.tolist(), self.removed.tolist()
        left = sorted((g for g, when in enumerate(removed) if when < 0), key=lambda g: scores[g])
        cost = rest + sum(costs[group] for group in left)
        while left and cost > budget + 1e-9:
            group = left.pop(0)
            cost -= costs[group]
            self.removed[group] = int(self.removed.max()) + 1

    def _kept(self, target: Target) -> Tensor:
        costs = self.problem.group_costs(target.costs).tolist()
        hard = torch.ones_like(self.scores)
        cost = target.costs.rest() / target.costs.total + sum(costs)
        for group in self._zeroed():
            if cost <= target.share:
                break
            hard[group] = 0
            cost -= costs[group]
        return hard
