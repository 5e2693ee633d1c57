"""The profiles that ship: complete, reachable, computed as documented, and plainly not measured."""

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ortho_edge.checkpoint import Checkpoint, load_checkpoint, shipped_checkpoint
from ortho_edge.components import ComponentSpace
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.devices.catalogue import known_devices, load_profile, read_profile, shipped_folder
from ortho_edge.devices.latency import MEMORY_BASIS, predict_footprint, predict_latency
from ortho_edge.devices.profile import COUNTED, KINDS, Core, DeviceProfile, Hardware, NumberFact
from ortho_edge.devices.roofline import LARGE, MEDIUM, SMALL, analytic_runtimes
from ortho_edge.devices.shipped import COUNTS, OVERHEADS, computed, cores_folder, file_text
from ortho_edge.devices.workload import BYTES, workload
from ortho_edge.selector import select
from tests.devices.recorded import recorded_profile

SHIPPED = sorted(path.stem for path in shipped_folder().glob("*.toml"))
WANTED = {
    "pixel8", "galaxy-s24", "galaxy-a54", "galaxy-a12", "iphone15", "raspberrypi5",
    "raspberrypi-zero2w", "jetson-orin-nano", "x86-laptop", "browser-wasm",
}  # fmt: skip
SECONDS = 5.0
TINY = Architecture(
    vocab_size=7, dim=24, num_blocks=2, num_heads=3, head_dim=8, ffn_dim=40, num_ffn_chunks=5,
    kernel_size=7, front_end="strided", front_end_channels=(4, 6),
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(shipped_checkpoint())


@pytest.fixture(scope="module")
def space(checkpoint: Checkpoint) -> ComponentSpace:
    return checkpoint.supernet.space


def with_hardware(profile: DeviceProfile, hardware: Hardware) -> DeviceProfile:
    return dataclasses.replace(
        profile, hardware=hardware, runtimes=analytic_runtimes(hardware, MEDIUM)
    )


def board(
    clock_ghz: float = 2.0, flops_per_cycle: float = 16.0, bandwidth: float = 20.0,
    dot_product: str = "sdot",
) -> DeviceProfile:  # fmt: skip
    """A made-up device."""
    core = Core(
        name="core", count=1, source="made up", clock_ghz=clock_ghz,
        flops_per_cycle=flops_per_cycle, dot_product=dot_product,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    profile = load_profile("pixel8")
    return with_hardware(
        profile,
        dataclasses.replace(
            profile.hardware,
            runs_on="core",
            cores=(core,),
            bandwidth_gb_per_s=NumberFact(value=bandwidth, source="made up"),
        ),
    )


def milliseconds(
    profile: DeviceProfile, space: ComponentSpace, precision: str = "fp32"
) -> dict[str, float]:
    return {
        runtime: predict_latency(
            profile, space, space.full(), SECONDS, runtime, precision
        ).milliseconds
        for runtime in profile.runtimes
    }


def test_the_promised_devices_ship() -> None:
    assert set(SHIPPED) >= WANTED
    assert set(OVERHEADS) == WANTED


@pytest.mark.parametrize("device", sorted(WANTED))
def test_every_profile_has_all_kinds_and_a_budget_for_five_seconds(device: str) -> None:
    profile = load_profile(device)
    for precisions in profile.runtimes.values():
        for costs in precisions.values():
            assert set(costs.modules) == set(KINDS)
    budget = profile.budget
    assert budget.audio_seconds == SECONDS
    for limit in (budget.latency_ms, budget.memory_mb, budget.size_mb):
        assert limit is not None
        assert math.isfinite(limit)
    assert len(budget.reason) > 20


@pytest.mark.parametrize("device", sorted(WANTED))
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_default_budget_is_reachable_by_the_shipped_checkpoint(
    device: str, precision: str, checkpoint: Checkpoint
) -> None:
    profile = load_profile(device)
    chosen = select(profile, profile.budget, checkpoint, None, precision).chosen
    assert {one.precision for one in chosen.latency} == {precision}
    assert all(one.basis.startswith("not timed: ") for one in chosen.latency)
    assert chosen.memory_basis == MEMORY_BASIS["analytic"]


@pytest.mark.parametrize("device", sorted(WANTED))
def test_the_files_are_what_make_profiles_writes(device: str) -> None:
    path = shipped_folder() / f"{device}.toml"
    assert path.read_text("utf-8") == file_text(computed(read_profile(path)))


@pytest.mark.parametrize("device", SHIPPED)
def test_the_documentation_lists_the_device(device: str, repository: Path) -> None:
    page = (repository / "docs" / "devices.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", page, re.MULTILINE)
    assert rows.count(device) == 2, "among the devices and among the budgets"
    assert device in known_devices()


@pytest.mark.parametrize("device", sorted(WANTED - set(COUNTS)))
@pytest.mark.parametrize("runtime", ["executorch", "onnxruntime"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_roofline_is_the_documented_formula(
    device: str, runtime: str, precision: str, space: ComponentSpace
) -> None:
    """Recomputed in float64 from the facts alone, term by term."""
    profile = load_profile(device)
    core, bandwidth = profile.hardware.core, profile.hardware.bandwidth_gb_per_s
    assert bandwidth is not None
    assert core.clock_ghz is not None
    assert core.flops_per_cycle is not None
    calls, copies = {"executorch": (1.0, 1.0), "onnxruntime": (1.5, 1.3)}[runtime]
    kilocycles = {"LARGE": (43.5, 277), "MEDIUM": (72, 573), "SMALL": (120, 1146)}
    names = {id(LARGE): "LARGE", id(MEDIUM): "MEDIUM", id(SMALL): "SMALL"}
    per_call, per_mb = kilocycles.get(names.get(id(OVERHEADS[device]), ""), (65, 415))
    peak = core.clock_ghz * core.flops_per_cycle
    shares = {"front_end": 0.4, "ffn": 0.65, "conv": 0.5, "mhsa": 0.5, "ctc_head": 0.65}
    quick = {"ffn": 1.0, "conv": 0.95, "mhsa": 0.75, "ctc_head": 1.0}
    gain = 1.0 if core.dot_product == "none" else 2.7
    total = np.float64(0)
    for work in workload(space, space.full(), SECONDS):
        share = quick.get(work.kind, 0.0) if precision == "int8" else 0.0
        total += calls * per_call / core.clock_ghz * (0.2 if work.kind == "norm" else 1.0)
        if work.kind in shares:
            slow = work.flops / 1e3 / (shares[work.kind] * peak)
            total += slow * (share / gain + (1 - share))
        quarter = 0.25 if share else 1.0
        total += quarter * work.params * BYTES / 1e3 / (0.35 * bandwidth.value)
        total += copies * per_mb / core.clock_ghz * work.activations * BYTES / 1e6
    predicted = predict_latency(profile, space, space.full(), SECONDS, runtime, precision)
    assert predicted.milliseconds == pytest.approx(total / 1000, rel=1e-5)


@settings(deadline=None)
@given(st.floats(0.5, 5.0), st.floats(1.01, 3.0))
def test_a_faster_core_and_a_wider_memory_predict_lower_latency(clock: float, more: float) -> None:
    space = ComponentSpace(TINY)
    slow = milliseconds(board(clock_ghz=clock), space)
    for faster in (
        board(clock_ghz=clock * more),
        board(clock_ghz=clock, flops_per_cycle=16 * more),
        board(clock_ghz=clock, bandwidth=20 * more),
    ):
        quick = milliseconds(faster, space)
        assert all(quick[runtime] < slow[runtime] for runtime in slow)


def test_int8_is_faster_by_dot_products_alone(space: ComponentSpace) -> None:
    for dot_product, at_least, at_most in (("none", 0.97, 1.0), ("sdot", 0.5, 0.75)):
        profile = board(dot_product=dot_product)
        plain, int8 = (milliseconds(profile, space, one) for one in ("fp32", "int8"))
        for runtime in plain:
            assert at_least <= int8[runtime] / plain[runtime] <= at_most


@pytest.mark.parametrize("device", sorted(WANTED))
def test_an_int8_file_is_predicted_smaller(device: str, space: ComponentSpace) -> None:
    profile = load_profile(device)
    for runtime in profile.runtimes:
        plain, int8 = (
            predict_footprint(profile, space, space.full(), SECONDS, runtime, one)
            for one in ("fp32", "int8")
        )
        assert 2.5 * int8.size_mb < plain.size_mb
        assert int8.memory_mb <= plain.memory_mb


def test_a_roofline_without_its_figures_is_refused() -> None:
    profile = load_profile("pixel8")
    blind = dataclasses.replace(profile.hardware, runs_on="Cortex-A510")
    with pytest.raises(ValueError, match="the roofline of Cortex-A510 needs clock_ghz"):
        analytic_runtimes(blind, LARGE)


def test_the_counted_tables_are_those_of_the_recorded_counts(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """What ships for a core, fitted again to its counts."""
    shipped = read_profile(cores_folder() / "cortex-a76.toml")
    tables = shipped.runtimes["executorch"]
    speed = tables["fp32"].assumed_speed
    assert speed is not None
    fitted = recorded_profile(checkpoint, tmp_path, speed)
    assert set(tables) == set(fitted.runtimes["executorch"]) == {"fp32", "int8"}
    space = checkpoint.supernet.space
    for precision, again in fitted.runtimes["executorch"].items():
        assert again.rows_at_once == tables[precision].rows_at_once
        for one in (*(one.subnet for one in checkpoint.subnets), space.full()):
            for seconds in (1.0, 3.0, 10.0):
                old, new = (
                    predict_latency(
                        profile, space, one, seconds, "executorch", precision
                    ).milliseconds
                    for profile in (shipped, fitted)
                )
                assert new == pytest.approx(old, rel=1e-4)


@pytest.mark.parametrize("device", sorted(COUNTS))
def test_counted_devices_differ_by_their_assumed_speed_alone(
    device: str, space: ComponentSpace
) -> None:
    counted = read_profile(cores_folder() / f"{COUNTS[device].core}.toml")
    profile = load_profile(device)
    found = {}
    for precision in ("fp32", "int8"):
        there = predict_latency(counted, space, space.full(), SECONDS, "executorch", precision)
        here = predict_latency(profile, space, space.full(), SECONDS, "executorch", precision)
        found[precision] = here.milliseconds
        if precision not in COUNTS[device].precisions:
            assert here.provenance == "analytic"
            continue
        assert there.assumed_speed is not None
        assert here.provenance == COUNTED
        assert here.assumed_speed == COUNTS[device].speed
        slower = COUNTS[device].speed.milliseconds(1.0) / there.assumed_speed.milliseconds(1.0)
        assert here.milliseconds / there.milliseconds == pytest.approx(slower, rel=1e-4)
    assert found["int8"] <= found["fp32"]


def test_programs_in_int8_are_taken_over_by_cores_with_dot_products_alone() -> None:
    for device, counts in COUNTS.items():
        has_dot_products = load_profile(device).hardware.core.dot_product == "sdot"
        assert ("int8" in counts.precisions) == has_dot_products
