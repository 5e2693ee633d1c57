"""Work lists against the masks that they were made of."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ortho_kernels.worklist import WorkList, plan, refill, work_list

MASKS = st.integers(1, 6).flatmap(
    lambda units: st.lists(st.sets(st.integers(0, units - 1)), min_size=1, max_size=4).map(
        lambda rows: ([sorted(row) for row in rows], units)
    )
)


def pairs(work: WorkList) -> list[tuple[int, int]]:
    """The pairs that a kernel would visit subnet by subnet."""
    offsets = work.part("offsets").tolist()
    subnets, units = work.part("subnets").tolist(), work.part("units").tolist()
    return [
        (subnets[number], units[number])
        for start, stop in itertools.pairwise(offsets)
        for number in range(start, stop)
    ]


def check(work: WorkList, open_units: list[list[int]]) -> None:
    expected = [(subnet, unit) for subnet, row in enumerate(open_units) for unit in row]
    assert pairs(work) == expected
    slots = work.part("slots").view(work.num_subnets, work.num_units)
    for subnet in range(work.num_subnets):
        for unit in range(work.num_units):
            pair = (subnet, unit)
            number = expected.index(pair) if pair in expected else -1
            assert slots[pair] == number


@given(st.lists(MASKS, min_size=1, max_size=3), st.booleans())
def test_a_plan_lists_exactly_the_open_pairs(modules, full_capacity: bool) -> None:
    made = plan(modules, "cpu", full_capacity=full_capacity)
    for work, (open_units, units) in zip(made.modules, modules, strict=True):
        check(work, open_units)
        room = len(open_units) * units if full_capacity else work.num_pairs
        assert work.capacity == room
        assert work.buffer.untyped_storage().data_ptr() == made.buffer.untyped_storage().data_ptr()


@given(st.data())
def test_refilling_keeps_memory_and_changes_masks(data: st.DataObject) -> None:
    units, subnets = 5, 3
    row = st.sets(st.integers(0, units - 1)).map(sorted)
    masks = st.lists(row, min_size=subnets, max_size=subnets)
    old = plan([(data.draw(masks), units), (data.draw(masks), units)], "cpu", full_capacity=True)
    address = old.buffer.data_ptr()
    fresh = [data.draw(masks), data.draw(masks)]
    new = refill(old, fresh)
    assert new.buffer.data_ptr() == address
    for work, open_units in zip(new.modules, fresh, strict=True):
        check(work, open_units)
        assert work.capacity == subnets * units


def test_refilling_needs_room_and_the_same_shape() -> None:
    tight = plan([([[0], [1]], 2)], "cpu")
    with pytest.raises(ValueError, match="3 pairs in room for 2"):
        refill(tight, [[[0, 1], [1]]])
    with pytest.raises(ValueError, match="1 subnets instead of 2"):
        refill(tight, [[[0]]])
    with pytest.raises(ValueError, match="0 modules instead of 1"):
        refill(tight, [])


@pytest.mark.parametrize("row", [[1, 0], [0, 0], [3], [-1]])
def test_units_must_be_ascending_and_known(row: list[int]) -> None:
    with pytest.raises(ValueError, match="ascending"):
        work_list([row], 3)


def test_a_buffer_is_int32() -> None:
    assert work_list([[0, 2], []], 3).buffer.dtype == torch.int32
