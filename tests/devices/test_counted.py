"""Profiles from instruction counts: what is exact, what is assumed, and that both are said."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
import torch

from ortho_edge import profile as command
from ortho_edge.checkpoint import Checkpoint, TrainedSubnet, load_checkpoint, shipped_checkpoint
from ortho_edge.cli import UserError
from ortho_edge.compaction import compact
from ortho_edge.components import ComponentSpace
from ortho_edge.conformer.architecture import Architecture, subsampled_length
from ortho_edge.devices.catalogue import load_profile, profile_text, read_profile
from ortho_edge.devices.counted import assumed_speed, count_device
from ortho_edge.devices.latency import (
    MEMORY_BASIS,
    Prediction,
    predict_footprint,
    predict_latency,
)
from ortho_edge.devices.profile import COUNTED, AssumedSpeed, DeviceProfile, Provenance
from ortho_edge.devices.profiler import Runtime
from ortho_edge.devices.workload import in_tiles, workload
from ortho_edge.precision import Precision
from ortho_edge.subnet import Subnet
from ortho_edge.supernet import Supernet
from tests.devices.recorded import RECORDED, random_subnets, recorded_profile, recorded_sizes

STRIDED = Architecture(
    vocab_size=7, dim=24, num_blocks=2, num_heads=4, head_dim=8, ffn_dim=96, kernel_size=5,
    front_end="strided", front_end_channels=(4, 6),
)  # fmt: skip
SPEED = AssumedSpeed(instructions_per_cycle=2.0, clock_ghz=2.5, source="a guess")


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(shipped_checkpoint())


@pytest.fixture(scope="module")
def profile(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> DeviceProfile:
    return recorded_profile(checkpoint, tmp_path_factory.mktemp("probes"), SPEED)


def predicted_count(
    profile: DeviceProfile,
    space: ComponentSpace,
    one: Subnet,
    s: float,
    precision: Precision = "fp32",
) -> float:
    speed = profile.runtimes["executorch"][precision].assumed_speed
    assert speed is not None
    milliseconds = predict_latency(profile, space, one, s, "executorch", precision).milliseconds
    return milliseconds / speed.milliseconds(1.0)


# 0.35 and 1.5 % at worst: half of fp32's contract tells a SiLU counted like any other element; in
# int8 rounding costs what the model has no term for.
@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 0.005), ("int8", 0.02)])
def test_counts_of_trained_sizes_and_random_subnets_are_predicted(
    precision: Precision, allowed: float, checkpoint: Checkpoint, profile: DeviceProfile
) -> None:
    """Recorded counts; of these networks the fit has seen the full one only."""
    space = checkpoint.supernet.space
    for name, subnet in (recorded_sizes(space) | random_subnets(space)).items():
        for seconds, count in RECORDED[precision][name].items():
            predicted = predicted_count(profile, space, subnet, float(seconds), precision)
            assert predicted == pytest.approx(count, rel=allowed), (name, seconds)


def test_the_tiles_of_the_kernels_are_found_in_the_counts(profile: DeviceProfile) -> None:
    assert profile.runtimes["executorch"]["fp32"].rows_at_once == 7


def test_a_counted_profile_says_what_is_counted_and_what_assumed(profile: DeviceProfile) -> None:
    costs = profile.runtimes["executorch"]["fp32"]
    assert costs.provenance == COUNTED == "instruction-count"
    assert costs.assumed_speed == SPEED
    assert "instructions of one inference counted by QEMU 1" in costs.source
    assert "timings" not in costs.source
    assert costs.error_percent is not None
    assert costs.error_percent < 1
    assert costs.memory.provenance == "analytic"
    assert profile.hardware.ram_gb is None
    assert profile.budget.memory_mb is None
    assert set(profile.runtimes) == {"executorch"}


def test_nobody_takes_an_assumed_time_for_a_measured_one(profile: DeviceProfile) -> None:
    space = ComponentSpace(STRIDED)
    one = predict_latency(profile, space, space.full(), 4.0, "executorch")
    assert one.provenance == COUNTED
    assert one.basis.startswith("not timed: instructions counted (error 0.")
    assert one.basis.endswith("at an assumed 2 per cycle and 2.5 GHz")
    assert "measured" not in one.basis + profile.description
    estimate = predict_latency(load_profile("pixel8"), space, space.full(), 4.0, "executorch")
    assert estimate.basis == "not timed: an analytic estimate"


def test_nobody_takes_the_cycles_of_vela_for_a_timing(profile: DeviceProfile) -> None:
    space = ComponentSpace(STRIDED)
    counted = profile.runtimes["executorch"]["fp32"]
    vela = dataclasses.replace(
        counted,
        provenance="vela",
        error_percent=0.5,
        memory=dataclasses.replace(counted.memory, provenance="vela"),
        assumed_speed=AssumedSpeed(clock_ghz=0.5, source="a data sheet"),
    )
    stated = dataclasses.replace(profile, runtimes={"executorch": {"fp32": vela}})
    one = predict_latency(stated, space, space.full(), 4.0, "executorch")
    assert one.basis == (
        "not timed: from Vela's cycles (error 0.5 % of the cycles), at an assumed 0.5 GHz"
    )
    memory = predict_footprint(stated, space, space.full(), 4.0, "executorch").memory_provenance
    assert MEMORY_BASIS[memory] == "not measured: as Vela allocates it"


@pytest.mark.parametrize("provenance", get_args(Provenance))
def test_only_what_was_measured_reads_like_a_measurement(provenance: Provenance) -> None:
    one = Prediction(
        milliseconds=1.0,
        seconds=1.0,
        runtime="executorch",
        provenance=provenance,
        source="",
        error_percent=1.0,
        assumed_speed=SPEED if provenance in ("instruction-count", "vela") else None,
    )
    is_measured = provenance == "measured"
    assert one.basis.startswith("from measured figures") == is_measured
    assert one.basis.startswith("not timed: ") != is_measured
    assert MEMORY_BASIS[provenance].startswith("not measured") != is_measured


def test_cycles_become_time_by_the_clock_alone() -> None:
    assert AssumedSpeed(clock_ghz=0.5, source="").milliseconds(3e6) == pytest.approx(6.0)
    assert SPEED.milliseconds(3e6) == pytest.approx(0.6)


def test_another_assumed_speed_scales_the_times_and_nothing_else(
    checkpoint: Checkpoint, profile: DeviceProfile, tmp_path: Path
) -> None:
    slow = dataclasses.replace(SPEED, instructions_per_cycle=0.5)
    other = recorded_profile(checkpoint, tmp_path, slow)
    space = checkpoint.supernet.space
    fast_ms, slow_ms = (
        predict_latency(one, space, space.full(), 3.0, "executorch").milliseconds
        for one in (profile, other)
    )
    assert slow_ms == pytest.approx(4 * fast_ms, rel=1e-4)
    assert predicted_count(other, space, space.full(), 3.0) == pytest.approx(
        predicted_count(profile, space, space.full(), 3.0), rel=1e-4
    )


def test_a_counted_profile_survives_its_file(profile: DeviceProfile, tmp_path: Path) -> None:
    path = tmp_path / "a76.toml"
    path.write_text(profile_text(profile), "utf-8")
    assert read_profile(path) == profile


def test_an_artefact_is_counted_at_every_length_and_no_count_is_lost(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    def export(checkpoint: Checkpoint, trained: TrainedSubnet, folder: Path) -> Path:
        (folder / "artefact").write_bytes(b"x")
        return folder / "artefact"

    def count(file: Path, lengths: Sequence[float]) -> list[int]:
        return [1000 for _ in lengths][1:]

    runtime = Runtime(name="executorch", version="1", export=export, load=lambda file: print)
    with pytest.raises(ValueError, match="zip"):
        count_device(
            checkpoint, [runtime], tmp_path, count, core="c", counted_by="none", speed=SPEED
        )


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("seconds", [0.33, 1.0, 2.8])
def test_linear_layers_are_padded_to_whole_tiles_and_nothing_else(
    rows: int, seconds: float
) -> None:
    """Against the layers of the compacted encoder, one multiply-accumulate per weight and row."""
    torch.manual_seed(0)
    supernet = Supernet(STRIDED).eval()
    space = supernet.space
    subnet = Subnet.of(len(space), range(0, len(space), 2))
    encoder = compact(supernet, subnet)
    weights = sum(
        one.weight.numel() for one in encoder.modules() if isinstance(one, torch.nn.Linear)
    )
    steps = subsampled_length(round(100 * seconds))
    padded = -(-steps // rows) * rows
    works = workload(space, subnet, seconds)
    tiled = in_tiles(works, seconds, rows)
    extra = sum(one.flops for one in tiled) - sum(one.flops for one in works)
    assert extra == pytest.approx(2 * (padded - steps) * weights)
    assert [dataclasses.replace(one, flops=0) for one in tiled] == [
        dataclasses.replace(one, flops=0) for one in works
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"assumed_speed": None}, "assumed_speed belongs to the provenances 'instruction-count'"),
        (
            {"provenance": "measured"},
            "assumed_speed belongs to the provenances 'instruction-count'",
        ),
        ({"error_percent": None}, "a table of provenance 'instruction-count' states error_percent"),
        ({"rows_at_once": 0}, "rows_at_once must be above 0"),
        ({"provenance": "vela"}, "instructions_per_cycle belongs to the provenance"),
        (
            {"assumed_speed": dataclasses.replace(SPEED, instructions_per_cycle=None)},
            "instructions_per_cycle belongs to the provenance 'instruction-count'",
        ),
    ],
)
def test_a_table_that_hides_what_its_times_rest_on_is_refused(
    changes: dict, message: str, profile: DeviceProfile
) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(profile.runtimes["executorch"]["fp32"], **changes)


def test_a_core_without_a_usual_speed_needs_one_from_the_user() -> None:
    assert assumed_speed("cortex-a76", None, None, None).clock_ghz == 2.4
    assert assumed_speed("cortex-a53", 1.0, 1.5, "a data sheet") == AssumedSpeed(
        instructions_per_cycle=1.0, clock_ghz=1.5, source="a data sheet"
    )
    with pytest.raises(UserError, match=r"how fast is cortex-a53\?"):
        assumed_speed("cortex-a53", None, None, None)
    with pytest.raises(UserError, match="belong together"):
        assumed_speed("cortex-a76", 1.0, 1.5, None)
    with pytest.raises(UserError, match="belong together"):
        assumed_speed("cortex-a76", None, 1.5, "a data sheet")
    with pytest.raises(UserError, match="clock_ghz must be above 0, not -1"):
        assumed_speed("cortex-a76", 1.0, -1.0, "a data sheet")


def test_every_precision_is_counted_and_gets_its_own_tile_height(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Counts made up from the workload: int8 multiplies a third of the instructions, in 4 rows."""
    rows = {"fp32": 7, "int8": 4}
    per_flop = {"fp32": 0.25, "int8": 0.08}
    known: dict[Path, tuple[ComponentSpace, Subnet, str]] = {}

    def runtime(precision: Precision) -> Runtime:
        def export(checkpoint: Checkpoint, trained: TrainedSubnet, folder: Path) -> Path:
            file = folder / "artefact"
            file.write_bytes(b"x")
            known[file] = (checkpoint.supernet.space, trained.subnet, precision)
            return file

        return Runtime(
            name="executorch",
            version="1",
            export=export,
            load=lambda file: print,
            precision=precision,
        )

    def instructions(space: ComponentSpace, one: Subnet, seconds: float, precision: str) -> int:
        works = in_tiles(workload(space, one, seconds), seconds, rows[precision])
        return round(
            sum(3e4 + per_flop[precision] * work.flops + work.activations for work in works)
        )

    def count(file: Path, lengths: Sequence[float]) -> list[int]:
        space, one, precision = known[file]
        return [instructions(space, one, seconds, precision) for seconds in lengths]

    profile = count_device(
        checkpoint, [runtime("fp32"), runtime("int8")], tmp_path, count,
        core="c", counted_by="none", speed=SPEED, peak_memory=lambda *measured: 10.0,
    )  # fmt: skip
    precisions = profile.runtimes["executorch"]
    assert {name: one.rows_at_once for name, one in precisions.items()} == rows
    space = checkpoint.supernet.space
    for precision in rows:
        for subnet in random_subnets(space).values():
            for seconds in (1.0, 3.0, 10.0):
                predicted = predict_latency(
                    profile, space, subnet, seconds, "executorch", precision
                ).milliseconds
                expected = SPEED.milliseconds(instructions(space, subnet, seconds, precision))
                assert predicted == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("other", [{}, {"on": "cortex-a76", "check": Path("a.pte")}])
def test_a_speed_is_refused_where_nothing_is_counted(other: dict) -> None:
    with pytest.raises(UserError, match="need --on CORE alone"):
        command.main(command.Arguments(clock_ghz=2.0, **other))
