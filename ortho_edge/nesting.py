"""The subnets between the trained sizes: leading parts of one order of all components.

Slots take components in a learned order, and the trained sizes are nested; but a size passes over
what does not fit it, so it need not be a leading part of that order. `nested_order` moves what the
small sizes keep to the front, after which every trained size is one, and so is any other number of
leading components: a subnet for every budget.
"""

from collections.abc import Sequence

import numpy as np

from ortho_edge.checkpoint import Checkpoint, TrainedSubnet
from ortho_edge.components import ComponentSpace
from ortho_edge.subnet import Subnet


def nested_order(
    space: ComponentSpace, subnets: Sequence[Subnet], order: Sequence[int]
) -> tuple[int, ...]:
    """Every component: first what most of the subnets keep, among equals in the given order.

    Args:
        space: The component space.
        subnets: Nested ones, without repetitions.
        order: Every component, in the order in which training took them.
    """
    votes = np.sum([subnet.gates().numpy() for subnet in subnets], axis=0)
    place = np.empty(len(space), dtype=int)
    place[list(order)] = np.arange(len(space))
    return tuple(sorted(range(len(space)), key=lambda index: (-votes[index], place[index])))


def closest(
    space: ComponentSpace, subnet: Subnet, trained: Sequence[TrainedSubnet]
) -> TrainedSubnet:
    """The trained subnet that shares the largest part of its FLOPs with `subnet`."""
    costs = space.component_costs("flops")

    def similarity(one: TrainedSubnet) -> float:
        ours, theirs = set(subnet.kept), set(one.subnet.kept)
        union = costs[sorted(ours | theirs)].sum()
        return float(costs[sorted(ours & theirs)].sum() / union) if union else 1.0

    return max(trained, key=similarity)


def named(space: ComponentSpace, subnet: Subnet, trained: Sequence[TrainedSubnet]) -> TrainedSubnet:
    """A subnet with the CTC head of the trained one that it is closest to."""
    share = space.cost(subnet, "flops") / space.total_cost("flops")
    return TrainedSubnet(
        name=f"any{round(100 * share):03d}",
        subnet=subnet,
        head=closest(space, subnet, trained).head,
        target=share,
    )


def between(
    space: ComponentSpace,
    trained: Sequence[TrainedSubnet],
    order: Sequence[int],
    groups: Sequence[Sequence[int]],
) -> tuple[TrainedSubnet, ...]:
    """Every leading part of the nested order between the smallest and the largest trained size.

    Args:
        space: The component space.
        trained: The sizes, nested, the largest first.
        order: Every component, in the order in which training took them.
        groups: What is kept or dropped as one; no part ends within a group.

    Returns:
        The smallest first, each with the head of the size that it is closest to.
    """
    nested = nested_order(space, [one.subnet for one in trained], order)
    group_of = {index: number for number, group in enumerate(groups) for index in group}
    low, high = len(trained[-1].subnet.kept), len(trained[0].subnet.kept)
    return tuple(
        named(space, Subnet.of(len(space), nested[:end]), trained)
        for end in range(low + 1, high)
        if group_of[nested[end - 1]] != group_of[nested[end]]
    )


def leading_subnets(checkpoint: Checkpoint) -> tuple[TrainedSubnet, ...]:
    """The subnets between the sizes that any-budget training drew, the smallest first."""
    if checkpoint.order is None:
        return ()
    space, trained = checkpoint.supernet.space, checkpoint.subnets
    nested = nested_order(space, [one.subnet for one in trained], checkpoint.order)
    return tuple(
        named(space, Subnet.of(len(space), nested[:length]), trained)
        for length in checkpoint.leading
    )
