"""Composition against exhaustive search, and budgets that must never be exceeded."""

import itertools
import types
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ortho_edge import composition
from ortho_edge.cli import UserError
from ortho_edge.components import MODULES, ComponentSpace
from ortho_edge.composition import component_worth, compose, grown
from ortho_edge.costs import CostModel, CostTable
from ortho_edge.subnet import Subnet
from tests.encoders import small_architecture
from tests.tolerances import tolerance

# 2 blocks of 1 + 1 + 2 + 1 units, one block of 4 + 1 + 3 + 4, and one of 2 + 1 + 1 + 2 behind a
# front end with three optional chunks.
TINY = [
    ComponentSpace(small_architecture(num_blocks=2, num_heads=2, num_ffn_chunks=1)),
    ComponentSpace(small_architecture(num_blocks=1, num_heads=3, num_ffn_chunks=4, ffn_dim=20)),
    ComponentSpace(
        small_architecture(
            num_blocks=1,
            num_heads=1,
            num_ffn_chunks=2,
            ffn_dim=8,
            front_end_channels=(3, 8),
            front_end_chunks=4,
        )
    ),
]
SPACE = ComponentSpace(small_architecture(num_blocks=2))


def random_model(space: ComponentSpace, rng: np.random.Generator, name: str) -> CostModel:
    """Tables that are neither linear nor convex, some with a peak."""

    def table() -> CostTable:
        def rising(most: int) -> Any:
            return {
                module: (0.0, *np.cumsum(rng.integers(0, most, space.num_units(module)) / 4.0))
                for module in space.kinds
            }

        peaks = rising(20) if rng.random() < 0.5 else {}
        return CostTable(
            fixed=float(rng.integers(0, 5)), by_units=rising(8), floor=float(rng.integers(0, 5)),
            peak_by_units=peaks,
        )  # fmt: skip

    return CostModel(
        space=space, name=name, tables=tuple(table() for _ in range(rng.integers(1, 3)))
    )


def best_by_search(
    space: ComponentSpace, worth: np.ndarray, limits: list[tuple[CostModel, float]]
) -> float | None:
    best = None
    for flags in itertools.product([False, True], repeat=len(space)):
        subnet = Subnet.of(len(space), np.flatnonzero(flags).tolist())
        if subnet.kept and all(model.cost(subnet) <= limit for model, limit in limits):
            value = float(worth[list(subnet.kept)].sum())
            best = value if best is None else max(best, value)
    return best


@pytest.mark.parametrize("seed", range(18))
def test_composition_is_optimal_and_within_every_limit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    space = TINY[seed % len(TINY)]
    worth = rng.integers(1, 6, len(space)) if seed % 3 == 0 else rng.random(len(space))
    limits = []
    for number in range(rng.integers(1, 4)):
        model = random_model(space, rng, str(number))
        # Costs are quarters, so many subnets meet a limit exactly.
        share = rng.random()
        limits.append(
            (model, round(4 * (model.smallest + share * (model.total - model.smallest))) / 4)
        )
    found = compose(space, np.asarray(worth, float), limits)
    expected = best_by_search(space, np.asarray(worth, float), limits)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert all(model.cost(found) <= limit for model, limit in limits)
        np.testing.assert_allclose(
            worth[list(found.kept)].sum(), expected, **tolerance("float64_reordered")
        )


def test_what_the_tables_let_through_is_still_refused() -> None:
    """The last word has the caller, who prices a subnet as the user will."""
    space = TINY[0]
    worth = np.arange(1.0, len(space) + 1)
    assert compose(space, worth, []) == space.full()
    second = compose(space, worth, [], lambda one: one != space.full())
    assert second == Subnet.of(len(space), range(1, len(space)))
    assert compose(space, worth, [], lambda one: False) is None


def test_a_composed_subnet_keeps_something() -> None:
    space = TINY[0]
    units: Any = {module: (0.0,) + (5.0,) * space.num_units(module) for module in MODULES}
    model = CostModel(space=space, name="any", tables=(CostTable(fixed=1.0, by_units=units),))
    assert compose(space, np.ones(len(space)), [(model, 5.9)]) is None
    found = compose(space, np.ones(len(space)), [(model, 6.0)])
    assert found is not None
    # The two heads of one module cost as much as one.
    assert [space.components[index].module for index in found.kept] == ["mhsa", "mhsa"]


def nested(*sizes: int) -> list[Subnet]:
    order = np.random.default_rng(5).permutation(len(SPACE)).tolist()
    return [Subnet.of(len(SPACE), order[:size]) for size in sizes]


def test_worth_is_the_share_of_the_trained_sizes_that_is_covered() -> None:
    small, large = nested(3, 9)
    costs = SPACE.component_costs("flops")
    worth = component_worth(SPACE, [large, small])
    drawn = Subnet.of(len(SPACE), range(0, len(SPACE), 2))
    shares = [
        costs[[index for index in size.kept if index in drawn]].sum() / costs[list(size.kept)].sum()
        for size in (small, large, SPACE.full())
    ]
    np.testing.assert_allclose(
        worth[list(drawn.kept)].sum(), np.mean(shares), **tolerance("float64_reordered")
    )
    np.testing.assert_allclose(worth.sum(), 1, **tolerance("float64_reordered"))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_flops_of_a_trained_size_compose_that_size(seed: int) -> None:
    """A component's worth per FLOP falls from size to size, so nothing can cover more."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(SPACE)).tolist()
    ends = sorted(rng.choice(np.arange(1, len(SPACE)), 3, replace=False).tolist())
    sizes = [Subnet.of(len(SPACE), order[:end]) for end in ends]
    units: Any = {m: tuple(n * SPACE.component_costs("flops")[SPACE.module_slice(0, m).start]
                           for n in range(SPACE.num_units(m) + 1)) for m in MODULES}  # fmt: skip
    model = CostModel(space=SPACE, name="flops", tables=(CostTable(fixed=0.0, by_units=units),))
    for known in (None, order):
        worth = component_worth(SPACE, sizes, known)
        for size in sizes:
            assert compose(SPACE, worth, [(model, model.cost(size))]) == size


def test_a_recorded_order_decides_between_components_of_one_size() -> None:
    small, large = nested(3, 9)
    order = np.random.default_rng(1).permutation(len(SPACE)).tolist()
    costs = SPACE.component_costs("flops")
    per_flop = component_worth(SPACE, [small, large], order) / costs
    ranked = sorted(range(len(SPACE)), key=lambda index: -per_flop[index])
    assert set(ranked[:3]) == set(small.kept)
    assert set(ranked[:9]) == set(large.kept)
    for tier in (ranked[:3], ranked[3:9], ranked[9:]):
        assert [order.index(index) for index in tier] == sorted(map(order.index, tier))


@pytest.mark.parametrize("front_end", ["strided", "elastic-strided"])
def test_grown_adds_the_most_valuable_unit_of_each_module(front_end: str) -> None:
    space = ComponentSpace(small_architecture(front_end, num_blocks=2))
    worth = np.random.default_rng(2).random(len(space))
    subnet = Subnet.of(len(space), range(space.per_block))
    found = grown(space, worth, subnet)
    names = [space.components[index].module for _, index in found]
    assert sorted(names) == sorted(space.kinds), "those of the second block, and the front end"
    for larger, index in found:
        assert set(larger.kept) - set(subnet.kept) == {index}
        one = space.components[index]
        place = space.module_slice(one.block, one.module)
        assert worth[index] == worth[place].max()
    assert grown(space, worth, space.full()) == []


def timed_out(x: np.ndarray | None) -> Any:
    return lambda *_, **__: types.SimpleNamespace(status=composition.TIMED_OUT, x=x)


def test_a_search_that_ran_out_of_time_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    space = TINY[0]
    model = random_model(space, np.random.default_rng(0), "cost")
    limits = [(model, model.total)]
    worth = np.ones(len(space))
    monkeypatch.setattr(composition, "milp", timed_out(None))
    with pytest.raises(UserError, match="no subnet within the budget was found in 30 s"):
        compose(space, worth, limits)
    first_option = np.eye(1, 100)[0]
    monkeypatch.setattr(composition, "milp", timed_out(first_option))
    assert compose(space, worth, limits) == Subnet(len(space), (0,))
    assert "a better one may exist" in caplog.text
