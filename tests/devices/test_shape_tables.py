"""Costs by lookup: sums of cycles, the largest memory, and nothing where nobody looked."""

import dataclasses
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ortho_edge.cli import UserError
from ortho_edge.components import ComponentSpace
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.devices.catalogue import profile_text, read_profile
from ortho_edge.devices.costs import latency_costs, memory_costs, size_costs
from ortho_edge.devices.latency import predict_footprint, predict_latency
from ortho_edge.devices.profile import (
    KINDS,
    SCHEMA_VERSION,
    VELA,
    AssumedSpeed,
    Core,
    DefaultBudget,
    DeviceProfile,
    Hardware,
    MemoryCost,
    RuntimeCost,
    SizeCost,
    TextFact,
)
from ortho_edge.devices.shape_tables import ModuleTable, ShapeTables, shape_of
from ortho_edge.subnet import Subnet

ARCHITECTURE = Architecture(
    vocab_size=7, dim=32, num_blocks=2, num_heads=3, head_dim=8, ffn_dim=64, kernel_size=5,
    front_end="strided", front_end_channels=(4, 6), front_end_chunks=3,
)  # fmt: skip
SPACE = ComponentSpace(ARCHITECTURE)
TABLE = "[runtimes.ethos-u.int8-static]\n"
ROWS = {"front_end": 3, "ffn": 4, "conv": 1, "mhsa": 3, "norm": 1, "ctc_head": 1}


def table(kind: str) -> ModuleTable:
    """Odd numbers: every kind, number of units and length has its own."""
    base = 100 * (KINDS.index(kind) + 1)  # pyright: ignore[reportArgumentType]
    rows = [
        tuple(base * units + 7.0 * units * units + 1000 * column for column in (1, 3, 10))
        for units in range(1, ROWS[kind] + 1)
    ]
    return ModuleTable(
        cycles=tuple(rows),
        sram_kb=tuple(tuple(one / 16 for one in row) for row in rows),
        file_kb=tuple(tuple(one / 8 for one in row) for row in rows),
    )


TABLES = ShapeTables(
    shape=shape_of(ARCHITECTURE),
    audio_seconds=(1.0, 3.0, 10.0),
    modules={kind: table(kind) for kind in KINDS},
)


def profile(tables: ShapeTables = TABLES) -> DeviceProfile:
    costs = RuntimeCost(
        provenance=VELA,
        source="made up",
        tables=tables,
        memory=MemoryCost(
            provenance=VELA, source="made up", fixed_mb=0.5, weight_copies=0, activation_copies=0
        ),
        size=SizeCost(
            provenance="measured", source="made up", bytes_per_parameter=1, fixed_kb=3
        ),
        error_percent=0.0,
        assumed_speed=AssumedSpeed(clock_ghz=0.25, source="made up"),
    )  # fmt: skip
    return DeviceProfile(
        schema_version=SCHEMA_VERSION,
        name="npu",
        description="made up",
        hardware=Hardware(
            soc=TextFact(value="made up", source="made up"),
            runs_on="npu",
            cores=(Core(name="npu", count=1, source="made up"),),
        ),
        budget=DefaultBudget(reason="made up"),
        runtimes={"ethos-u": {"int8-static": costs}},
    )


def subnets() -> st.SearchStrategy[Subnet]:
    return st.sets(st.integers(0, len(SPACE) - 1)).map(lambda kept: Subnet.of(len(SPACE), kept))


def by_hand(subnet: Subnet, column: int) -> tuple[float, float]:
    """Cycles and the largest memory, without a table."""
    chunks = len(set(range(len(SPACE) - 2, len(SPACE))) & set(subnet.kept))
    counts = [("front_end", 1 + chunks), ("norm", 1), ("norm", 1), ("ctc_head", 1)]
    kinds = {"ffn1": "ffn", "ffn2": "ffn", "conv": "conv", "mhsa": "mhsa"}
    for block in range(ARCHITECTURE.num_blocks):
        for module, kind in kinds.items():
            inside = range(len(SPACE))[SPACE.module_slice(block, module)]  # pyright: ignore[reportArgumentType]
            if units := len(set(inside) & set(subnet.kept)):
                counts.append((kind, units))
    costs = [
        100 * (KINDS.index(kind) + 1) * units + 7 * units * units + 1000 * column  # pyright: ignore[reportArgumentType]
        for kind, units in counts
    ]
    return sum(costs), max(costs) / 16


@settings(deadline=None, max_examples=30)
@given(subnets(), st.sampled_from([(1.0, 1), (3.0, 3), (10.0, 10)]))
def test_a_network_costs_the_sum_of_its_modules_and_the_memory_of_the_largest(
    subnet: Subnet, length: tuple[float, int]
) -> None:
    seconds, column = length
    cycles, sram_kb = by_hand(subnet, column)
    one = predict_latency(profile(), SPACE, subnet, seconds, "ethos-u", "int8-static")
    assert one.milliseconds == pytest.approx(cycles / 0.25e6)
    assert one.basis.startswith("not timed: from Vela's cycles")
    assert one.basis.endswith("at an assumed 0.25 GHz")
    found = predict_footprint(profile(), SPACE, subnet, seconds, "ethos-u", "int8-static")
    assert found.memory_mb == pytest.approx(0.5 + sram_kb / 1e3)
    params = SPACE.cost(subnet, "params")
    assert found.size_mb == pytest.approx((3 + cycles / 8 + params / 1e3) / 1e3)


@settings(deadline=None, max_examples=30)
@given(subnets(), st.floats(1, 10))
def test_what_composition_minimises_is_what_is_predicted(subnet: Subnet, seconds: float) -> None:
    device = profile()
    latency = latency_costs(device, SPACE, seconds, (), "int8-static").cost(subnet)
    one = predict_latency(device, SPACE, subnet, seconds, "ethos-u", "int8-static")
    assert latency == pytest.approx(one.milliseconds)
    memory = memory_costs(device, SPACE, seconds, (), "int8-static").cost(subnet)
    footprint = predict_footprint(device, SPACE, subnet, seconds, "ethos-u", "int8-static")
    assert memory == pytest.approx(footprint.memory_mb)
    size = size_costs(device, SPACE, (), "int8-static", seconds).cost(subnet)
    assert size == pytest.approx(footprint.size_mb)


def test_between_two_lengths_the_straight_line_counts() -> None:
    assert TABLES.cycles([("conv", 1)], 2.0) == pytest.approx(307 + 2000)
    assert TABLES.sram_kb([("conv", 1)], 6.5) == pytest.approx((307 + 6500) / 16)


def test_the_one_precision_of_a_device_stands_for_every_other() -> None:
    one = predict_footprint(profile(), SPACE, SPACE.full(), 1.0, "ethos-u", "int8-static")
    assert memory_costs(profile(), SPACE, 1.0).cost(SPACE.full()) == pytest.approx(one.memory_mb)


@pytest.mark.parametrize("seconds", [0.99, 10.5])
def test_a_length_outside_the_tables_has_no_figures(seconds: float) -> None:
    message = rf"'npu' has figures for 1 to 10 s of audio, not for {seconds:g} s"
    with pytest.raises(UserError, match=message):
        predict_latency(profile(), SPACE, SPACE.full(), seconds, "ethos-u", "int8-static")
    with pytest.raises(UserError, match=message):
        predict_footprint(profile(), SPACE, SPACE.full(), seconds, "ethos-u", "int8-static")


@pytest.mark.parametrize("change", [
    {"dim": 40}, {"head_dim": 16}, {"ffn_dim": 96}, {"kernel_size": 7}, {"vocab_size": 8},
    {"front_end_channels": (4, 9)}, {"front_end": "vgg", "front_end_channels": (4, 6, 6, 6)},
    {"front_end_chunks": 1}, {"front_end_chunks": 2},
])  # fmt: skip
def test_another_architecture_has_no_figures(change: dict[str, int]) -> None:
    space = ComponentSpace(dataclasses.replace(ARCHITECTURE, **change))
    with pytest.raises(UserError, match=r"profile --on npu --checkpoint DIR"):
        predict_latency(profile(), space, space.full(), 1.0, "ethos-u", "int8-static")


def test_a_front_end_of_as_many_channels_that_is_not_elastic_is_another_architecture() -> None:
    plain = dataclasses.replace(ARCHITECTURE, front_end_chunks=1)
    tables = dataclasses.replace(TABLES, shape=shape_of(plain))
    with pytest.raises(UserError) as caught:
        predict_latency(profile(tables), SPACE, SPACE.full(), 1.0, "ethos-u", "int8-static")
    message = str(caught.value)
    assert "has figures for dim 32" in message
    assert "front end of 4-6 channels on 80 bins, not for" in message
    assert "front end of 4-6 channels in 3 chunks on 80 bins; make a profile" in message
    assert "\n" not in message


def test_more_blocks_of_the_same_shape_have_figures() -> None:
    space = ComponentSpace(dataclasses.replace(ARCHITECTURE, num_blocks=3))
    deeper = predict_latency(profile(), space, space.full(), 1.0, "ethos-u", "int8-static")
    assert deeper.milliseconds > by_hand(SPACE.full(), 1)[0] / 0.25e6


def test_a_profile_with_tables_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "npu.toml"
    path.write_text(profile_text(profile()), "utf-8")
    assert read_profile(path) == profile()
    content = tomllib.loads(path.read_text("utf-8"))
    stated = content["runtimes"]["ethos-u"]["int8-static"]["tables"]["modules"]["mhsa"]["cycles"]
    np.testing.assert_array_equal(stated, TABLES.modules["mhsa"].cycles)


@pytest.mark.parametrize(("before", "after", "message"), [
    ("audio_seconds = [1.0, 3.0, 10.0]", "audio_seconds = [1.0, 10.0, 3.0]", "must rise"),
    ("audio_seconds = [1.0, 3.0, 10.0]", "audio_seconds = [1.0, 3.0]", "holds 2 numbers"),
    ("audio_seconds = [1.0, 3.0, 10.0]", "audio_seconds = [0.0, 3.0, 10.0]", "from above 0"),
    ("audio_seconds = [1.0, 3.0, 10.0]", "audio_seconds = []", "must rise"),
    ("cycles = [[1107.0,", "cycles = [[-1.0,", "numbers from 0 to"),
    ("cycles = [[1107.0,", "cycles = [[inf,", "numbers from 0 to"),
    ("cycles = [[1107.0,", "cycles = [[1e308,", "numbers from 0 to"),
    (".modules.norm]", ".modules.gru]", "unknown module kind 'gru'"),
    (f'{TABLE}provenance = "vela"', f'{TABLE}provenance = "analytic"', "tables belong"),
])  # fmt: skip
def test_broken_tables_are_refused_with_one_line(
    before: str, after: str, message: str, tmp_path: Path
) -> None:
    text = profile_text(profile())
    assert before in text
    path = tmp_path / "npu.toml"
    path.write_text(text.replace(before, after), "utf-8")
    with pytest.raises(UserError, match=message) as caught:
        read_profile(path)
    assert "\n" not in str(caught.value)
