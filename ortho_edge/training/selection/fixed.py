"""Subnets that are known before training: they are frozen at once and trained by the sandwich."""

import math

import numpy as np

from ortho_edge.checkpoint import TrainedSubnet
from ortho_edge.components import FRONT_END, ComponentSpace
from ortho_edge.ortho_softmax import SelectionProblem, Target, fill_nested
from ortho_edge.subnet import Subnet
from ortho_edge.training.config import TrainingConfig
from ortho_edge.training.selection.base import Frozen, Selection

AUX_LOSSES = 3
"""Depths of Aux-Loss: a third, two thirds and the whole (blocks 4, 8 and 12 of 12)."""
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


class Fixed(Selection):
    """Subnets that nothing learns."""

    def __init__(
        self,
        problem: SelectionProblem,
        config: TrainingConfig,
        targets: tuple[Target, ...],
        outcome: Frozen,
    ) -> None:
        """Has no stage 1."""
        super().__init__(problem, config, targets, stage1_steps=0)
        self.outcome = outcome

    def frozen(self, step: int) -> Frozen:
        """The subnets, whatever the update."""
        return self.outcome


def truncated(
    problem: SelectionProblem, config: TrainingConfig, targets: tuple[Target, ...]
) -> Fixed:
    """Aux-Loss (arXiv 2407.18930): an output after each third of the depth.

    The configured targets say only what is counted: the depths say how large the sizes are. Later
    blocks are empty; their closing LayerNorms stay, and so does the whole front end.
    """
    space, costs = problem.space, targets[0].costs
    num_blocks = space.architecture.num_blocks
    depths = {math.ceil(num_blocks * part / AUX_LOSSES) for part in range(1, AUX_LOSSES)}
    falling = sorted(depths - {num_blocks}, reverse=True)
    if not falling:
        raise ValueError(f"aux-loss needs a network that is deeper than {num_blocks} block")
    place = space.module_slice(*FRONT_END)
    front_end = range(place.start, place.stop)
    subnets = [
        Subnet.of(len(space), (*range(space.per_block * depth), *front_end)) for depth in falling
    ]
    sizes = tuple(
        Target(name=f"b{depth:02d}", costs=costs, limit=costs.cost(subnet))
        for depth, subnet in zip(falling, subnets, strict=True)
    )
    return Fixed(problem, config, sizes, Frozen(subnets=subnets, order=tuple(range(len(space)))))


def random_nested(
    problem: SelectionProblem, config: TrainingConfig, targets: tuple[Target, ...]
) -> Fixed:
    """Nested subnets that take groups in a seeded random order."""
    order = np.random.default_rng((config.seed, 2)).permutation(len(problem.groups)).tolist()
    components = tuple(index for group in order for index in problem.groups[group])
    subnets = fill_nested(problem, order, targets)
    return Fixed(problem, config, targets, Frozen(subnets=subnets, order=components))


def alone(problem: SelectionProblem, config: TrainingConfig, targets: tuple[Target, ...]) -> Fixed:
    """One size and nothing else: `config.kept`, or a subnet that is alike in every block.

    Raises:
        ValueError: There is more than one target, or the given subnet is not one of this network
            or costs more than the target allows.
    """
    if len(targets) != 1:
        raise ValueError(f"method alone trains one target, not {len(targets)}")
    (target,) = targets
    space = problem.space
    if config.kept is None:
        everything = SelectionProblem(space, "component")
        (subnet,) = fill_nested(everything, uniform_order(space), targets)
    else:
        subnet = Subnet(len(space), config.kept)
        if target.costs.cost(subnet) > target.limit * (1 + 1e-9):
            raise ValueError(
                f"the given subnet costs {target.costs.cost(subnet) / target.costs.total:.4f} of "
                f"{target.costs.name}, more than the target {target.share:g}"
            )
    selection = Fixed(problem, config, (), Frozen(subnets=[]))
    selection.largest = TrainedSubnet(name=target.name, subnet=subnet, head=0, target=target.share)
    return selection


def full_network(
    problem: SelectionProblem, config: TrainingConfig, targets: tuple[Target, ...]
) -> Fixed:
    """The full network and nothing else."""
    return Fixed(problem, config, (), Frozen(subnets=[]))


def uniform_order(space: ComponentSpace) -> list[int]:
    """Every component, so that what a prefix keeps is alike in every block.

    Modules fill at the same pace; among equals, blocks far from each other take turns.
    """

    def key(index: int) -> tuple[float, float]:
        component = space.components[index]
        filled = (component.unit + 0.5) / space.num_units(component.module)
        return filled, (component.block or 0) * GOLDEN_RATIO % 1

    return sorted(range(len(space)), key=key)
