"""Command: measures a device profile of this machine, or checks programs on an Arm core.

python -m ortho_edge.profile [--out FILE] [--checkpoint DIR]
python -m ortho_edge.profile --on cortex-a76 --check exports/pixel8
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ortho_edge.cli import UserError, run
from ortho_edge.precision import PRECISIONS

TIMING_SECONDS = 90.0
"""At most; with little noise the timing ends sooner."""
COUNTED_SECONDS = 4.0
MAX_WORKERS = 4
"""Each exporting process takes about 1 GB."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measure what networks cost on this machine, so that --device host can be used.

    Takes a few minutes: exports a handful of subnets for both runtimes, times them on one thread in
    turns, fits the profile and checks it on subnets that the fit has not seen.
    """

    out: Path | None = None
    """File to write; by default the one that --device host reads, in the user's configuration."""
    precision: Literal["fp32", "all"] = "fp32"
    """What to measure: fp32 alone, or every precision that export offers, which takes longer."""
    checkpoint: Path | None = None
    """Checkpoint whose architecture is measured; by default the one that ships."""
    on: str | None = None
    """Another machine: an Arm core that QEMU emulates here, such as cortex-a76."""
    check: Path | None = None
    """Measure nothing; run this .pte file, or those of a folder, there and here and compare."""


def main(arguments: Arguments) -> None:
    """Measures and writes the profile.

    Raises:
        UserError: The checkpoint cannot be read or the file cannot be written.
    """
    if arguments.check is not None:
        if arguments.on is None:
            raise UserError("--check needs --on, the machine that is compared with this one")
        return _check(arguments.check, arguments.on)
    if arguments.on is not None:
        raise UserError("--on needs --check, what to run there")

    from ortho_edge.devices.catalogue import HOST, user_folder

    out = arguments.out or user_folder() / f"{HOST}.toml"
    if out.suffix != ".toml":
        raise UserError(f"--out must be a .toml file, not {out}")
    if out.is_dir():
        raise UserError(f"--out must be a file, {out} is a folder")
    # Before minutes are spent on what cannot be kept.
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"cannot write {out}: {parent} is not a folder that can be written to")

    import torch

    from ortho_edge.atomic import write_atomically
    from ortho_edge.checkpoint import load_checkpoint, shipped_checkpoint
    from ortho_edge.devices.catalogue import profile_text
    from ortho_edge.devices.profiler import measure_host
    from ortho_export.host import host_runtimes

    # More threads than free cores only slow the export down.
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(arguments.checkpoint or shipped_checkpoint())
    with tempfile.TemporaryDirectory() as folder:
        profile = measure_host(
            checkpoint,
            [
                runtime
                for precision in (PRECISIONS if arguments.precision == "all" else ("fp32",))
                for runtime in host_runtimes(precision)
            ],
            Path(folder),
            timing_seconds=TIMING_SECONDS,
            workers=min(MAX_WORKERS, os.cpu_count() or 1),
        )
    write_atomically(out, profile_text(profile))
    for runtime, precisions in profile.runtimes.items():
        for precision, costs in precisions.items():
            print(
                f"{runtime} {precision}: predicts held-out subnets to {costs.error_percent} % on "
                f"average, {costs.worst_error_percent} % at worst; noise {costs.spread_percent} %"
            )
    print(f"wrote {out}")
    if arguments.out is None:
        print(f"use it with: python -m ortho_edge.export --device {HOST}")


def _check(path: Path, on: str) -> None:
    """Runs programs there and here and prints how far they agree.

    Raises:
        UserError: There is nothing to run, or it cannot be run there.
        ParityError: They do not agree.
    """
    programs = sorted(path.glob("*.pte")) if path.is_dir() else [path]
    if not programs:
        raise UserError(f"no .pte file in {path}")

    from tqdm import tqdm

    from ortho_edge.checkpoint import shipped_checkpoint
    from ortho_edge.data.audio import load_audio
    from ortho_edge.data.features import fbank
    from ortho_export.arm.counts import counter, noise
    from ortho_export.arm.machines import emulator
    from ortho_export.arm.programs import compare, install
    from ortho_export.arm.toolchain import load_bundle

    features = fbank(load_audio(shipped_checkpoint() / "sample.flac"))
    with emulator(on) as machine:
        bundle = load_bundle()
        runner, count = install(machine, bundle), counter(machine, bundle)
        for program in tqdm(programs, desc=machine.name, unit="program", leave=False):
            one = compare(runner, program, features)
            tqdm.write(
                f"{program}: on {machine.name} as here, a log-probability differs by "
                f"{one.max_abs_error:.1e} at most; "
                f"{count(program, [noise(COUNTED_SECONDS)])[0] / 1e6:.2f} M instructions for "
                f"{COUNTED_SECONDS:g} s of audio; hears: {one.text}"
            )


if __name__ == "__main__":
    run(main, Arguments, prog="python -m ortho_edge.profile")
