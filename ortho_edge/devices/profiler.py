"""Measuring this host: export probes, time them, fit a profile, check it on held-out networks."""

import logging
import math
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ortho_edge import progress
from ortho_edge.checkpoint import Checkpoint
from ortho_edge.components import FRAMES_PER_SECOND
from ortho_edge.devices.catalogue import HOST
from ortho_edge.devices.fit import (
    EXACT_PULL,
    PULL,
    FitError,
    Observation,
    fit_error,
    fit_modules,
    fit_scale,
)
from ortho_edge.devices.footprint import fit_memory, fit_size
from ortho_edge.devices.host import host_hardware
from ortho_edge.devices.measurements import Key, Measurements, PeakMemory, Runtime
from ortho_edge.devices.memory import can_measure, peak_memory_mb
from ortho_edge.devices.probes import Probe, probes
from ortho_edge.devices.profile import (
    COUNTED,
    DEFAULT_AUDIO_SECONDS,
    SCHEMA_VERSION,
    AssumedSpeed,
    DefaultBudget,
    DeviceProfile,
    Hardware,
    MemoryCost,
    RuntimeCost,
)
from ortho_edge.devices.timing import pinned, time_in_turns
from ortho_edge.devices.workload import in_tiles, workload

logger = logging.getLogger(__name__)

LENGTHS = (1.0, 2.0, 4.0, 10.0)
"""Seconds of audio that every probe is timed on."""
MAX_ROWS = 16
"""Tile heights that are tried; XNNPACK's fp32 kernels for 64-bit Arm have at most 8 rows."""


def measure_host(
    checkpoint: Checkpoint,
    runtimes: Sequence[Runtime],
    folder: Path,
    *,
    timing_seconds: float,
    seed: int = 0,
    workers: int = 1,
    clock: Callable[[], float] = time.thread_time,
    peak_memory: PeakMemory | None = None,
) -> DeviceProfile:
    """A measured profile of this host.

    Args:
        checkpoint: Whose architecture the probes have.
        runtimes: To measure.
        folder: Where artefacts of the probes go.
        timing_seconds: Wall-clock limit of the timing; it ends sooner when the noise is small.
        seed: Of the random probes.
        workers: Processes that export; above 1, `Runtime.export` must be importable by name.
        clock: Seconds of CPU time of this thread.
        peak_memory: How memory is measured; `peak_memory_mb` where the system can.
    """
    measured = observe_host(
        checkpoint, runtimes, folder, timing_seconds=timing_seconds, seed=seed, workers=workers,
        clock=clock,
    )  # fmt: skip
    return host_profile(measured, runtimes, peak_memory)


def observe_host(
    checkpoint: Checkpoint,
    runtimes: Sequence[Runtime],
    folder: Path,
    *,
    timing_seconds: float,
    seed: int = 0,
    workers: int = 1,
    clock: Callable[[], float] = time.thread_time,
    beside: Mapping[Key, Callable[[], object]] | None = None,
) -> Measurements:
    """The probes, exported and timed.

    Args:
        checkpoint: Like all others as in `measure_host`.
        runtimes: To measure.
        folder: Where artefacts of the probes go.
        timing_seconds: Wall-clock limit of the timing.
        seed: Of the random probes.
        workers: Processes that export.
        clock: Seconds of CPU time of this thread.
        beside: Other calls that take turns with the probes, so that what disturbs hits all alike.
    """
    made = tuple(probes(checkpoint, seed, for_times=True))
    files = export_probes(made, runtimes, folder, workers)
    calls = {
        (runtime.key, probe.trained.name, seconds): call
        for runtime in runtimes
        for probe in made
        for seconds, call in timed_calls(
            runtime.load(files[runtime.key, probe.trained.name]), LENGTHS
        ).items()
    } | dict(beside or {})
    with pinned():
        timings = time_in_turns(calls, limit_seconds=timing_seconds, clock=clock)
    return Measurements(probes=made, files=files, timings=timings)


def host_profile(
    measured: Measurements, runtimes: Sequence[Runtime], peak_memory: PeakMemory | None = None
) -> DeviceProfile:
    """The profile that fits what was observed on this host.

    Args:
        measured: Probes, exported and timed.
        runtimes: That were measured.
        peak_memory: How memory is measured; `peak_memory_mb` where the system can.
    """
    if peak_memory is None and can_measure():
        peak_memory = peak_memory_mb
    hardware = host_hardware()
    costs: dict[str, dict[str, RuntimeCost]] = {}
    for runtime in runtimes:
        memory = fit_memory(measured, runtime, peak_memory)
        precisions = costs.setdefault(runtime.name, {})
        precisions[runtime.precision] = fit_runtime(
            measured,
            runtime,
            memory,
            where=hardware.soc.value,
            how="one pinned thread, CPU time, minimum over turns",
        )
    return DeviceProfile(
        schema_version=SCHEMA_VERSION,
        name=HOST,
        description=f"this machine: {hardware.soc.value}, one thread",
        hardware=hardware,
        budget=default_budget(hardware),
        runtimes=costs,
    )


def export_probes(
    made: Sequence[Probe], runtimes: Sequence[Runtime], folder: Path, workers: int
) -> dict[tuple[str, str], Path]:
    """Artefacts of all probes by runtime and probe; more than one worker means processes."""
    # The largest networks stand last and take longest: begin with them.
    jobs = [(runtime, probe) for probe in reversed(made) for runtime in runtimes]
    places = {}
    for runtime, probe in jobs:
        place = folder / runtime.key / probe.trained.name
        place.mkdir(parents=True)
        places[runtime.key, probe.trained.name] = place
    show = partial(progress.track, label="exporting", unit="networks", total=len(jobs))
    if workers == 1:
        return {
            (runtime.key, probe.trained.name): runtime.export(
                probe.checkpoint, probe.trained, places[runtime.key, probe.trained.name]
            )
            for runtime, probe in show(jobs)
        }
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, torch.set_num_threads, (1,)) as pool:
        futures = {
            pool.submit(
                runtime.export,
                probe.checkpoint,
                probe.trained,
                places[runtime.key, probe.trained.name],
            ): (runtime.key, probe.trained.name)
            for runtime, probe in jobs
        }
        try:
            return {futures[done]: done.result() for done in show(as_completed(futures))}
        finally:
            # An interrupt would wait for all that have not begun.
            pool.shutdown(cancel_futures=True)


def timed_calls(
    run: Callable[[np.ndarray], object], lengths: Sequence[float]
) -> dict[float, Callable[[], object]]:
    """Calls without arguments, one per length; noise as features, for zeros may run faster."""
    generator = np.random.default_rng(0)

    def call(seconds: float) -> Callable[[], object]:
        shape = (1, round(seconds * FRAMES_PER_SECOND), 80)
        features = generator.standard_normal(shape, np.float32)
        return lambda: run(features)

    return {seconds: call(seconds) for seconds in lengths}


def fit_runtime(
    measured: Measurements,
    runtime: Runtime,
    memory: MemoryCost,
    *,
    where: str,
    how: str,
    assumed_speed: AssumedSpeed | None = None,
) -> RuntimeCost:
    """Cost tables of a runtime: fitted to some probes, checked on the others.

    Args:
        measured: What was observed.
        runtime: Which of its runtimes.
        memory: Of the same runtime.
        where: The machine, for the source.
        how: The measurement, for the source.
        assumed_speed: Where instructions were counted and this made times of them.
    """
    rows = 1 if assumed_speed is None else _rows_at_once(measured, runtime.key)
    fitted, whole, held_out = _observations(measured, runtime.key, rows)
    modules = fit_modules(fitted, PULL if assumed_speed is None else EXACT_PULL)
    scale, us_per_boundary = fit_scale(modules, whole)
    error: FitError = fit_error(modules, scale, held_out, us_per_boundary)
    timings = [one for key, one in measured.timings.items() if key[0] == runtime.key]
    spreads = [one.spread_percent for one in timings]
    p50_ratio = np.mean([one.median_milliseconds / one.milliseconds for one in timings])
    architecture = measured.probes[-1].checkpoint.supernet.architecture
    logger.info(
        "%s: error on held-out networks %.1f %% mean, %.1f %% at worst; "
        "noise %.1f %% mean, %.1f %% at worst", runtime.key, error.mean_percent,
        error.worst_percent, np.mean(spreads), np.max(spreads),
    )  # fmt: skip
    today = datetime.now(UTC).date().isoformat()
    what = "timings" if assumed_speed is None else "counts"
    return RuntimeCost(
        provenance="measured" if assumed_speed is None else COUNTED,
        source=(
            f"{today}, {where}, {runtime.name} {runtime.version}; {how}; "
            f"fitted to {len(fitted)} {what} of networks of dim {architecture.dim} with "
            f"{architecture.num_blocks} blocks, checked on {len(held_out)} of held-out subnets"
        ),
        modules=modules,
        memory=memory,
        size=fit_size(measured, runtime),
        scale=scale,
        us_per_boundary=us_per_boundary,
        p50_ratio=None if assumed_speed is not None else max(1.0, round(float(p50_ratio), 4)),
        error_percent=round(error.mean_percent, 2),
        worst_error_percent=round(error.worst_percent, 2),
        spread_percent=round(float(np.mean(spreads)), 2),
        rows_at_once=rows,
        assumed_speed=assumed_speed,
    )


def _rows_at_once(measured: Measurements, runtime: str) -> int:
    """The tile height that explains counts best; noisy times could not tell."""

    def error(rows: int) -> float:
        fitted, _, _ = _observations(measured, runtime, rows)
        return fit_error(fit_modules(fitted, EXACT_PULL), 1.0, fitted).mean_percent

    return min(range(1, MAX_ROWS + 1), key=error)


def _observations(
    measured: Measurements, runtime: str, rows: int
) -> tuple[list[Observation], list[Observation], list[Observation]]:
    """To fit modules, to fit the scale, and held out."""
    fitted, whole, held_out = [], [], []
    for probe in measured.probes:
        for seconds in LENGTHS:
            works = workload(probe.checkpoint.supernet.space, probe.trained.subnet, seconds)
            one = Observation(
                works=in_tiles(works, seconds, rows),
                milliseconds=measured.timings[runtime, probe.trained.name, seconds].milliseconds,
            )
            if probe.held_out:
                held_out.append(one)
                continue
            fitted.append(one)
            if probe.whole:
                whole.append(one)
    return fitted, whole, held_out


def default_budget(hardware: Hardware) -> DefaultBudget:
    """A tenth of real time and a tenth of the memory: what leaves room for everything else."""
    ram = hardware.ram_gb
    return DefaultBudget(
        latency_ms=100 * DEFAULT_AUDIO_SECONDS,
        audio_seconds=DEFAULT_AUDIO_SECONDS,
        memory_mb=None if ram is None else float(math.floor(100 * ram.value)),
        reason="a tenth of real time on one thread"
        + ("" if ram is None else " and a tenth of the memory"),
    )
