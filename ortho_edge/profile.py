"""Command: a device profile of this machine, a phone, a board or an Arm core; or checks programs.

python -m ortho_edge.profile [--out FILE] [--checkpoint DIR]
python -m ortho_edge.profile --on adb [--name NAME] [--core N]
python -m ortho_edge.profile --on ssh:user@board
python -m ortho_edge.profile --on cortex-a76 [--instructions-per-cycle N --clock-ghz F ...]
python -m ortho_edge.profile --on ethos-u85-256
python -m ortho_edge.profile --on adb --check exports/pixel8
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from ortho_edge.cli import UserError, run
from ortho_edge.options import Range
from ortho_edge.precision import BY_DEFAULT, Precision

if TYPE_CHECKING:
    from ortho_edge.checkpoint import Checkpoint
    from ortho_edge.devices.profile import AssumedSpeed, DeviceProfile, RuntimeCost

EXECUTORCH = "executorch"
ETHOS_U = "ethos-u"
TIMING_SECONDS = 120.0
"""At most; with little noise the timing ends sooner."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measure what networks cost on this machine, so that --device host can be used.

    Takes a few minutes: exports a handful of subnets for both runtimes, times them on one thread in
    turns, fits the profile and checks it on subnets that the fit has not seen. With --on it does so
    on a phone or board, or counts instructions on an emulated core and assumes a speed.
    """

    out: Path | None = None
    """File to write; by default the one that --device host (or the name of what --on measures)
    reads, in the user's configuration."""
    precision: Literal["fp32", "all"] = "fp32"
    """What to measure: fp32 alone, or int8 too, which takes longer."""
    checkpoint: Path | None = None
    """Checkpoint whose architecture is measured; by default the one that ships."""
    on: str | None = None
    """Another machine: adb or adb:SERIAL, ssh:HOST or ssh:USER@HOST (further settings belong into
    ~/.ssh/config), an Arm core that QEMU emulates here, such as cortex-a76, or an Ethos-U
    (ethos-u55-128, ethos-u85-256), whose compiler counts cycles."""
    name: str | None = None
    """With --on adb or ssh: of the profile; by default the device's model."""
    core: Annotated[int, Range(0, 4095)] | None = None
    """With --on adb or ssh: the number of the core to measure; by default one with the highest
    clock."""
    instructions_per_cycle: Annotated[float, Range(0, 100, above=True)] | None = None
    """With --on CORE: what turns counted instructions into time, an assumption; cortex-a76 has
    one."""
    clock_ghz: Annotated[float, Range(0, 100, above=True)] | None = None
    """With --on CORE: the clock to assume."""
    speed_source: str | None = None
    """With --on CORE: where these two figures come from; the profile states it."""
    check: Path | None = None
    """Measure nothing; run this .pte file, or those of a folder, there and here and compare."""


def main(arguments: Arguments) -> None:
    """Measures and writes the profile.

    Raises:
        UserError: The checkpoint cannot be read, the file cannot be written, or options do not go
            together.
    """
    there = arguments.on is not None and _is_remote(arguments.on)
    _refuse_misfits(arguments, there=there)
    if arguments.check is not None:
        assert arguments.on is not None
        return _check(arguments.check, arguments.on, arguments.core)

    from ortho_edge.devices.catalogue import HOST

    if not there:
        _place(arguments.out, HOST if arguments.on is None else arguments.on)
    else:
        _check_there(arguments)
    counts = not there and arguments.on is not None and not arguments.on.startswith(ETHOS_U)
    speed = _speed(arguments) if counts else None

    import torch

    from ortho_edge.atomic import write_atomically
    from ortho_edge.checkpoint import load_checkpoint, shipped_checkpoint
    from ortho_edge.devices.catalogue import profile_text
    from ortho_export.writing import num_workers

    # More threads than free cores only slow the export down.
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(arguments.checkpoint or shipped_checkpoint())
    workers = num_workers()
    precisions = BY_DEFAULT if arguments.precision == "all" else ("fp32",)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.on is None:
            profile = _measure(checkpoint, Path(folder), workers, precisions)
        elif there:
            profile = _measure_there(arguments, checkpoint, Path(folder), workers, precisions)
        elif arguments.on.startswith(ETHOS_U):
            profile = _compile(arguments.on, checkpoint, arguments.checkpoint)
        else:
            assert speed is not None
            profile = _count(arguments.on, checkpoint, Path(folder), workers, precisions, speed)
    out = _place(arguments.out, profile.name)
    write_atomically(out, profile_text(profile))
    for runtime, costs in profile.runtimes.items():
        for precision, one in costs.items():
            print(f"{runtime} {precision}: {_quality(one)}")
    print(f"wrote {out}")
    if arguments.out is None:
        only = f" --format {EXECUTORCH}" if counts else ""
        print(f"use it with: python -m ortho_edge.export --device {profile.name}{only}")


def _given_speed(arguments: Arguments) -> tuple[float | None, float | None, str | None]:
    return arguments.instructions_per_cycle, arguments.clock_ghz, arguments.speed_source


def _speed(arguments: Arguments) -> "AssumedSpeed":
    """What turns counts into time, before a tool is looked for.

    Raises:
        UserError: It is half given, or not known for the core.
    """
    from ortho_edge.devices.counted import assumed_speed

    assert arguments.on is not None
    return assumed_speed(arguments.on, *_given_speed(arguments))


def _refuse_misfits(arguments: Arguments, *, there: bool) -> None:
    """Checks that the options go together; `there` on a phone or board.

    Raises:
        UserError: They do not.
    """
    speed = _given_speed(arguments) != (None, None, None)
    on = arguments.on or ""
    if speed and (not on or there or arguments.check is not None):
        raise UserError(
            "--instructions-per-cycle, --clock-ghz and --speed-source need --on CORE alone"
        )
    if not there and (arguments.name, arguments.core) != (None, None):
        raise UserError("--name and --core need --on adb or --on ssh:HOST")
    if arguments.check is not None:
        if arguments.on is None:
            raise UserError("--check needs --on, the machine that is compared with this one")
        if (arguments.name, arguments.out) != (None, None):
            raise UserError("--check writes no profile: leave out --name and --out")
    elif on.startswith(ETHOS_U):
        if speed:
            raise UserError(f"the clock of {on} is Vela's: leave out what assumes a speed")
        if arguments.precision != "fp32":
            raise UserError(f"{on} computes in int8-static alone: leave out --precision")


def _check_there(arguments: Arguments) -> None:
    """Checks what can be told before a device is reached.

    Raises:
        UserError: A profile cannot have the name, or the file cannot be written.
    """
    from ortho_edge.devices.board import checked_name

    if arguments.name is not None:
        checked_name(arguments.name)
    if arguments.out is not None:
        _writable(arguments.out)


def _is_remote(on: str) -> bool:
    from ortho_export.arm.remote import is_remote

    return is_remote(on)


def _place(out: Path | None, name: str) -> Path:
    """The file of a profile, if it can be written.

    Raises:
        UserError: It cannot.
    """
    from ortho_edge.devices.catalogue import user_folder

    return _writable(out or user_folder() / f"{name}.toml")


def _writable(out: Path) -> Path:
    """The file, if it can be written.

    Raises:
        UserError: It cannot.
    """
    if out.suffix != ".toml":
        raise UserError(f"--out must be a .toml file, not {out}")
    if out.is_dir():
        raise UserError(f"--out must be a file, {out} is a folder")
    # Before minutes are spent on what cannot be kept.
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"cannot write {out}: {parent} is not a folder that can be written to")
    return out


def _measure(
    checkpoint: "Checkpoint", folder: Path, workers: int, precisions: "tuple[Precision, ...]"
) -> "DeviceProfile":
    from ortho_edge.devices.profiler import measure_host
    from ortho_export.host import host_runtimes

    runtimes = [one for precision in precisions for one in host_runtimes(precision)]
    return measure_host(
        checkpoint, runtimes, folder, timing_seconds=TIMING_SECONDS, workers=workers
    )


def _measure_there(
    arguments: Arguments,
    checkpoint: "Checkpoint",
    folder: Path,
    workers: int,
    precisions: "tuple[Precision, ...]",
) -> "DeviceProfile":
    """Measures on a phone or board.

    Raises:
        UserError: It cannot be reached or fails, or an option does not fit it.
    """
    from ortho_edge.devices.remote import measure_device
    from ortho_export.arm.bench import ask_board, open_device
    from ortho_export.arm.remote import connected
    from ortho_export.arm.toolchain import load_bundle
    from ortho_export.host import host_runtimes

    assert arguments.on is not None
    with connected(arguments.on) as machine:
        board = ask_board(machine)
        name = board.profile_name(arguments.name)
        core = board.chosen(arguments.core)
        # Before minutes are spent on what cannot be kept, or cannot run.
        _place(arguments.out, name)
        device = open_device(machine, load_bundle(), board, name, core)
        runtimes = [one for precision in precisions for one in host_runtimes(precision)]
        return measure_device(
            checkpoint, runtimes, folder, device, timing_seconds=TIMING_SECONDS, workers=workers
        )


def _count(
    core: str,
    checkpoint: "Checkpoint",
    folder: Path,
    workers: int,
    precisions: "tuple[Precision, ...]",
    speed: "AssumedSpeed",
) -> "DeviceProfile":
    """Counts on an emulated core.

    Raises:
        UserError: There is no such core, or a tool is missing.
    """
    from ortho_edge.devices.counted import count_device
    from ortho_export.arm.counts import counter, noise
    from ortho_export.arm.machines import QEMU, emulator
    from ortho_export.arm.toolchain import load_bundle, run_tool, tool
    from ortho_export.host import host_runtimes

    with emulator(core) as machine:
        release = run_tool([tool(QEMU), "--version"]).splitlines()[0]
        count = counter(machine, load_bundle())
        return count_device(
            checkpoint,
            [
                one
                for precision in precisions
                for one in host_runtimes(precision)
                if one.name == EXECUTORCH
            ],
            folder,
            lambda file, lengths: count(file, [noise(seconds) for seconds in lengths]),
            core=core,
            counted_by=release,
            speed=speed,
            workers=workers,
        )


def _compile(accelerator: str, checkpoint: "Checkpoint", folder: Path | None) -> "DeviceProfile":
    """Lets Vela count.

    Raises:
        UserError: There is no such accelerator, no environment to lower in, or no sample clip.
    """
    from ortho_edge.checkpoint import shipped_checkpoint
    from ortho_edge.progress import Progress
    from ortho_export.ethos_u.profiling import measure
    from ortho_export.sample import load_sample

    sample = load_sample(folder or shipped_checkpoint())
    with Progress(f"lowering for {accelerator}", unit="networks") as progress:
        return measure(accelerator, checkpoint, sample, lambda name: progress.advance())


def _quality(costs: "RuntimeCost") -> str:
    speed = costs.assumed_speed
    errors = f"{costs.error_percent} % on average, {costs.worst_error_percent} % at worst"
    if costs.tables is not None:
        return f"predicts Vela's cycles of held-out subnets to {errors}; nothing was timed"
    if speed is None:
        p50 = "" if costs.p50_ratio is None else f"; p50 {costs.p50_ratio:g} times the minimum"
        return f"predicts held-out subnets to {errors}; noise {costs.spread_percent} %{p50}"
    return (
        f"predicts the instruction counts of held-out subnets to {errors}; nothing was timed: "
        f"{speed.instructions_per_cycle:g} instructions per cycle and {speed.clock_ghz:g} GHz are "
        f"assumed ({speed.source})"
    )


def _check(path: Path, on: str, core: Annotated[int, Range(0, 4095)] | None) -> None:
    """Runs programs there and here and prints how far they agree.

    Raises:
        UserError: There is nothing to run, or it cannot be run there.
        ParityError: They do not agree.
    """
    if not path.exists():
        raise UserError(f"no program or folder at {path}")
    programs = sorted(path.glob("*.pte")) if path.is_dir() else [path]
    if not programs:
        raise UserError(f"no .pte file in {path}")

    from ortho_edge import progress
    from ortho_edge.checkpoint import shipped_checkpoint
    from ortho_edge.data.audio import load_audio
    from ortho_edge.data.features import fbank
    from ortho_export.arm.check import opened
    from ortho_export.arm.programs import compare

    features = fbank(load_audio(shipped_checkpoint() / "sample.flac"))
    with opened(on, core) as (runner, cost):
        name = runner.machine.name
        for program in progress.track(programs, f"running on {name}", unit="programs"):
            one = compare(runner, program, features)
            here = "" if one.text == one.here else f" (here: {one.here})"
            progress.tell(
                f"{program}: on {name} as here, a log-probability differs by "
                f"{one.max_abs_error:.1e} at most; {cost(program)}; hears: {one.text}{here}"
            )


if __name__ == "__main__":
    run(main, Arguments, prog="python -m ortho_edge.profile")
