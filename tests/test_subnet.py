"""A subnet is a value: frozen, hashable, valid."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ortho_edge.subnet import Subnet, stack_gates

SIZE = 12
kept_sets = st.sets(st.integers(0, SIZE - 1))


@given(kept_sets, st.randoms())
@settings(deadline=None)
def test_of_takes_any_order_and_repetition(kept: set[int], random) -> None:
    shuffled = [*kept, *kept]
    random.shuffle(shuffled)
    subnet = Subnet.of(SIZE, shuffled)
    assert subnet.kept == tuple(sorted(kept))
    assert [index in subnet for index in range(SIZE)] == [index in kept for index in range(SIZE)]


@given(kept_sets, kept_sets)
@settings(deadline=None)
def test_equality_hash_and_nesting_are_those_of_sets(first: set[int], second: set[int]) -> None:
    a, b = Subnet.of(SIZE, first), Subnet.of(SIZE, second)
    assert (a == b) == (first == second)
    assert len({a, b}) == len({frozenset(first), frozenset(second)})
    assert (a <= b) == (first <= second)
    assert a <= Subnet.full(SIZE)


def test_subnets_of_different_spaces_do_not_nest() -> None:
    assert not Subnet.of(SIZE, [1]) <= Subnet.full(SIZE + 1)


@given(kept_sets)
@settings(deadline=None)
def test_gates_are_one_where_kept(kept: set[int]) -> None:
    gates = Subnet.of(SIZE, kept).gates(torch.float64)
    assert gates.dtype == torch.float64
    assert gates.tolist() == [float(index in kept) for index in range(SIZE)]


def test_stacked_gates_keep_the_order() -> None:
    gates = stack_gates([Subnet.full(3), Subnet(3, ()), Subnet(3, (1,))])
    assert gates.tolist() == [[1, 1, 1], [0, 0, 0], [0, 1, 0]]


def test_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Subnet(3, ()).kept = (1,)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("kept", [(1, 0), (1, 1), (-1, 0), (0, SIZE)])
def test_a_bad_set_is_refused(kept: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"kept .*\("):
        Subnet(SIZE, kept)
