"""OrthoSoftmax as a method of selection (section 3)."""

from dataclasses import replace

import numpy as np
from torch import nn

from ortho_edge.ortho_softmax import (
    SelectionProblem,
    Target,
    component_order,
    count_collisions,
    decided_rows,
    decode,
    initial_scores,
    row_entropy,
    row_probabilities,
)
from ortho_edge.training.config import TrainingConfig
from ortho_edge.training.schedules import penalty_weight, temperature
from ortho_edge.training.selection.base import Frozen, Selection
from ortho_edge.training.subnet_sampling import Step, selection_numbers, soft_step


class OrthoSoftmax(Selection):
    """Scores (G, G) whose annealed, nearly orthogonal rows each take one group."""

    def __init__(
        self, problem: SelectionProblem, config: TrainingConfig, targets: tuple[Target, ...]
    ) -> None:
        """Starts from small seeded noise."""
        super().__init__(problem, config, targets, stage1_steps=config.stage1_steps)
        self.scores = nn.Parameter(initial_scores(len(problem.groups), config.seed))

    def choose(self, step: int, rng: np.random.Generator) -> Step:
        """The full network and a soft subnet of a random target."""
        now = temperature(self.config, step)
        chosen = soft_step(self.problem, self.scores, now, self.targets, rng)
        assert chosen.soft is not None
        return replace(
            chosen,
            penalty=penalty_weight(self.config, step) * chosen.soft.penalty,
            numbers=selection_numbers(self.scores, now, chosen.soft),
        )

    def frozen(self, step: int) -> Frozen:
        """Distinct components for the rows, each target within its limit."""
        now = temperature(self.config, step)
        probabilities = row_probabilities(self.scores.detach().cpu(), now)
        leading = decided_rows(self.problem, probabilities, self.targets)
        return Frozen(
            subnets=decode(self.problem, self.scores, now, self.targets),
            order=component_order(self.problem, self.scores, now, self.targets),
            entropy=row_entropy(probabilities[:leading]),
            collisions=count_collisions(probabilities[:leading]),
        )
