"""A measured profile of a phone or board: export probes here, time them there, fit.

How networks get there and are run comes in as functions, so that this is all that a device and a
stand-in share with `ortho_edge.devices.profiler`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ortho_edge.checkpoint import Checkpoint
from ortho_edge.components import FRAMES_PER_SECOND
from ortho_edge.devices.board import Board, Clock, Condition
from ortho_edge.devices.footprint import fit_memory
from ortho_edge.devices.measurements import Measurements, PeakMemory, Runtime
from ortho_edge.devices.probes import probes
from ortho_edge.devices.profile import SCHEMA_VERSION, DeviceProfile, RuntimeCost
from ortho_edge.devices.profiler import LENGTHS, default_budget, export_probes, fit_runtime
from ortho_edge.devices.timing import Timing


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What was timed.

    Attributes:
        timings: Of each network and, in it, of each length: CPU time of one thread.
        rounds: Turns of every call.
        wall_percent: By how much wall-clock time was longer, on average.
    """

    timings: Sequence[Sequence[Timing]]
    rounds: int
    wall_percent: float


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device that can be measured.

    Attributes:
        name: Of the profile.
        core: That everything runs on.
        time: Times files on lengths in frames, within seconds.
        peak_mb: What running a file on frames adds to a process, after another file has run; None
            where the system does not tell.
        condition: Of its cores now.
    """

    name: str
    board: Board
    core: int
    time: Callable[[Sequence[Path], Sequence[int], float], Timed]
    peak_mb: Callable[[Path, Path, int], float] | None
    condition: Callable[[], Condition]


def measure_device(
    checkpoint: Checkpoint,
    runtimes: Sequence[Runtime],
    folder: Path,
    device: Device,
    *,
    timing_seconds: float,
    seed: int = 0,
    workers: int = 1,
) -> DeviceProfile:
    """A measured profile of a device.

    Args:
        checkpoint: Whose architecture the probes have.
        runtimes: Whose artefacts run there.
        folder: Where artefacts of the probes go.
        device: Where they are measured.
        timing_seconds: Wall-clock limit of the timing; it ends sooner when the noise is small.
        seed: Of the random probes.
        workers: Processes that export.
    """
    made = tuple(probes(checkpoint, seed, for_times=True))
    files = export_probes(made, runtimes, folder, workers)
    keys = [(runtime.key, probe.trained.name) for runtime in runtimes for probe in made]
    frames = [round(seconds * FRAMES_PER_SECOND) for seconds in LENGTHS]
    before = device.condition()
    timed = device.time([files[key] for key in keys], frames, timing_seconds)
    how = _how(device, timed, before, device.condition())
    timings = {
        (*key, seconds): timing
        for key, of_one in zip(keys, timed.timings, strict=True)
        for seconds, timing in zip(LENGTHS, of_one, strict=True)
    }
    measured = Measurements(probes=made, files=files, timings=timings)
    costs: dict[str, dict[str, RuntimeCost]] = {}
    for runtime in runtimes:
        memory = fit_memory(measured, runtime, _peak_memory(device))
        costs.setdefault(runtime.name, {})[runtime.precision] = fit_runtime(
            measured,
            runtime,
            memory,
            where=f"{device.board.model} ({device.board.system})",
            how=how,
        )
    hardware = device.board.hardware(device.core)
    return DeviceProfile(
        schema_version=SCHEMA_VERSION,
        name=device.name,
        description=f"{device.board.model}, one thread on core {device.core}",
        hardware=hardware,
        budget=default_budget(hardware),
        runtimes=costs,
    )


def _peak_memory(device: Device) -> PeakMemory | None:
    peak_mb = device.peak_mb
    if peak_mb is None:
        return None
    return lambda load, file, warm_up, seconds: peak_mb(
        file, warm_up, round(seconds * FRAMES_PER_SECOND)
    )


def _how(device: Device, timed: Timed, before: Condition, after: Condition) -> str:
    core = device.core
    governor = before.clocks.get(core, Clock()).governor or "unknown"
    features = " ".join(device.board.features[core]) or "none of note"
    return (
        f"one thread on core {core} ({device.board.cores[core]}, {features}), CPU time, minimum "
        f"over {timed.rounds} turns, wall-clock time {timed.wall_percent:.1f} % longer; "
        f"governor {governor}; before: {before.describe(core)}; after: {after.describe(core)}"
    )
