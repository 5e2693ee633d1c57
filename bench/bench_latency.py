"""Latency of every trained subnet through both runtimes, one pinned thread.

The time is the CPU time of the thread that runs the model, which on an idle core is its latency
and on a busy one leaves out what the scheduler ran in between. A share of the full network's time
comes from the two in turns. Artefacts are built once per session.
"""

import functools
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.kept import export_kept
from bench.latency_table import BENCH
from ortho_edge.checkpoint import DESCRIPTION, Checkpoint, load_checkpoint, shipped_checkpoint
from ortho_edge.components import FRAMES_PER_SECOND
from ortho_edge.devices.memory import can_measure, peak_memories_mb
from ortho_edge.devices.profiler import Runtime
from ortho_edge.devices.timing import pinned, time_in_turns
from ortho_edge.precision import Precision

RUNTIMES = ("executorch", "onnxruntime")
MEASURED_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
SECONDS = (1.0, 4.0, 10.0)
SHARE_SECONDS = 2.0
"""At most, to time a size and the full network in turns."""

Key = tuple[str, Precision]
Build = Callable[[Key, str], Path]
Peaks = Callable[[Key, str], dict[float, float]]


def checkpoint_folder(config: pytest.Config) -> Path:
    named = config.getoption("latency_checkpoint")
    return Path(named) if named else shipped_checkpoint()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One benchmark per trained subnet; one that skips where there is no checkpoint."""
    if "subnet_name" not in metafunc.fixturenames:
        return
    description = checkpoint_folder(metafunc.config) / DESCRIPTION
    if description.is_file():
        subnets = json.loads(description.read_text("utf-8"))["subnets"]
        metafunc.parametrize("subnet_name", [one["name"] for one in subnets])
        return
    skip = pytest.mark.skip(reason=f"no checkpoint at {description.parent}")
    metafunc.parametrize("subnet_name", [pytest.param("none", marks=skip)])


@pytest.fixture(scope="session")
def checkpoint(pytestconfig: pytest.Config) -> Checkpoint:
    return load_checkpoint(checkpoint_folder(pytestconfig))


@pytest.fixture(scope="session")
def runtimes() -> dict[Key, Runtime]:
    from ortho_export.host import host_runtimes

    return {
        (runtime.name, precision): runtime
        for precision in MEASURED_PRECISIONS
        for runtime in host_runtimes(precision)
    }


@pytest.fixture(scope="session")
def build(
    checkpoint: Checkpoint,
    runtimes: dict[Key, Runtime],
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
) -> Build:
    """Writes the artefact of a runtime, precision and subnet when it is first asked for."""
    named = pytestconfig.getoption("latency_files")
    folder = Path(named) if named else tmp_path_factory.mktemp("artefacts")

    def get(runtime: Key, subnet: str) -> Path:
        return export_kept(runtimes[runtime], folder, checkpoint, checkpoint.subnet(subnet))

    return get


@pytest.fixture(scope="session")
def peaks(checkpoint: Checkpoint, runtimes: dict[Key, Runtime], build: Build) -> Peaks:
    """Measures an artefact's peak memory in MB, by length, when it is first asked for."""

    @functools.cache
    def get(runtime: Key, subnet: str) -> dict[float, float]:
        if not can_measure():
            return {}
        warm_up = build(runtime, checkpoint.subnets[-1].name)
        points = [(build(runtime, subnet), seconds) for seconds in SECONDS]
        found = peak_memories_mb(runtimes[runtime].load, warm_up, points)
        return dict(zip(SECONDS, found, strict=True))

    return get


@pytest.fixture
def one_core() -> Iterator[None]:
    with pinned():
        yield


# The first decorator varies fastest: fp32 and int8 are timed right after one another.
@pytest.mark.parametrize("precision", MEASURED_PRECISIONS)
@pytest.mark.parametrize("seconds", SECONDS, ids=lambda seconds: f"{seconds:g}s")
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.benchmark(
    group=BENCH, timer=time.thread_time, warmup=True, min_rounds=10, max_time=1.0, disable_gc=True
)
@pytest.mark.usefixtures("one_core")
def test_latency(
    benchmark: BenchmarkFixture,
    checkpoint: Checkpoint,
    runtimes: dict[Key, Runtime],
    build: Build,
    peaks: Peaks,
    subnet_name: str,
    runtime: str,
    seconds: float,
    precision: Precision,
) -> None:
    space, trained = checkpoint.supernet.space, checkpoint.subnet(subnet_name)
    one = runtimes[runtime, precision]
    file = build((runtime, precision), subnet_name)
    run = one.load(file)
    shape = (1, round(seconds * FRAMES_PER_SECOND), checkpoint.supernet.architecture.feature_dim)
    features = np.random.default_rng(0).standard_normal(shape, np.float32)
    benchmark(run, features)
    flops = space.flops(trained.subnet, seconds)
    benchmark.extra_info.update(
        bench=BENCH,
        subnet=subnet_name,
        runtime=runtime,
        runtime_version=one.version,
        precision=precision,
        seconds=seconds,
        params=round(space.cost(trained.subnet, "params")),
        flops=flops,
        flops_share=flops / space.flops(space.full(), seconds),
        size_mb=file.stat().st_size / 1e6,
        dev_wer=trained.metrics.get("dev_wer"),
    )
    timed: Any = benchmark.stats
    if timed is None:  # with --benchmark-disable nothing is measured
        return
    full = checkpoint.subnets[0].name
    in_turns = {"one": run, "full": one.load(build((runtime, precision), full))}
    calls = {name: partial(call, features) for name, call in in_turns.items()}
    timings = time_in_turns(calls, limit_seconds=SHARE_SECONDS)
    benchmark.extra_info.update(
        rtf=timed.stats.min / seconds,
        share=timings["one"].milliseconds / timings["full"].milliseconds,
    )
    memory = peaks((runtime, precision), subnet_name)
    if seconds in memory:
        benchmark.extra_info["peak_memory_mb"] = memory[seconds]
