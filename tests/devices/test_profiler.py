import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ortho_edge.checkpoint import Checkpoint, TrainedSubnet
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.devices.catalogue import profile_text, read_profile
from ortho_edge.devices.fit import Observation, fit_error, fit_modules, fit_scale
from ortho_edge.devices.footprint import WARM_UP_PROBE
from ortho_edge.devices.host import host_hardware
from ortho_edge.devices.latency import predict_footprint, predict_latency
from ortho_edge.devices.memory import can_measure, peak_memories_mb, peak_memory_mb
from ortho_edge.devices.probes import HELD_OUT_SHARES, probes
from ortho_edge.devices.profile import KINDS, DeviceProfile, Kind, ModuleCost
from ortho_edge.devices.profiler import LENGTHS, Runtime, export_probes, measure_host
from ortho_edge.devices.workload import workload
from ortho_edge.subnet import Subnet
from ortho_edge.supernet import Supernet
from ortho_edge.tokens import BLANK, Tokens
from tests.devices.plain_runtime import export_or_interrupt, load_bytes

ARCHITECTURE = Architecture(
    vocab_size=5, dim=16, num_blocks=3, num_heads=4, head_dim=8, ffn_dim=64, kernel_size=3,
    front_end="strided", front_end_channels=(4, 4),
)  # fmt: skip
TRUTH: dict[Kind, ModuleCost] = {
    "front_end": ModuleCost(us_per_call=20, us_per_mflop=30, us_per_activation_mb=100),
    "ffn": ModuleCost(us_per_call=5, us_per_mflop=20, us_per_weight_mb=60),
    "conv": ModuleCost(us_per_call=9, us_per_mflop=40, us_per_activation_mb=300),
    "mhsa": ModuleCost(us_per_call=15, us_per_mflop=25, us_per_activation_mb=200),
    "norm": ModuleCost(us_per_call=2, us_per_activation_mb=150),
    "ctc_head": ModuleCost(us_per_call=3, us_per_mflop=20),
}


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    symbols = (BLANK, "a", "b", "c", "d")
    return Checkpoint(supernet=Supernet(ARCHITECTURE), tokens=Tokens(symbols), subnets=())


def true_microseconds(checkpoint: Checkpoint, subnet: Subnet, seconds: float) -> float:
    """What `TRUTH` says, written out anew."""
    total = 0.0
    for work in workload(checkpoint.supernet.space, subnet, seconds):
        cost = TRUTH[work.kind]
        total += cost.us_per_call + cost.us_per_mflop * work.flops * 1e-6
        total += 4e-6 * cost.us_per_weight_mb * work.params
        total += 4e-6 * cost.us_per_activation_mb * work.activations
    return total


def observe(checkpoint: Checkpoint, noise: float, seed: int) -> dict[bool, list[Observation]]:
    """Observations of the probes, by whether they are held out."""
    generator = np.random.default_rng(seed)
    made: dict[bool, list[Observation]] = {False: [], True: []}
    for probe in probes(checkpoint, seed=3):
        for seconds in LENGTHS:
            truth = true_microseconds(probe.checkpoint, probe.trained.subnet, seconds)
            works = workload(probe.checkpoint.supernet.space, probe.trained.subnet, seconds)
            made[probe.held_out].append(
                Observation(
                    works=works,
                    milliseconds=truth / 1000 * (1 + noise * generator.standard_normal()),
                )
            )
    return made


@pytest.mark.parametrize(("noise", "percent"), [(0.0, 1.5), (0.03, 4.0)])
def test_a_fit_predicts_networks_that_it_has_not_seen(
    checkpoint: Checkpoint, noise: float, percent: float
) -> None:
    observations = observe(checkpoint, noise, seed=1)
    modules = fit_modules(observations[False])
    assert set(modules) == set(KINDS)
    exact = observe(checkpoint, 0.0, seed=1)[True]
    error = fit_error(modules, 1.0, exact)
    assert error.mean_percent <= error.worst_percent < percent


def test_a_fit_carries_over_to_another_architecture(checkpoint: Checkpoint) -> None:
    modules = fit_modules(observe(checkpoint, 0.0, seed=1)[False])
    architecture = dataclasses.replace(
        ARCHITECTURE, dim=24, num_blocks=5, ffn_dim=96, vocab_size=30
    )
    other = dataclasses.replace(checkpoint, supernet=Supernet(architecture))
    space = other.supernet.space
    full = [
        Observation(
            works=workload(space, space.full(), seconds),
            milliseconds=true_microseconds(other, space.full(), seconds) / 1000,
        )
        for seconds in LENGTHS
    ]
    assert fit_error(modules, 1.0, full).worst_percent < 5


def test_the_scale_and_the_error_are_those_of_the_observations(checkpoint: Checkpoint) -> None:
    modules = dict(TRUTH)
    exact = observe(checkpoint, 0.0, seed=1)[True]
    slower = [dataclasses.replace(one, milliseconds=1.2 * one.milliseconds) for one in exact]
    assert fit_scale(modules, slower) == pytest.approx((1.2, 0), abs=1e-6)
    later = [
        dataclasses.replace(one, milliseconds=1.1 * one.milliseconds + 0.004 * len(one.works))
        for one in exact
    ]
    assert fit_scale(modules, later) == pytest.approx((1.1, 4), rel=1e-3)
    assert fit_error(modules, 1.1, later, 4).worst_percent == pytest.approx(0, abs=1e-9)
    assert fit_error(modules, 1.2, slower).worst_percent == pytest.approx(0, abs=1e-9)
    error = fit_error(modules, 1.0, slower)
    assert error.mean_percent == pytest.approx(100 / 6)
    assert error.worst_percent == pytest.approx(100 / 6)


def test_probes_hold_out_whole_networks_that_differ_from_the_fitted_ones(
    checkpoint: Checkpoint,
) -> None:
    made = probes(checkpoint, seed=0)
    names = [probe.trained.name for probe in made]
    assert len(set(names)) == len(names)
    held_out = [probe for probe in made if probe.held_out]
    fitted = {probe.trained.subnet for probe in made if not probe.held_out}
    assert len(held_out) == len(HELD_OUT_SHARES)
    assert not fitted & {probe.trained.subnet for probe in held_out}
    assert all(probe.whole and probe.checkpoint is checkpoint for probe in held_out)
    again = probes(checkpoint, seed=0)
    assert [probe.trained for probe in again] == [probe.trained for probe in made]
    other = probes(checkpoint, seed=1)
    assert [probe.trained for probe in other] != [probe.trained for probe in made]


class FakeRuntime:
    """Takes the time, the bytes and the memory that a formula says, and no more."""

    FIXED_BYTES, MODULE_BYTES = 5000, 700

    def __init__(self, slowness: float = 1.0) -> None:
        self.now = 0.0
        self.slowness = slowness
        self.known: dict[Path, tuple[Checkpoint, Subnet]] = {}

    def clock(self) -> float:
        return self.now

    def export(self, checkpoint: Checkpoint, trained: TrainedSubnet, folder: Path) -> Path:
        assert not list(folder.iterdir())
        file = folder / "artefact"
        works = workload(checkpoint.supernet.space, trained.subnet, 1.0)
        parameters = round(sum(work.params for work in works))
        file.write_bytes(bytes(4 * parameters + self.FIXED_BYTES + self.MODULE_BYTES * len(works)))
        self.known[file] = (checkpoint, trained.subnet)
        return file

    def load(self, file: Path) -> Callable[[np.ndarray], object]:
        checkpoint, subnet = self.known[file]

        def run(features: np.ndarray) -> None:
            assert features.dtype == np.float32
            seconds = features.shape[1] / 100
            self.now += 1e-6 * self.slowness * true_microseconds(checkpoint, subnet, seconds)

        return run

    def planned_bytes(self, file: Path) -> int:
        """Features of 30 s and the logits that come out, or twice the logits; all of it thrice."""
        architecture = self.known[file][0].supernet.architecture
        features, logits = 3000 * architecture.feature_dim, 750 * architecture.vocab_size
        return 3 * 4 * max(features + logits, 2 * logits)

    def peak_memory(self, load: object, file: Path, warm_up: Path, seconds: float) -> float:
        assert warm_up.parent.name == WARM_UP_PROBE
        works = workload(self.known[file][0].supernet.space, self.known[file][1], seconds)
        parameters, live = sum(work.params for work in works), max(work.live for work in works)
        return 3 + 4e-6 * (1.5 * parameters + 6 * live)


def measure(checkpoint: Checkpoint, folder: Path, fake: FakeRuntime) -> DeviceProfile:
    runtime = Runtime(
        name="fake", version="9.9", export=fake.export, load=fake.load,
        planned_bytes=fake.planned_bytes,
    )  # fmt: skip
    return measure_host(
        checkpoint,
        [runtime],
        folder,
        timing_seconds=0.1,
        clock=fake.clock,
        peak_memory=fake.peak_memory,
    )


def test_a_measured_profile_predicts_what_was_measured(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    fake = FakeRuntime(slowness=2.0)
    profile = measure(checkpoint, tmp_path, fake)
    assert profile.name == "host"
    costs = profile.runtimes["fake"]["fp32"]
    assert costs.provenance == costs.memory.provenance == costs.size.provenance == "measured"
    assert "fake 9.9" in costs.source
    made = probes(checkpoint, seed=0, for_times=True)
    fitted = len([probe for probe in made if not probe.held_out])
    assert f"fitted to {fitted * len(LENGTHS)} timings" in costs.source
    assert f"checked on {len(HELD_OUT_SHARES) * len(LENGTHS)} of held-out" in costs.source
    assert costs.error_percent is not None
    assert costs.error_percent < 1
    assert costs.spread_percent == 0
    space = checkpoint.supernet.space
    subnet = Subnet.of(len(space), range(0, len(space), 3))
    for seconds in (1.5, 7.0):
        truth = 2 * true_microseconds(checkpoint, subnet, seconds) / 1000
        prediction = predict_latency(profile, space, subnet, seconds, "fake")
        assert prediction.milliseconds == pytest.approx(truth, rel=0.02)
        assert prediction.error_percent == costs.error_percent
    works = workload(space, subnet, 7.0)
    footprint = predict_footprint(profile, space, subnet, 7.0, "fake")
    parameters, live = sum(work.params for work in works), max(work.live for work in works)
    assert footprint.memory_mb == pytest.approx(3 + 4e-6 * (1.5 * parameters + 6 * live), rel=1e-3)
    size = 4 * parameters + fake.FIXED_BYTES + fake.MODULE_BYTES * len(works)
    assert footprint.size_mb == pytest.approx(size / 1e6, rel=1e-3)
    assert footprint.planned_mb == pytest.approx(3 * 4 * (3000 * 80 + 750 * 5) / 1e6)
    assert costs.p50_ratio == 1


def test_a_measured_profile_survives_its_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    profile = measure(checkpoint, tmp_path / "work", FakeRuntime())
    path = tmp_path / "host.toml"
    path.write_text(profile_text(profile), "utf-8")
    assert read_profile(path) == profile


def test_memory_is_analytic_where_the_system_keeps_no_record(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ortho_edge.devices.profiler.can_measure", lambda: False)
    fake = FakeRuntime()
    monkeypatch.setattr(fake, "peak_memory", None)
    assert measure(checkpoint, tmp_path, fake).runtimes["fake"]["fp32"].memory.provenance == (
        "analytic"
    )


def test_the_default_budget_of_a_host_leaves_room(checkpoint: Checkpoint, tmp_path: Path) -> None:
    budget = measure(checkpoint, tmp_path, FakeRuntime()).budget
    assert budget.latency_ms == 100 * budget.audio_seconds
    assert budget.memory_mb is not None
    assert budget.reason


def test_the_facts_of_a_host_come_from_the_system(tmp_path: Path) -> None:
    cpuinfo, meminfo = tmp_path / "cpuinfo", tmp_path / "meminfo"
    cpuinfo.write_text(
        "processor\t: 0\nmodel name\t: Example CPU @ 3.0GHz: rev 2\n\n"
        "processor\t: 1\nmodel name\t: Other\n"
    )
    meminfo.write_text("MemTotal:        2000000 kB\nMemFree: 5 kB\n")
    hardware = host_hardware(cpuinfo, meminfo)
    assert hardware.soc.value == "Example CPU @ 3.0GHz: rev 2"
    assert hardware.core.count == os.cpu_count()
    assert hardware.core.peak_gflops is None
    assert hardware.ram_gb is not None
    assert hardware.ram_gb.value == pytest.approx(2.05, abs=0.005)


def test_the_facts_of_a_host_without_proc_are_still_stated(tmp_path: Path) -> None:
    hardware = host_hardware(tmp_path / "none", tmp_path / "neither")
    assert hardware.soc.value
    assert hardware.ram_gb is not None
    assert hardware.ram_gb.value > 0


@pytest.mark.skipif(not can_measure(), reason="this system records no peak memory")
@pytest.mark.slow
def test_peak_memory_is_that_of_the_artefact(tmp_path: Path) -> None:
    warm_up, small, large = (tmp_path / name for name in ("warm-up", "small", "large"))
    warm_up.write_bytes(b"0")
    small.write_bytes(bytes(20_000_000))
    large.write_bytes(bytes(60_000_000))
    features = 40 * 4 * 80 * 1000 / 1e6
    one = peak_memory_mb(load_bytes, small, warm_up, 10.0)
    two = peak_memory_mb(load_bytes, large, warm_up, 10.0)
    assert one == pytest.approx(20 + features, abs=4)
    assert two - one == pytest.approx(40, abs=4)
    short = peak_memory_mb(load_bytes, large, warm_up, 1.0)
    assert two - short == pytest.approx(0.9 * features, abs=4)


@pytest.mark.skipif(not can_measure(), reason="this system records no peak memory")
@pytest.mark.slow
def test_peaks_of_many_artefacts_are_those_of_each_alone(tmp_path: Path) -> None:
    """The large one first: what its process held must not count for the small one."""
    files = {"warm-up": 1, "large": 60_000_000, "small": 20_000_000}
    for name, size in files.items():
        (tmp_path / name).write_bytes(bytes(size))
    points = [(tmp_path / "large", 1.0), (tmp_path / "small", 10.0), (tmp_path / "large", 1.0)]
    peaks = peak_memories_mb(load_bytes, tmp_path / "warm-up", points)
    features = 40 * 4 * 80 * 100 / 1e6
    expected = [60 + features, 20 + 10 * features, 60 + features]
    np.testing.assert_allclose(peaks, expected, rtol=0, atol=4)


@pytest.mark.skipif(not can_measure(), reason="this system records no peak memory")
@pytest.mark.slow
def test_one_process_that_needs_more_than_the_others_does_not_count(tmp_path: Path) -> None:
    restless, warm_up = tmp_path / "restless", tmp_path / "warm-up"
    restless.write_bytes(bytes(20_000_000))
    warm_up.write_bytes(b"0")
    features = 40 * 4 * 80 * 100 / 1e6
    found = peak_memory_mb(load_bytes, restless, warm_up, 1.0)
    assert found == pytest.approx(20 + features, abs=4)
    assert restless.with_suffix(".seen").exists()


@pytest.mark.skipif(not can_measure(), reason="this system records no peak memory")
@pytest.mark.slow
def test_a_process_that_dies_is_reported(tmp_path: Path) -> None:
    broken, warm_up = tmp_path / "broken", tmp_path / "warm-up"
    broken.touch()
    warm_up.write_bytes(b"0")
    with pytest.raises(RuntimeError, match="broken ended with status 7"):
        peak_memory_mb(load_bytes, broken, warm_up, 1.0)


@pytest.mark.slow
def test_an_interrupt_does_not_wait_for_networks_that_are_not_exported_yet(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    made = probes(checkpoint, seed=0)
    # What stands last is exported first.
    named = dataclasses.replace(made[-1].trained, name="interrupt")
    made[-1] = dataclasses.replace(made[-1], trained=named)
    runtime = Runtime(name="plain", version="1", export=export_or_interrupt, load=load_bytes)
    with pytest.raises(KeyboardInterrupt):
        export_probes(made, [runtime], tmp_path, 2)
    # Two run, and a few stand in the queue of the processes.
    assert 1 <= len(list(tmp_path.rglob("begun"))) <= 7 < len(made)
