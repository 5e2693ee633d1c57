"""A profile from instruction counts: count probes' instructions, fit, turn counts into time.

Only the counts are known. The time of an instruction is an assumption that the profile states.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ortho_edge.checkpoint import Checkpoint
from ortho_edge.cli import UserError
from ortho_edge.devices.host import host_hardware
from ortho_edge.devices.memory import can_measure, peak_memory_mb
from ortho_edge.devices.probes import probes
from ortho_edge.devices.profile import (
    SCHEMA_VERSION,
    AssumedSpeed,
    Core,
    DeviceProfile,
    Hardware,
    MemoryCost,
    RuntimeCost,
    TextFact,
)
from ortho_edge.devices.profiler import (
    LENGTHS,
    Measurements,
    PeakMemory,
    Runtime,
    default_budget,
    export_probes,
    fit_memory,
    fit_runtime,
)
from ortho_edge.devices.timing import Timing
from ortho_edge.progress import track

Count = Callable[[Path, Sequence[float]], Sequence[int]]
"""Instructions of one inference of an artefact for each of these lengths in seconds."""

USUAL_SPEEDS = {
    "cortex-a76": AssumedSpeed(
        instructions_per_cycle=2.0,
        clock_ghz=2.4,
        source=(
            "2.4 GHz: Raspberry Pi Ltd, Raspberry Pi 5 product brief; 2 instructions per cycle: "
            "a round assumption, as many as the core has 128-bit floating-point pipelines "
            "(Arm, Cortex-A76 Core Software Optimization Guide)"
        ),
    )
}
"""By core; what is assumed where the user says nothing else."""


def assumed_speed(
    core: str, instructions_per_cycle: float | None, clock_ghz: float | None, source: str | None
) -> AssumedSpeed:
    """What the user says, or what is usual for a core.

    Raises:
        UserError: The user says a part of it, or nothing about a core that is not known.
    """
    given = (instructions_per_cycle, clock_ghz, source)
    if given == (None, None, None):
        if core not in USUAL_SPEEDS:
            raise UserError(
                f"how fast is {core}? give --instructions-per-cycle, --clock-ghz and "
                f"--speed-source; assumed without: {', '.join(USUAL_SPEEDS)}"
            )
        return USUAL_SPEEDS[core]
    if instructions_per_cycle is None or clock_ghz is None or not source:
        raise UserError(
            "--instructions-per-cycle, --clock-ghz and --speed-source (where the two come from) "
            "belong together"
        )
    try:
        return AssumedSpeed(
            instructions_per_cycle=instructions_per_cycle, clock_ghz=clock_ghz, source=source
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def count_device(
    checkpoint: Checkpoint,
    runtimes: Sequence[Runtime],
    folder: Path,
    count: Count,
    *,
    core: str,
    counted_by: str,
    speed: AssumedSpeed,
    seed: int = 0,
    workers: int = 1,
    peak_memory: PeakMemory | None = None,
) -> DeviceProfile:
    """A profile of a core that is emulated.

    Args:
        checkpoint: Whose architecture the probes have.
        runtimes: Whose artefacts run there, each at one precision.
        folder: Where artefacts of the probes go.
        count: Counts on that core.
        core: Its name, also the profile's.
        counted_by: What counts, for the source.
        speed: What turns counts into time.
        seed: Of the random probes.
        workers: Processes that export.
        peak_memory: How memory is measured here; `peak_memory_mb` where the system can.
    """
    made = tuple(probes(checkpoint, seed))
    files = export_probes(made, runtimes, folder, workers)
    timings = {
        (key, name, seconds): Timing(
            milliseconds=speed.milliseconds(instructions),
            spread_percent=0.0,
            median_milliseconds=speed.milliseconds(instructions),
        )
        for (key, name), file in track(files.items(), f"counting on {core}", unit="networks")
        for seconds, instructions in zip(LENGTHS, count(file, LENGTHS), strict=True)
    }
    measured = Measurements(probes=made, files=files, timings=timings)
    costs: dict[str, dict[str, RuntimeCost]] = {}
    for runtime in runtimes:
        costs.setdefault(runtime.name, {})[runtime.precision] = fit_runtime(
            measured,
            runtime,
            _memory(measured, runtime, peak_memory),
            where=f"emulated {core}",
            how=f"instructions of one inference counted by {counted_by}",
            assumed_speed=speed,
        )
    hardware = Hardware(
        soc=TextFact(value=f"any with a {core}", source="named by the user"),
        runs_on=core,
        cores=(Core(name=core, count=1, source="emulated by QEMU"),),
    )
    return DeviceProfile(
        schema_version=SCHEMA_VERSION,
        name=core,
        description=f"{core}, counted instructions at an assumed speed, one thread",
        hardware=hardware,
        budget=default_budget(hardware),
        runtimes=costs,
    )


def _memory(measured: Measurements, runtime: Runtime, peak_memory: PeakMemory | None) -> MemoryCost:
    """Of this machine: an emulator's own memory hides what an artefact needs."""
    if peak_memory is None and can_measure():
        peak_memory = peak_memory_mb
    memory = fit_memory(measured, runtime, peak_memory)
    source = f"as on {host_hardware().soc.value}: {memory.source}"
    return replace(memory, provenance="analytic", source=source)
