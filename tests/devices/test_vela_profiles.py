"""The shipped Ethos-U profiles against what Vela said of whole networks, recorded once.

Every entry of `vela.json` is a subnet of the shipped checkpoint's architecture that was lowered as
a whole: Vela 5.1.0, ExecuTorch 1.5.1, 2026-11-26, by `ortho_export.ethos_u`.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from ortho_edge.checkpoint import load_checkpoint, shipped_checkpoint
from ortho_edge.components import FRAMES_PER_SECOND
from ortho_edge.devices.catalogue import read_profile, shipped_folder
from ortho_edge.devices.latency import predict_footprint, predict_latency
from ortho_edge.fleet import Demand, select_for_all
from ortho_edge.subnet import Subnet
from tests.tolerances import tolerance

RECORDED: dict[str, dict[str, dict[str, Any]]] = json.loads(
    Path(__file__).with_name("vela.json").read_text("utf-8")
)
"""By device and name: components kept, frames, cycles, bytes of SRAM."""
CASES = [(device, name) for device, found in RECORDED.items() for name in found]
CHECKPOINT = load_checkpoint(shipped_checkpoint())
SPACE = CHECKPOINT.supernet.space


@pytest.mark.parametrize(("device", "name"), CASES)
def test_cycles_and_memory_of_a_whole_network_are_those_of_its_modules(
    device: str, name: str
) -> None:
    profile = read_profile(shipped_folder() / f"{device}.toml")
    stated = RECORDED[device][name]
    subnet, seconds = Subnet.of(len(SPACE), stated["kept"]), stated["frames"] / FRAMES_PER_SECOND
    latency = predict_latency(profile, SPACE, subnet, seconds, "ethos-u", "int8-static")
    speed = latency.assumed_speed
    assert speed is not None
    assert latency.milliseconds == pytest.approx(
        speed.milliseconds(stated["cycles"]), rel=tolerance("vela_cycles")["rtol"]
    )
    footprint = predict_footprint(profile, SPACE, subnet, seconds, "ethos-u", "int8-static")
    assert footprint.memory_mb * 1e6 == pytest.approx(
        stated["sram_bytes"], rel=tolerance("vela_cycles")["rtol"]
    )


@pytest.mark.parametrize("device", RECORDED)
@pytest.mark.parametrize("source", ["trained", "any"])
def test_a_subnet_is_selected_within_the_default_budget(device: str, source: str) -> None:
    profile = read_profile(shipped_folder() / f"{device}.toml")
    demand = Demand(profile=profile, budget=profile.budget)
    (selection,) = select_for_all([demand], CHECKPOINT, source)  # pyright: ignore[reportArgumentType]
    assert profile.budget.latency_ms is not None
    assert profile.budget.memory_mb is not None
    assert selection.chosen.latency_ms <= profile.budget.latency_ms
    assert selection.chosen.memory_mb <= profile.budget.memory_mb
