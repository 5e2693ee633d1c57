"""Costs of components against what the compacted encoder really holds and runs."""

import functools
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ortho_edge.compaction import compact
from ortho_edge.components import (
    MODULES,
    REFERENCE_SECONDS,
    Component,
    ComponentSpace,
    Criterion,
    Module,
)
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.costs import criterion_costs
from ortho_edge.subnet import Subnet
from ortho_edge.supernet import Supernet
from tests.encoders import ALL_FRONT_ENDS, draw_subnet, small_architecture, small_supernet

ODD_SIZES = {
    "feature_dim": 9,
    "dim": 6,
    "num_heads": 2,
    "head_dim": 5,
    "ffn_dim": 8,
    "num_ffn_chunks": 4,
    "kernel_size": 1,
}
ARCHITECTURES = {
    "vgg": small_architecture("vgg"),
    "strided": small_architecture("strided"),
    "odd": small_architecture("strided", **ODD_SIZES),
    "single": small_architecture("vgg", num_heads=1, num_ffn_chunks=1, num_blocks=1),
    "elastic-vgg": small_architecture("elastic-vgg"),
    "elastic-strided": small_architecture("elastic-strided"),
    "two chunks": small_architecture("elastic-strided", front_end_chunks=2, feature_dim=9),
}
TEDLIUM2 = Architecture(vocab_size=80, dim=384, num_blocks=12, num_heads=6, ffn_dim=1536)
architectures = pytest.mark.parametrize("name", ARCHITECTURES)


@pytest.fixture
def unchecked(pytestconfig: pytest.Config) -> None:
    """Skips where types are checked at run time, which refuses a wrong literal first."""
    if pytestconfig.getoption("jaxtyping_packages", None):
        pytest.skip("types are checked at run time")


@functools.cache
def network(name: str) -> Supernet:
    return small_supernet(ARCHITECTURES[name], torch.float32)


def counted_flops(supernet: Supernet, subnet: Subnet, num_frames: int) -> int:
    features = torch.zeros(1, num_frames, supernet.architecture.feature_dim)
    counter = FlopCounterMode(display=False)
    # The counter has no formula for the fused CPU attention.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        compact(supernet, subnet)(features, torch.tensor([num_frames]))
    return counter.get_total_flops()


@architectures
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_params_are_those_of_the_compacted_encoder(data: st.DataObject, name: str) -> None:
    supernet = network(name)
    subnet = draw_subnet(data, supernet.space)
    encoder = compact(supernet, subnet)
    count = sum(parameter.numel() for parameter in encoder.parameters())
    assert supernet.space.cost(subnet, "params") == count


@architectures
@given(data=st.data())
@settings(max_examples=6, deadline=None)
def test_flops_are_those_that_the_compacted_encoder_runs(data: st.DataObject, name: str) -> None:
    supernet = network(name)
    subnet = draw_subnet(data, supernet.space)
    counted = counted_flops(supernet, subnet, 400)
    assert supernet.space.cost(subnet, "flops") == counted
    assert supernet.space.flops(subnet, REFERENCE_SECONDS) == counted


@pytest.mark.parametrize("num_frames", [1, 2, 63, 77, 1001])
@pytest.mark.parametrize("front_end", ALL_FRONT_ENDS)
def test_flops_follow_the_length_of_the_audio(front_end: str, num_frames: int) -> None:
    supernet = network(front_end)
    subnet = Subnet.of(len(supernet.space), [1, 3, 5, 9, 20, len(supernet.space) - 1])
    counted = counted_flops(supernet, subnet, num_frames)
    assert supernet.space.flops(subnet, num_frames / 100) == counted


@architectures
@pytest.mark.parametrize("criterion", ["params", "flops"])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_rest_and_components_bound_the_exact_cost(
    data: st.DataObject, criterion: Criterion, name: str
) -> None:
    space = ComponentSpace(ARCHITECTURES[name])
    subnet = draw_subnet(data, space)
    model = criterion_costs(space, criterion)
    bound = model.rest() + model.component_costs()[list(subnet.kept)].sum()
    exact = space.cost(subnet, criterion)
    assert exact <= bound
    # A module of one unit leaves nothing over: its unit carries its whole cost. Nor does the front
    # end, whose first chunk is in every subnet.
    shared = [
        one
        for one in space.modules(subnet)
        if one.block is not None and space.num_units(one.module) > 1
    ]
    if criterion == "flops" or all(one.units for one in shared):
        assert exact == bound
    else:
        assert exact < bound


@architectures
@pytest.mark.parametrize("criterion", ["params", "flops"])
def test_cost_is_exact_when_every_module_keeps_one(criterion: Criterion, name: str) -> None:
    space = ComponentSpace(ARCHITECTURES[name])
    firsts = [space.module_slice(*place).start for place in space.places]
    subnet = Subnet.of(len(space), firsts)
    model = criterion_costs(space, criterion)
    bound = model.rest() + model.component_costs()[firsts].sum()
    assert space.cost(subnet, criterion) == bound


@architectures
def test_the_order_is_that_of_the_gate_vector(name: str) -> None:
    space = ComponentSpace(ARCHITECTURES[name])
    architecture = space.architecture
    expected = []
    for block in range(architecture.num_blocks):
        expected += [Component(block, "ffn1", i) for i in range(architecture.num_ffn_chunks)]
        expected += [Component(block, "conv", 0)]
        expected += [Component(block, "mhsa", i) for i in range(architecture.num_heads)]
        expected += [Component(block, "ffn2", i) for i in range(architecture.num_ffn_chunks)]
    expected += [Component(None, "front_end", i) for i in range(architecture.front_end_chunks - 1)]
    assert list(space.components) == expected
    assert len(space) == len(expected)
    for index, component in enumerate(expected):
        place = space.module_slice(component.block, component.module)
        assert index == place.start + component.unit < place.stop


@architectures
@given(data=st.data())
@settings(deadline=None, max_examples=30)
def test_modules_list_the_kept_units(data: st.DataObject, name: str) -> None:
    space = ComponentSpace(ARCHITECTURES[name])
    subnet = draw_subnet(data, space)
    listed = {(one.block, one.module, unit) for one in space.modules(subnet) for unit in one.units}
    kept = [space.components[index] for index in subnet.kept]
    assert listed == {(one.block, one.module, one.unit) for one in kept}
    elastic = space.architecture.front_end_chunks > 1
    assert len(list(space.modules(subnet))) == 4 * space.architecture.num_blocks + elastic
    units = {one.unit for one in kept if one.module == "front_end"}
    assert space.front_end_chunks(subnet) == (0, *sorted(unit + 1 for unit in units))


@architectures
def test_groups_partition_the_space(name: str) -> None:
    space = ComponentSpace(ARCHITECTURES[name])
    assert space.groups("component") == tuple((index,) for index in range(len(space)))
    layers = space.groups("layer")
    assert list(itertools.chain(*layers)) == list(range(len(space)))
    owners = [{space.components[index] for index in group} for group in layers]
    expected = [
        {(block, module)} for block in range(space.architecture.num_blocks) for module in MODULES
    ]
    expected += [{(None, "front_end")}] * (space.architecture.front_end_chunks > 1)
    assert [{(one.block, one.module) for one in owner} for owner in owners] == expected


def test_the_papers_space_has_the_papers_size_and_costs() -> None:
    space = ComponentSpace(TEDLIUM2)
    assert len(space) == 180
    assert len(space.groups("layer")) == 48
    # The paper counts a module's shared parameters (norm, output bias) with its units.
    shared = {"ffn1": 4, "conv": 1, "mhsa": 6, "ffn2": 4}
    paper = {"ffn1": 295_584, "conv": 458_112, "mhsa": 98_688, "ffn2": 295_584}
    costs = dict(
        zip(
            [component.module for component in space.components],
            space.component_costs("params"),
            strict=True,
        )
    )
    for module, units in shared.items():
        norms_and_biases = (2 if module == "conv" else 3) * 384 / units
        assert abs(costs[module] + norms_and_biases - paper[module]) <= 0.002 * paper[module]


@pytest.mark.parametrize(
    "call",
    [
        lambda space: space.cost(space.full(), "latency"),
        lambda space: space.component_costs("latency"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_an_unknown_criterion_is_refused(call) -> None:
    with pytest.raises(ValueError, match="unknown criterion 'latency'; known: params, flops"):
        call(ComponentSpace(ARCHITECTURES["vgg"]))


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_granularity_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown granularity 'block'; known: component, layer"):
        ComponentSpace(ARCHITECTURES["vgg"]).groups("block")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 0}, "dim must be at least 1, not 0"),
        ({"num_blocks": -1}, "num_blocks must be at least 1, not -1"),
        ({"vocab_size": 1}, "vocab_size must hold blank and a symbol, not 1"),
        ({"ffn_dim": 20}, "ffn_dim 20 does not divide into 3 chunks"),
        ({"kernel_size": 4}, "kernel_size must be odd, not 4"),
        ({"front_end_channels": (3,)}, r"front_end 'strided' takes 2 channel counts, not \(3,\)"),
        ({"front_end_chunks": 0}, "front_end_chunks must be at least 1, not 0"),
        (
            {"front_end_chunks": 4, "front_end_channels": (4, 6)},
            "the 6 channels of the front end's last convolution do not divide into 4 chunks",
        ),
    ],
)
def test_an_impossible_architecture_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_architecture(**changes)  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_front_end_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown front_end 'conv1d'; known: vgg, strided"):
        small_architecture(front_end="conv1d", front_end_channels=(2, 2))


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_feature_normalization_is_refused() -> None:
    message = "unknown feature_normalization 'cmvn'; known: none, utterance"
    with pytest.raises(ValueError, match=message):
        small_architecture(feature_normalization="cmvn")


@pytest.mark.parametrize("module", MODULES)
def test_units_of_a_module(module: Module) -> None:
    space = ComponentSpace(ARCHITECTURES["odd"])
    assert space.num_units(module) == {"ffn1": 4, "conv": 1, "mhsa": 2, "ffn2": 4}[module]
