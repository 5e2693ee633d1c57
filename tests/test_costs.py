"""Cost models against the exact costs that they tabulate."""

import functools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ortho_edge.components import ComponentSpace, Criterion
from ortho_edge.costs import CostModel, CostTable, criterion_costs, flops_costs
from ortho_edge.devices.catalogue import load_profile
from ortho_edge.devices.costs import budget_costs, latency_costs, memory_costs, size_costs
from ortho_edge.devices.latency import predict_footprint, predict_latency
from ortho_edge.devices.profile import Budget
from ortho_edge.subnet import Subnet
from tests.encoders import draw_subnet, small_architecture
from tests.tolerances import tolerance

SPACES = {
    "strided": ComponentSpace(small_architecture("strided")),
    # So long an FFN holds more activations than the front end: memory has its peak there.
    "wide": ComponentSpace(small_architecture("strided", ffn_dim=3000, feature_dim=3)),
    "single": ComponentSpace(small_architecture("vgg", num_heads=1, num_ffn_chunks=1)),
    "elastic-vgg": ComponentSpace(small_architecture("elastic-vgg")),
    # The front end is fullest between its two convolutions, the more the more chunks it keeps.
    "elastic": ComponentSpace(
        small_architecture("elastic-strided", feature_dim=40, front_end_channels=(3, 36))
    ),
}
PROFILE = load_profile("pixel8")
DURATIONS = [0.3, 9.0]
spaces = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def assert_close(actual: float, expected: float) -> None:
    torch.testing.assert_close(actual, expected, **tolerance("float64_reordered"))


@spaces
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_a_cost_model_is_the_exact_cost(space: ComponentSpace, data: st.DataObject) -> None:
    subnet = draw_subnet(data, space)
    seconds = data.draw(st.sampled_from(DURATIONS))
    runtimes = list(PROFILE.runtimes)
    prints = [predict_footprint(PROFILE, space, subnet, seconds, one) for one in runtimes]
    latency = [
        predict_latency(PROFILE, space, subnet, seconds, one).milliseconds for one in runtimes
    ]
    expected = (
        space.cost(subnet, "params"),
        space.cost(subnet, "flops"),
        space.flops(subnet, seconds),
        max(latency),
        latency[0],
        max(one.memory_mb for one in prints),
        max(one.size_mb for one in prints),
    )
    for model, exact in zip(models(space, seconds), expected, strict=True):
        assert_close(model.cost(subnet), exact)


@functools.cache
def models(space: ComponentSpace, seconds: float) -> tuple[CostModel, ...]:
    return (
        criterion_costs(space, "params"),
        criterion_costs(space, "flops"),
        flops_costs(space, seconds),
        latency_costs(PROFILE, space, seconds),
        latency_costs(PROFILE, space, seconds, ["executorch"]),
        memory_costs(PROFILE, space, seconds),
        size_costs(PROFILE, space),
    )


def test_the_fullest_module_decides_on_memory() -> None:
    """Or the test above would say nothing of peaks."""
    space = SPACES["wide"]
    model = memory_costs(PROFILE, space, 2.0, ["executorch"])
    (table,) = model.tables
    assert table.peak_by_units["ffn1"][-1] > table.floor
    (table,) = memory_costs(PROFILE, SPACES["elastic"], 2.0, ["executorch"]).tables
    none, one, both = table.peak_by_units["front_end"]
    assert none == table.floor < one < both


@spaces
@pytest.mark.parametrize("criterion", ["params", "flops"])
def test_rest_and_components_add_up_to_the_full_network(
    space: ComponentSpace, criterion: Criterion
) -> None:
    model = criterion_costs(space, criterion)
    assert_close(model.rest() + float(model.component_costs().sum()), model.total)
    assert model.total == space.total_cost(criterion)
    assert model.smallest == space.cost(Subnet(len(space), ()), criterion)


def test_the_table_of_the_slowest_runtime_counts() -> None:
    space = SPACES["single"]
    units: Any = dict.fromkeys(("ffn1", "conv", "mhsa", "ffn2"), (0.0, 1.0))
    cheap_modules = CostTable(fixed=100.0, by_units=units)
    dear_modules = CostTable(fixed=0.0, by_units=dict.fromkeys(units, (0.0, 20.0)))
    model = CostModel(space=space, name="both", tables=(cheap_modules, dear_modules))
    assert model.cost(Subnet.of(len(space), [0])) == 101
    assert model.total == 20.0 * len(space)
    assert set(model.component_costs()) == {20.0}


def test_a_budget_limits_what_it_names_and_nothing_else() -> None:
    space = SPACES["strided"]
    budget = Budget(latency_ms=3.0, params=float("inf"), flops=5.0)
    limits = budget_costs(PROFILE, budget, space)
    assert [(one.name, limit) for one, limit in limits] == [
        ("latency on pixel8", 3.0),
        ("FLOPs of 5 s", 5.0),
    ]
