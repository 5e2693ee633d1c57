"""Predictions of a profile against held-out subnets: `python -m bench.bench_prediction --help`.

No benchmarks for pytest: each part is one command, for they need hours, an emulator, or a machine
that does nothing else.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from ortho_edge.cli import UserError, run
from ortho_edge.precision import BY_DEFAULT, Precision

if TYPE_CHECKING:
    from bench.prediction.rows import Row
    from bench.prediction.subnets import Artefacts

RESULTS = Path(__file__).resolve().parent / "results"
FEWEST = 3
CORE = "cortex-a76"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compare predictions with measurements on random subnets of the shipped checkpoint.

    build: export all of them and the profiler's probes; may be stopped and goes on where it was.
    static: file sizes, planned and peak memory, with the profile of --device.
    counts: instructions on an emulated core, with the profile of tests/devices/counts.json; may be
    stopped. cycles: Vela's, with the profile of --device, an Ethos-U; needs its environment and no
    build; may be stopped. latency: profile this machine and time all subnets in the same turns;
    wants an idle machine.
    """

    part: tyro.conf.Positional[Literal["build", "static", "counts", "cycles", "latency"]]
    precision: Literal["fp32", "int8", "all"] = "fp32"
    """Of the artefacts."""
    workers: int = 2
    """Processes that build."""
    device: str = "pixel8"
    """static: whose figures predict; size and memory were measured on the machines they name.
    cycles: an Ethos-U."""
    every: int = 1
    """static: peak memory of every so many subnets only. cycles: every so many subnets only."""
    seconds: float = 300.0
    """latency: at most for the timing."""
    folder: Path | None = None
    """Where artefacts are kept; by default bench/cache."""
    out: Path = RESULTS
    """Folder for the results."""


def main(arguments: Arguments) -> None:
    """Prints a table in Markdown and writes all figures.

    Raises:
        UserError: Too few subnets were built.
    """
    import torch

    from bench.prediction.subnets import build, built, default_folder

    torch.set_num_threads(1)
    folder = arguments.folder or default_folder()
    precisions: tuple[Precision, ...] = (
        BY_DEFAULT if arguments.precision == "all" else (arguments.precision,)
    )
    if arguments.part == "build":
        return build(folder, precisions, arguments.workers)
    if arguments.part == "cycles":
        return _cycles(arguments, folder)
    if arguments.part == "counts":
        precisions = ("fp32",)
    names = ("executorch",) if arguments.part == "counts" else ()
    artefacts = built(folder, precisions, names)
    if len(artefacts.subnets) < FEWEST:
        raise UserError(
            f"{len(artefacts.subnets)} held-out subnets are built in {folder}, {FEWEST} at least "
            "are needed; first run: python -m bench.bench_prediction build"
        )
    parts = {"static": _static, "counts": _counts, "latency": _latency}
    return parts[arguments.part](arguments, artefacts)


def _static(arguments: Arguments, artefacts: "Artefacts") -> None:
    from bench.prediction.measuring import static_rows
    from ortho_edge.devices.catalogue import load_profile

    rows = list(static_rows(artefacts, load_profile(arguments.device), arguments.every))
    _write(arguments, len(artefacts.subnets), rows, {"device": arguments.device})


def _counts(arguments: Arguments, artefacts: "Artefacts") -> None:
    import tempfile

    from bench.prediction.measuring import count_all, count_rows
    from ortho_edge.devices.profile import AssumedSpeed
    from ortho_export.arm.counts import counter, noise
    from ortho_export.arm.machines import emulator
    from ortho_export.arm.toolchain import load_bundle
    from tests.devices.recorded import recorded_profile

    with emulator(CORE) as machine:
        count = counter(machine, load_bundle())
        counts = count_all(
            artefacts,
            lambda file, lengths: count(file, [noise(one) for one in lengths]),
            artefacts.folder / "counts.json",
        )
    speed = AssumedSpeed(instructions_per_cycle=1.0, clock_ghz=1.0, source="1 instruction is 1 ns")
    with tempfile.TemporaryDirectory() as probes:
        profile = recorded_profile(artefacts.checkpoint, Path(probes), speed)
    _write(
        arguments,
        len(artefacts.subnets),
        list(count_rows(artefacts, profile, counts)),
        {"core": CORE},
    )


def _cycles(arguments: Arguments, folder: Path) -> None:
    from bench.prediction.cycles import compiler, cycle_rows
    from bench.prediction.subnets import held_out_subnets
    from ortho_edge.checkpoint import load_checkpoint, shipped_checkpoint
    from ortho_edge.devices.catalogue import load_profile

    profile = load_profile(arguments.device)
    checkpoint = load_checkpoint(shipped_checkpoint())
    found = compiler(profile, checkpoint, shipped_checkpoint())
    subnets = held_out_subnets(checkpoint.supernet.space)[:: arguments.every]
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"cycles-{profile.name}.json"
    rows = list(cycle_rows(checkpoint, profile, subnets, found, kept))
    _write(arguments, len(subnets), rows, {"device": arguments.device})


def _latency(arguments: Arguments, artefacts: "Artefacts") -> None:
    from bench.prediction.measuring import latency_rows, profile_host
    from bench.prediction.report import plot
    from bench.prediction.variants import variant_table
    from ortho_edge.atomic import write_atomically
    from ortho_edge.devices.catalogue import profile_text

    profile, measured = profile_host(artefacts, arguments.seconds)
    rows = list(latency_rows(artefacts, profile, measured.timings))
    write_atomically(arguments.out / "prediction_host.toml", profile_text(profile))
    # The probes' times too, so that another model can be fitted to them later.
    names = {one.trained.name for one in measured.probes}
    probes = [[*k, one.milliseconds] for k, one in measured.timings.items() if k[1] in names]
    _write(arguments, len(artefacts.subnets), rows, {"probes": probes})
    print(f"mean error (bias), and the share within 10 %:\n\n"
          f"{variant_table(artefacts, measured, measured.timings)}\n")  # fmt: skip
    picture = arguments.out / "prediction_latency.png"
    plot(picture, rows)
    print(f"plot: {picture}")


def _write(arguments: Arguments, subnets: int, rows: "list[Row]", more: dict[str, object]) -> None:
    from bench.prediction.report import write
    from bench.prediction.rows import table, worst

    of = f"_{arguments.device}" if arguments.part == "cycles" else ""
    path = arguments.out / f"prediction_{arguments.part}{of}.json"
    write(path, rows, more)
    print(f"{subnets} held-out subnets\n\n{table(rows)}\n")
    for one in worst(rows):
        audio = "" if one.seconds is None else f" at {one.seconds:g} s"
        print(
            f"worst: {one.subnet} ({100 * one.share:.0f} % of the components), {one.runtime} "
            f"{one.precision}{audio}: {one.quantity} {one.predicted:.4g} predicted, "
            f"{one.measured:.4g} measured, {one.error_percent:+.1f} %"
        )
    print(f"written: {path}")


if __name__ == "__main__":
    run(main, Arguments, prog="python -m bench.bench_prediction")
