"""Command: measures a device profile of this machine.

python -m ortho_edge.profile [--out FILE] [--checkpoint DIR]
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ortho_edge.cli import UserError, run

TIMING_SECONDS = 90.0
"""At most; with little noise the timing ends sooner."""
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
    checkpoint: Path | None = None
    """Checkpoint whose architecture is measured; by default the one that ships."""


def main(arguments: Arguments) -> None:
    """Measures and writes the profile.

    Raises:
        UserError: The checkpoint cannot be read or the file cannot be written.
    """
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
            host_runtimes(),
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


if __name__ == "__main__":
    run(main, Arguments, prog="python -m ortho_edge.profile")
