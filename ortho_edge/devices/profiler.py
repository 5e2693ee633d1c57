"""Measuring this host: export probes, time them, fit a profile, check it on held-out networks."""

import dataclasses
import logging
import math
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import nnls
from tqdm import tqdm

from ortho_edge.checkpoint import Checkpoint, TrainedSubnet
from ortho_edge.components import FRAMES_PER_SECOND
from ortho_edge.devices.catalogue import HOST
from ortho_edge.devices.file_sizes import QUANTISED
from ortho_edge.devices.fit import (
    EXACT_PULL,
    PULL,
    FitError,
    Observation,
    fit_error,
    fit_modules,
    fit_scale,
)
from ortho_edge.devices.host import host_hardware
from ortho_edge.devices.latency import file_bytes
from ortho_edge.devices.memory import Load, can_measure, peak_memory_mb
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
    SizeCost,
)
from ortho_edge.devices.timing import Timing, pinned, time_in_turns
from ortho_edge.devices.workload import BYTES, in_tiles, workload

logger = logging.getLogger(__name__)

LENGTHS = (1.0, 2.0, 4.0, 10.0)
"""Seconds of audio that every probe is timed on."""
MEMORY_POINTS = (
    ("empty", 1.0), ("empty", 10.0), ("random-30", 10.0), ("full", 1.0), ("full", 10.0)
)  # fmt: skip
"""Probes and seconds at which memory is measured, each in a process of its own."""
WARM_UP_PROBE = "one-block"
MAX_ROWS = 16
"""Tile heights that are tried; XNNPACK's fp32 kernels for 64-bit Arm have at most 8 rows."""
BLURRED_MB = 5.0
"""Peaks below this are fitted as if they were so large."""

Key = tuple[str, str, float]
"""Key of the runtime, probe, seconds."""
PeakMemory = Callable[[Load, Path, Path, float], float]


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A runtime of this host at one precision.

    Attributes:
        export: Writes the artefact of a subnet into a folder and returns its file.
        load: Returns what maps features (1, T, 80) to anything, on one thread; importable by name.
    """

    name: str
    version: str
    export: Callable[[Checkpoint, TrainedSubnet, Path], Path]
    load: Load
    precision: str = "fp32"

    @property
    def key(self) -> str:
        """Tells a runtime at one precision from the same at another."""
        return self.name if self.precision == "fp32" else f"{self.name} {self.precision}"


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Everything that was observed, before any fit."""

    probes: tuple[Probe, ...]
    files: Mapping[tuple[str, str], Path]
    timings: Mapping[Key, Timing]


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
    made = tuple(probes(checkpoint, seed))
    files = export_probes(made, runtimes, folder, workers)
    calls = {
        (runtime.key, probe.trained.name, seconds): call
        for runtime in runtimes
        for probe in made
        for seconds, call in _calls(runtime.load(files[runtime.key, probe.trained.name])).items()
    }
    with pinned():
        timings = time_in_turns(calls, limit_seconds=timing_seconds, clock=clock)
    measured = Measurements(probes=made, files=files, timings=timings)
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
    show = partial(tqdm, total=len(jobs), desc="exporting", unit="network")
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
        return {futures[done]: done.result() for done in show(as_completed(futures))}


def _calls(run: Callable[[np.ndarray], object]) -> dict[float, Callable[[], object]]:
    """Calls without arguments, one per length; noise as features, for zeros may run faster."""
    generator = np.random.default_rng(0)

    def call(seconds: float) -> Callable[[], object]:
        shape = (1, round(seconds * FRAMES_PER_SECOND), 80)
        features = generator.standard_normal(shape, np.float32)
        return lambda: run(features)

    return {seconds: call(seconds) for seconds in LENGTHS}


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
    scale = fit_scale(modules, whole)
    error: FitError = fit_error(modules, scale, held_out)
    spreads = [one.spread_percent for key, one in measured.timings.items() if key[0] == runtime.key]
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
        size=_size(measured, runtime),
        scale=scale,
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


def _size(measured: Measurements, runtime: Runtime) -> SizeCost:
    """What the graph adds to the weights, in any case, per module and per linear layer."""
    # A quantised format says what a weight takes; fp32 says it by its name.
    known = QUANTISED.get((runtime.name, runtime.precision))
    counted = SizeCost(
        provenance="measured",
        source=f"files of {runtime.name} {runtime.version}",
        bytes_per_parameter=BYTES,
        bytes_per_weight=known.bytes_per_weight if known else None,
        bytes_per_output=known.bytes_per_output if known else 0.0,
        fixed_kb=0.0,
    )
    rows, graphs, sizes = [], [], []
    for probe in measured.probes:
        works = workload(probe.checkpoint.supernet.space, probe.trained.subnet, 1.0)
        size = measured.files[runtime.key, probe.trained.name].stat().st_size
        rows.append([1e3, 1e3 * len(works), 1e3 * sum(work.layers for work in works)])
        graphs.append(size - file_bytes(counted, works))
        sizes.append(size)
    # Errors count relative to the whole file.
    coefficients, worst = _fit_relative(rows, graphs, sizes)
    return dataclasses.replace(
        counted,
        source=f"{counted.source}, fitted to {worst:.1f} % at worst",
        fixed_kb=coefficients[0],
        kb_per_module=coefficients[1],
        kb_per_layer=coefficients[2],
    )


def fit_memory(
    measured: Measurements, runtime: Runtime, peak_memory: PeakMemory | None
) -> MemoryCost:
    """Memory over weights and live activations, at `MEMORY_POINTS`; analytic without figures."""
    if peak_memory is None:
        return MemoryCost(
            provenance="analytic",
            source="this system records no peak memory: weights and activations counted twice",
            fixed_mb=5.0, weight_copies=2.0, activation_copies=2.0,
        )  # fmt: skip
    rows, peaks = [], []
    warm_up = measured.files[runtime.key, WARM_UP_PROBE]
    by_name = {probe.trained.name: probe for probe in measured.probes}
    for name, seconds in tqdm(MEMORY_POINTS, desc=f"memory of {runtime.key}", unit="process"):
        probe = by_name[name]
        works = workload(probe.checkpoint.supernet.space, probe.trained.subnet, seconds)
        params, live = sum(work.params for work in works), max(work.live for work in works)
        rows.append([1.0, params * BYTES / 1e6, live * BYTES / 1e6])
        file = measured.files[runtime.key, probe.trained.name]
        peaks.append(peak_memory(runtime.load, file, warm_up, seconds))
    # The allocator's leftovers blur the small ones.
    coefficients, worst = _fit_relative(rows, peaks, [max(one, BLURRED_MB) for one in peaks])
    return MemoryCost(
        provenance="measured",
        source=(
            f"peak resident memory of fresh processes of {runtime.name} {runtime.version}, "
            f"fitted to {worst:.0f} % at worst"
        ),
        fixed_mb=coefficients[0],
        weight_copies=coefficients[1],
        activation_copies=coefficients[2],
    )


def _fit_relative(
    rows: Sequence[Sequence[float]], values: Sequence[float], weights: Sequence[float]
) -> tuple[list[float], float]:
    """Non-negative coefficients of least error over `weights`, and the worst error in per cent."""
    system = np.array(rows) / np.array(weights)[:, None]
    targets = np.array(values) / np.array(weights)
    # Columns of one size keep the solver accurate.
    norms = np.linalg.norm(system, axis=0)
    solution, _ = nnls(system / norms, targets)
    coefficients = solution / norms
    return [float(f"{one:.6g}") for one in coefficients], 100 * float(
        np.abs(system @ coefficients - targets).max()
    )


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
