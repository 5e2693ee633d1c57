"""What every way of choosing subnets offers the trainer."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from ortho_edge.checkpoint import TrainedSubnet
from ortho_edge.ortho_softmax import SelectionProblem, Target
from ortho_edge.subnet import Subnet
from ortho_edge.training.config import TrainingConfig
from ortho_edge.training.subnet_sampling import Step


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """The outcome of stage 1.

    Attributes:
        subnets: One per target.
        order: Every component, in the order in which sizes take them; None where there is none.
        entropy: Mean row entropy, where rows decide.
        collisions: Rows whose most likely group an earlier row claims too; these got another.
    """

    subnets: list[Subnet]
    order: tuple[int, ...] | None = None
    entropy: float | None = None
    collisions: int | None = None

    @property
    def numbers(self) -> dict[str, float]:
        """What the log says of it."""
        found = {"freeze/entropy": self.entropy, "freeze/collisions": self.collisions}
        return {name: float(value) for name, value in found.items() if value is not None}


class Selection(nn.Module):
    """Chooses the subnets of an update, and in the end those that stay.

    What it learns are its parameters and what it remembers its buffers, so both are in the saved
    state of a run.

    Attributes:
        targets: Sizes besides the largest; each has a CTC head.
        largest: What every update trains with weight 1: the full network, unless one size is
            trained alone.
        stage1_steps: Updates before the choice is frozen.
    """

    def __init__(
        self,
        problem: SelectionProblem,
        config: TrainingConfig,
        targets: tuple[Target, ...],
        *,
        stage1_steps: int,
    ) -> None:
        super().__init__()
        self.problem, self.config, self.targets = problem, config, targets
        self.stage1_steps = stage1_steps
        self.largest = TrainedSubnet(name="s100", subnet=problem.space.full(), head=0, target=1.0)

    def _subnet(self, kept: Tensor) -> Subnet:
        """The subnet of the groups that are not 0 in `kept` (G,)."""
        groups = [self.problem.groups[group] for group in kept.nonzero().flatten().tolist()]
        return Subnet.of(len(self.problem.space), (index for group in groups for index in group))

    def choose(self, step: int, rng: np.random.Generator) -> Step:
        """The subnets of update `step` of stage 1."""
        raise NotImplementedError

    def frozen(self, step: int) -> Frozen:
        """What would be frozen before update `step`."""
        raise NotImplementedError
