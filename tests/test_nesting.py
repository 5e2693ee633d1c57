"""The subnets between the trained sizes: nested, whole groups, with a head of a trained size."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortho_edge.checkpoint import TrainedSubnet
from ortho_edge.components import ComponentSpace, Granularity
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.costs import criterion_costs
from ortho_edge.nesting import between, closest, nested_order
from ortho_edge.ortho_softmax import SelectionProblem, Target, fill_nested
from ortho_edge.subnet import Subnet

SPACE = ComponentSpace(
    Architecture(
        vocab_size=5, dim=16, num_blocks=2, num_heads=2, head_dim=8, ffn_dim=32, kernel_size=3,
        front_end="strided", front_end_channels=(4, 4),
    )
)  # fmt: skip


def sizes(order: list[int], granularity: Granularity) -> list[TrainedSubnet]:
    """Three sizes that pass over what does not fit, as training makes them."""
    problem, costs = SelectionProblem(SPACE, granularity), criterion_costs(SPACE, "flops")
    targets = [
        Target(name=str(share), costs=costs, limit=share * costs.total) for share in (0.85, 0.7)
    ]
    subnets = [SPACE.full(), *fill_nested(problem, order, targets)]
    return [
        TrainedSubnet(name=str(head), subnet=one, head=head, target=1.0)
        for head, one in enumerate(subnets)
    ]


@given(st.integers(0, 2**32 - 1), st.sampled_from(["component", "layer"]))
def test_leading_parts_nest_around_the_sizes_and_split_no_group(
    seed: int, granularity: Granularity
) -> None:
    groups = SPACE.groups(granularity)
    slots = np.random.default_rng(seed).permutation(len(groups)).tolist()
    order = [index for slot in slots for index in groups[slot]]
    trained = sizes(slots, granularity)
    nested = nested_order(SPACE, [one.subnet for one in trained], order)
    assert sorted(nested) == list(range(len(SPACE)))
    for one in trained:
        assert set(nested[: len(one.subnet.kept)]) == set(one.subnet.kept)
    found = between(SPACE, trained, order, groups)
    whole = [trained[-1], *found, trained[0]]
    for small, large in pairwise(whole):
        assert small.subnet <= large.subnet
        gained = set(large.subnet.kept) - set(small.subnet.kept)
        assert gained in [set(group) for group in groups], "one group more each time"
    for one in found:
        assert one.head == closest(SPACE, one.subnet, trained).head
        expected = SPACE.cost(one.subnet, "flops") / SPACE.total_cost("flops")
        assert one.target == pytest.approx(expected)
    # A size in between keeps its own head.
    middle = [one for one in found if one.subnet == trained[1].subnet]
    assert [one.head for one in middle] in ([1], []), "or it is as large as another"


def test_closest_shares_most_flops() -> None:
    order = np.random.default_rng(0).permutation(len(SPACE)).tolist()
    small, large = (
        TrainedSubnet(name=str(size), subnet=Subnet.of(len(SPACE), order[:size]), head=0, target=1)
        for size in (3, 12)
    )
    four, eleven = (Subnet.of(len(SPACE), order[:size]) for size in (4, 11))
    assert closest(SPACE, four, [small, large]) is small
    assert closest(SPACE, eleven, [small, large]) is large
