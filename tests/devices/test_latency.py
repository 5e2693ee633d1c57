import dataclasses
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ortho_edge.candidates import candidate
from ortho_edge.checkpoint import TrainedSubnet
from ortho_edge.compaction import compact
from ortho_edge.components import ComponentSpace
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.devices.catalogue import load_profile
from ortho_edge.devices.costs import latency_costs
from ortho_edge.devices.latency import predict_footprint, predict_latency
from ortho_edge.devices.profile import KINDS, DeviceProfile, ModuleCost
from ortho_edge.devices.workload import planned_elements, workload
from ortho_edge.subnet import Subnet
from ortho_edge.supernet import Supernet
from ortho_export.flat import FlatEncoder

STRIDED = Architecture(
    vocab_size=11, dim=24, num_blocks=3, num_heads=3, head_dim=8, ffn_dim=40, num_ffn_chunks=5,
    kernel_size=7, front_end="strided", front_end_channels=(4, 6), feature_dim=79,
)  # fmt: skip
VGG = dataclasses.replace(STRIDED, front_end="vgg", front_end_channels=(2, 4, 6, 3), num_blocks=2)
ELASTIC = [
    dataclasses.replace(STRIDED, front_end_chunks=3),
    dataclasses.replace(VGG, front_end_chunks=3),
]
TERMS = tuple(field.name for field in dataclasses.fields(ModuleCost))


@st.composite
def spaces_and_subnets(draw: st.DrawFn) -> tuple[ComponentSpace, Subnet]:
    space = ComponentSpace(draw(st.sampled_from([STRIDED, VGG, *ELASTIC])))
    return space, Subnet.of(len(space), draw(st.sets(st.integers(0, len(space) - 1))))


durations = st.floats(0.05, 30.0)


def priced(coefficients: dict[str, dict[str, float]], scale: float = 1.0) -> DeviceProfile:
    """A profile in which only these coefficients are not 0."""
    profile = load_profile("pixel8")
    costs = profile.runtimes["executorch"]["fp32"]
    # Without a clock, nothing is faster than the core can be.
    cores = tuple(dataclasses.replace(core, clock_ghz=None) for core in profile.hardware.cores)
    modules: Any = {kind: ModuleCost(**coefficients.get(kind, {})) for kind in KINDS}
    costs = dataclasses.replace(costs, modules=modules, scale=scale)
    return dataclasses.replace(
        profile,
        hardware=dataclasses.replace(profile.hardware, cores=cores),
        runtimes={"executorch": {"fp32": costs}},
    )


def milliseconds(
    profile: DeviceProfile, space: ComponentSpace, subnet: Subnet, seconds: float
) -> float:
    return predict_latency(profile, space, subnet, seconds, "executorch").milliseconds


@settings(deadline=None)
@given(spaces_and_subnets(), durations)
def test_the_workload_adds_up_to_the_costs_of_the_component_space(
    drawn: tuple[ComponentSpace, Subnet], seconds: float
) -> None:
    space, subnet = drawn
    works = workload(space, subnet, seconds)
    assert sum(work.flops for work in works) == pytest.approx(space.flops(subnet, seconds))
    assert sum(work.params for work in works) == pytest.approx(space.cost(subnet, "params"))
    assert all(work.flops >= 0 and work.params > 0 for work in works)
    assert all(work.activations > 0 and work.live > 0 for work in works)


def test_the_modules_run_in_order_and_closed_ones_are_left_out() -> None:
    space = ComponentSpace(STRIDED)
    kept = [
        space.module_slice(0, "conv").start,
        space.module_slice(0, "mhsa").start,
        space.module_slice(2, "ffn1").start,
        space.module_slice(2, "ffn2").start,
    ]
    kinds = [work.kind for work in workload(space, Subnet.of(len(space), kept), 1.0)]
    assert kinds == [
        "front_end", "conv", "mhsa", "norm", "norm", "ffn", "ffn", "norm", "ctc_head",
    ]  # fmt: skip


@pytest.mark.parametrize("architecture", ELASTIC, ids=["strided", "vgg"])
@pytest.mark.parametrize("seconds", [0.3, 4.0])
def test_chunks_of_the_front_end_make_one_of_fewer_channels(
    architecture: Architecture, seconds: float
) -> None:
    """And change nothing but the front end."""
    space = ComponentSpace(architecture)
    start = space.module_slice(None, "front_end").start
    width = architecture.front_end_channels[-1] // 3
    for kept, chunks in (((), 1), ((start + 1,), 2), ((start, start + 1), 3)):
        channels = (*architecture.front_end_channels[:-1], chunks * width)
        plain = dataclasses.replace(architecture, front_end_channels=channels, front_end_chunks=1)
        subnet = Subnet.of(len(space), (0, 3, *kept))
        expected = workload(ComponentSpace(plain), Subnet(start, (0, 3)), seconds)
        front_end, *others = workload(space, subnet, seconds)
        assert front_end.units == chunks
        assert (dataclasses.replace(front_end, units=1), *others) == expected


def test_a_latency_worked_out_by_hand() -> None:
    """One head of one block at 1 s: 25 encoder frames of 24 channels."""
    space = ComponentSpace(STRIDED)
    subnet = Subnet.of(len(space), [space.module_slice(1, "mhsa").start])
    coefficients = {
        "us_per_call": 7.0,
        "us_per_mflop": 11.0,
        "us_per_weight_mb": 1300.0,
        "us_per_activation_mb": 1700.0,
    }
    macs = 25 * (4 * 24 * 8 + 2 * 25 * 8)
    parameters = 4 * 24 * 8 + 3 * 8 + 24 + 2 * 24
    elements = 25 * (2 * 24 + 4 * 8 + 2 * 25 - 3 * 8)
    expected = 7 + 11 * 2 * macs / 1e6 + 1300 * 4 * parameters / 1e6 + 1700 * 4 * elements / 1e6
    profile = priced({"mhsa": coefficients}, scale=1.25)
    assert milliseconds(profile, space, subnet, 1.0) == pytest.approx(1.25 * expected / 1000)


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize(("kind", "module"), [("ffn", "ffn1"), ("ffn", "ffn2"), ("mhsa", "mhsa")])
def test_a_module_is_linear_in_its_units(kind: str, module: Any, term: str) -> None:
    space = ComponentSpace(STRIDED)
    profile = priced({kind: {term: 1000.0}})
    place = space.module_slice(1, module)
    by_units = [
        milliseconds(profile, space, Subnet.of(len(space), range(place.start, stop)), 2.0)
        for stop in range(place.start + 1, place.stop + 1)
    ]
    steps = [b - a for a, b in itertools.pairwise(by_units)]
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert (steps[0] > 0) == (term != "us_per_call")
    assert by_units[0] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_only_attention_grows_faster_than_the_audio(kind: str) -> None:
    space = ComponentSpace(STRIDED)
    profile = priced({kind: {"us_per_mflop": 1.0, "us_per_activation_mb": 1.0}})
    # Doublings that divide into encoder frames without remainder.
    one, two, four = (
        milliseconds(profile, space, space.full(), seconds) for seconds in (4.0, 8.0, 16.0)
    )
    assert two >= 2 * one * (1 - 1e-9)
    if kind == "mhsa":
        # a T + b T^2 has the second difference 2 b.
        assert four - 2 * two == pytest.approx(4 * (two - 2 * one))
        assert two > 2.1 * one
    else:
        assert four - 2 * two == pytest.approx(2 * (two - 2 * one), abs=1e-9)
        assert two == pytest.approx(2 * one)


@settings(deadline=None)
@given(spaces_and_subnets(), durations, st.data())
def test_a_component_more_is_never_cheaper(
    drawn: tuple[ComponentSpace, Subnet], seconds: float, data: st.DataObject
) -> None:
    space, subnet = drawn
    extra = data.draw(st.integers(0, len(space) - 1))
    larger = Subnet.of(len(space), {*subnet.kept, extra})
    profile = load_profile("pixel8")
    for runtime in profile.runtimes:
        less, more = (
            predict_latency(profile, space, one, seconds, runtime).milliseconds
            for one in (subnet, larger)
        )
        assert (less < more) if extra not in subnet else (less == more)
        small, big = (
            predict_footprint(profile, space, one, seconds, runtime) for one in (subnet, larger)
        )
        assert small.memory_mb <= big.memory_mb
        assert small.size_mb <= big.size_mb


def test_a_prediction_says_where_its_figures_come_from() -> None:
    profile = load_profile("pixel8")
    space = ComponentSpace(STRIDED)
    prediction = predict_latency(profile, space, space.full(), 4.0, "onnxruntime")
    assert prediction.provenance == "analytic"
    assert "93.1 GFLOP/s" in prediction.source
    assert (prediction.runtime, prediction.seconds) == ("onnxruntime", 4.0)
    assert prediction.error_percent is None


def test_the_footprint_worked_out_by_hand() -> None:
    """Two blocks of nothing: front end, two norms, head; the features and maps are fullest."""
    profile = load_profile("pixel8")
    costs = profile.runtimes["executorch"]["fp32"]
    memory = dataclasses.replace(
        costs.memory, fixed_mb=3.0, weight_copies=2.0, activation_copies=5.0
    )
    size = dataclasses.replace(
        costs.size, bytes_per_parameter=4.5, fixed_kb=20.0, kb_per_module=3.0, kb_per_layer=7.0
    )
    costs = dataclasses.replace(costs, memory=memory, size=size)
    profile = dataclasses.replace(profile, runtimes={"executorch": {"fp32": costs}})
    space = ComponentSpace(dataclasses.replace(STRIDED, num_blocks=2))
    empty = Subnet.of(len(space), ())
    parameters = (9 * 4 + 4) + (9 * 4 * 6 + 6) + (6 * 20 * 24 + 24) + 2 * 48 + 25 * 11
    # 100 feature frames: 79 bins, then 4 channels of 50 x 40.
    live = 100 * 79 + 4 * 50 * 40
    footprint = predict_footprint(profile, space, empty, 1.0, "executorch")
    assert footprint.memory_mb == pytest.approx(3 + 2 * 4 * parameters / 1e6 + 5 * 4 * live / 1e6)
    graph = 20e3 + 4 * 3e3 + 2 * 7e3
    assert footprint.size_mb == pytest.approx((4.5 * parameters + graph) / 1e6)
    assert footprint.memory_provenance == "analytic"
    assert footprint.size_provenance == costs.size.provenance

    # The matrices of the front end and the head take a byte and a half, an output three more.
    int8 = dataclasses.replace(size, bytes_per_weight=1.5, bytes_per_output=3.0)
    quantised = dataclasses.replace(costs, size=int8)
    both = dataclasses.replace(profile, runtimes={"executorch": {"fp32": costs, "int8": quantised}})
    weights, outputs = 6 * 20 * 24 + 24 * 11, 24 + 11
    found = predict_footprint(both, space, empty, 1.0, "executorch", "int8").size_mb
    expected = 4.5 * (parameters - weights) + 1.5 * weights + 3 * outputs + graph
    assert found == pytest.approx(expected / 1e6)


@settings(deadline=None, max_examples=20)
@given(spaces_and_subnets())
def test_weights_outputs_and_layers_are_those_of_the_exported_encoder(
    drawn: tuple[ComponentSpace, Subnet],
) -> None:
    space, subnet = drawn
    encoder = FlatEncoder(compact(Supernet(space.architecture), subnet))
    layers = [one for one in encoder.modules() if isinstance(one, torch.nn.Linear)]
    works = workload(space, subnet, 1.0)
    assert sum(work.weights for work in works) == sum(one.weight.numel() for one in layers)
    assert sum(work.outputs for work in works) == sum(one.out_features for one in layers)
    assert sum(work.layers for work in works) == len(layers)
    kinds = (torch.nn.Conv1d, torch.nn.Conv2d)
    filters = [one.weight.numel() for one in encoder.modules() if isinstance(one, kinds)]
    assert sum(work.filters for work in works) == sum(filters)


def test_memory_of_a_precision_without_figures_is_that_of_fp32() -> None:
    shipped, space = load_profile("pixel8"), ComponentSpace(STRIDED)
    runtimes = {name: {"fp32": costs["fp32"]} for name, costs in shipped.runtimes.items()}
    profile, full = dataclasses.replace(shipped, runtimes=runtimes), space.full()
    for runtime in ("executorch", "onnxruntime"):
        plain, int8 = (
            predict_footprint(profile, space, full, 2.0, runtime, one) for one in ("fp32", "int8")
        )
        assert int8.memory_mb == plain.memory_mb
        assert int8.size_mb < plain.size_mb


def test_every_module_has_a_boundary_and_a_budget_means_the_median() -> None:
    space = ComponentSpace(STRIDED)
    profile = priced({"norm": {"us_per_call": 10}}, scale=2.0)
    costs = profile.runtimes["executorch"]["fp32"]
    more = dataclasses.replace(costs, us_per_boundary=7.0, p50_ratio=1.25)
    changed = dataclasses.replace(profile, runtimes={"executorch": {"fp32": more}})
    for subnet in (Subnet.of(len(space), ()), Subnet.of(len(space), (0, 5, 6)), space.full()):
        modules = len(workload(space, subnet, 1.0))
        plain = milliseconds(profile, space, subnet, 1.0)
        assert plain == pytest.approx(2 * 10 * STRIDED.num_blocks / 1000)
        one = predict_latency(changed, space, subnet, 1.0, "executorch")
        assert one.milliseconds == pytest.approx(plain + 7 * modules / 1000)
        assert one.p50_milliseconds == pytest.approx(1.25 * one.milliseconds)
        assert latency_costs(changed, space, 1.0).cost(subnet) == pytest.approx(
            one.p50_milliseconds
        )
        trained = TrainedSubnet(name="a", subnet=subnet, head=0, target=1.0)
        assert candidate(changed, space, trained, 1.0).latency_ms == one.p50_milliseconds
    with pytest.raises(ValueError, match=r"p50_ratio must be at least 1, not 0\.9"):
        dataclasses.replace(costs, p50_ratio=0.9)


@pytest.mark.parametrize(
    ("changes", "planned_bytes"),
    [
        ({"vocab_size": 39, "feature_normalization": "utterance"}, 1_077_072),
        ({"vocab_size": 512, "feature_normalization": "utterance"}, 3_072_064),
        ({"vocab_size": 11}, 993_072),
    ],
)
def test_the_planned_memory_is_that_of_programs_that_were_lowered(
    changes: dict, planned_bytes: int
) -> None:
    """By ExecuTorch 1.5.1, whatever the width and depth; a few scalars stand beside the tensors."""
    architecture = dataclasses.replace(STRIDED, feature_dim=80, **changes)
    assert 4 * planned_elements(architecture) == pytest.approx(planned_bytes, rel=5e-4)
