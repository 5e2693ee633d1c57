"""Filter banks inside an artefact: their work against torch, and that every prediction has them."""

import math

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ortho_edge.checkpoint import Checkpoint, load_checkpoint, shipped_checkpoint
from ortho_edge.cli import UserError
from ortho_edge.devices.catalogue import load_profile, shipped_folder
from ortho_edge.devices.costs import budget_costs
from ortho_edge.devices.filter_banks import (
    BASIS,
    FILTERS,
    Input,
    file_bytes,
    filter_bank_work,
)
from ortho_edge.devices.latency import predict_footprint, predict_latency
from ortho_edge.devices.profile import Budget
from ortho_edge.selector import select
from ortho_edge.subnet import Subnet
from ortho_export.audio import LogMel
from tests.tolerances import tolerance

TABLES_ONLY = ("ethos-u55-128", "ethos-u85-256")
DEVICES = sorted({one.stem for one in shipped_folder().glob("*.toml")} - set(TABLES_ONLY))
PRECISIONS = ("fp32", "int8")


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(shipped_checkpoint())


@pytest.mark.parametrize("seconds", [0.5, 1.0, 5.0])
def test_their_work_is_what_torch_counts(seconds: float) -> None:
    module = LogMel()
    frames = round(100 * seconds)
    counter = FlopCounterMode(display=False)
    with counter:
        module(torch.zeros(1, 160 * frames + 240))
    work = filter_bank_work(seconds)
    assert work.flops == counter.get_total_flops()
    assert work.params == sum(one.numel() for one in module.buffers()) == BASIS + FILTERS


WRITTEN = {
    ("onnxruntime", "fp32"): (1_160_442, 2_100_803),
    ("onnxruntime", "int8"): (323_232, 1_257_671),
    ("executorch", "fp32"): (1_163_676, 2_104_348),
    ("executorch", "int8"): (328_592, 880_160),
}
"""Bytes of s015 with features and with audio as input, 2026-12-01."""


@pytest.mark.parametrize("key", WRITTEN)
def test_files_grow_by_the_filter_banks(key: tuple[str, str]) -> None:
    features, audio = WRITTEN[key]
    assert file_bytes(*key) == pytest.approx(audio - features, rel=tolerance("file_size")["rtol"])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_artefact_of_audio_costs_more_whatever_the_subnet(
    device: str, precision: str, checkpoint: Checkpoint
) -> None:
    profile, space = load_profile(device), checkpoint.supernet.space
    for runtime, figures in profile.runtimes.items():
        if precision not in figures:
            continue
        more = []
        for subnet in (space.full(), Subnet.of(len(space), (3, 7, 20))):
            asked = profile, space, subnet, 5.0, runtime, precision
            times = [predict_latency(*asked, one) for one in INPUTS]
            prints = [predict_footprint(*asked, one) for one in INPUTS]
            assert times[1].takes == "audio"
            assert times[1].basis.startswith("filter banks included (")
            more.append(times[1].milliseconds - times[0].milliseconds)
            assert more[-1] == pytest.approx(times[1].filter_banks_ms)
            assert prints[1].size_mb - prints[0].size_mb > 0.4
            assert prints[1].memory_mb > prints[0].memory_mb
            assert prints[1].planned_mb >= prints[0].planned_mb
        assert more[0] == pytest.approx(more[1])
        assert more[0] > 0


INPUTS: tuple[Input, Input] = ("features", "audio")


@pytest.mark.parametrize("device", TABLES_ONLY)
def test_a_device_of_features_alone_says_so(device: str, checkpoint: Checkpoint) -> None:
    profile = load_profile(device)
    with pytest.raises(UserError, match=f"device '{device}' takes features alone, not audio"):
        select(profile, profile.budget, checkpoint, None, "int8", "audio")


def test_precisions_without_artefacts_of_audio_are_named(checkpoint: Checkpoint) -> None:
    profile = load_profile("pixel8")
    with pytest.raises(UserError, match="input audio goes with fp32, int8"):
        select(profile, profile.budget, checkpoint, ["onnxruntime"], "fp16", "audio")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_limits_for_composition_are_the_predictions(precision: str, checkpoint: Checkpoint) -> None:
    profile, space = load_profile("pixel8"), checkpoint.supernet.space
    budget = Budget(latency_ms=9.0, memory_mb=64.0, size_mb=9.0, flops=1e9, audio_seconds=5.0)
    names = ("executorch", "onnxruntime")
    (latency, _), (memory, _), (size, _), (flops, _) = budget_costs(
        profile, budget, space, names, precision, "audio"
    )
    rng = np.random.default_rng(0)
    for _ in range(10):
        subnet = Subnet.of(len(space), np.flatnonzero(rng.random(len(space)) < 0.4).tolist())
        times = [
            predict_latency(profile, space, subnet, 5.0, name, precision, "audio").p50_milliseconds
            for name in names
        ]
        prints = [
            predict_footprint(profile, space, subnet, 5.0, name, precision, "audio")
            for name in names
        ]
        assert latency.cost(subnet) == pytest.approx(max(times))
        assert flops.cost(subnet) == pytest.approx(233_280_000 + space.flops(subnet, 5.0))
        assert size.cost(subnet) == pytest.approx(max(one.size_mb for one in prints))
        assert memory.cost(subnet) == pytest.approx(max(one.memory_mb for one in prints))


def within(value: float, limit: float | None) -> bool:
    return limit is None or value <= limit


def _drawn(rng: np.random.Generator) -> Budget:
    def limit(low: float, high: float) -> float:
        value = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        return value if rng.random() < 0.5 else math.inf

    return Budget(
        latency_ms=limit(0.3, 300), memory_mb=limit(2, 100), size_mb=limit(0.3, 20),
        params=limit(1e5, 3e6), flops=limit(3e7, 2e9), audio_seconds=float(rng.uniform(1, 10)),
    )  # fmt: skip


def test_of_a_thousand_random_requests_none_is_answered_above_a_limit(
    checkpoint: Checkpoint,
) -> None:
    rng, space = np.random.default_rng(7), checkpoint.supernet.space
    profiles = {name: load_profile(name) for name in DEVICES}
    chosen, refusals = 0, []
    for _ in range(1000):
        profile = profiles[str(rng.choice(DEVICES))]
        budget, takes = _drawn(rng), INPUTS[int(rng.integers(2))]
        precision = str(rng.choice(PRECISIONS))
        runtimes = [str(one) for one in profile.runtimes if rng.random() < 0.7] or None
        try:
            selection = select(profile, budget, checkpoint, runtimes, precision, takes)
        except UserError as error:
            refusals.append(str(error))
            continue
        chosen += 1
        subnet, seconds = selection.trained.subnet, budget.audio_seconds
        for runtime in runtimes or profile.runtimes:
            footprint = predict_footprint(
                profile, space, subnet, seconds, runtime, precision, takes
            )
            assert within(footprint.size_mb, budget.size_mb)
            assert within(footprint.memory_mb, budget.memory_mb)
        for one in selection.chosen.latency:
            assert one.takes == takes
            assert within(one.p50_milliseconds, budget.latency_ms)
        assert within(space.cost(subnet, "params"), budget.params)
        before = filter_bank_work(seconds).flops if takes == "audio" else 0.0
        flops = before + space.flops(subnet, seconds)
        assert selection.chosen.flops == pytest.approx(flops)
        assert within(flops, budget.flops)
    assert all("no trained subnet fits the budget" in one for one in refusals)
    assert 200 < chosen < 900
