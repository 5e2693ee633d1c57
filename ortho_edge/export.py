"""Command: exports the subnet that fits a device, or checks an export again.

python -m ortho_edge.export --device pixel8 [--checkpoint DIR] [--out DIR] [--format all]
python -m ortho_edge.export --verify DIR [--checkpoint DIR]
"""

import shlex
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from ortho_edge.budget_options import BudgetOptions
from ortho_edge.cli import UserError, run
from ortho_edge.precision import Asked

ETHOS_U = "ethos-u"
"""The runtime in the profile of an Ethos-U; its programs are made by another pipeline."""


@dataclass(frozen=True, kw_only=True)
class Arguments(BudgetOptions):
    """Export the most accurate subnet that fits a device, as ExecuTorch program and ONNX model.

    Every artefact is compared with the encoder it was made from and measured against the budget;
    the folder appears only when all is well. Ends by transcribing a clip. With --verify an earlier
    export is checked instead, and nothing is written.
    """

    device: str | None = None
    """Name of a device, such as pixel8 or host, or a profile's .toml file."""
    verify: Path | None = None
    """Folder of an earlier export: check digests, contents, parity, transcripts and budget."""
    checkpoint: Path | None = None
    """Checkpoint folder; by default the one that ships."""
    out: Path | None = None
    """Folder to write, exports/<device> by default; an earlier export there is replaced."""
    format: Literal["all", "executorch", "onnx"] = "all"
    """What to write."""
    input: Literal["features", "audio"] = "features"
    """What the artefacts take: filter banks, or 16 kHz samples with the filter banks inside."""
    also: tuple[Literal["coreml", "vulkan", "ort"], ...] = ()
    """More artefacts of the same subnet: a Core ML or Vulkan program, which is never executed here,
    and the model in ONNX Runtime's own format."""
    subnet: Literal["trained", "any"] = "trained"
    """trained: a size whose error rate was measured. any: whatever fills the budget best, composed
    of the components that the trained sizes keep; its error rate is unknown."""
    precision: Asked | None = None
    """Of the artefacts: fp32, the default; int8, which is smaller and faster and rounds a little;
    fp16, half as large; int8-static, with scales taken from speech; int4, smaller and slower; or
    auto, of fp32 and int8 the faster that keeps the word error rate on --dev-set within 0.3 points
    of fp32. An Ethos-U takes int8-static and nothing else."""
    dev_set: str | None = None
    """Labelled speech to measure error rates on: RECIPE/SET such as digits/dev, or a folder with
    transcripts.tsv (its columns utterance, speaker, text are read) and audio/<utterance>.flac."""
    data: Path | None = None
    """Folder of the corpora of RECIPE/SET; by default ORTHO_EDGE_DATA, else ../shared/data."""


def main(arguments: Arguments) -> None:
    """Writes the folder, prints the table and transcribes the sample clip.

    Raises:
        UserError: The device is unknown, the checkpoint unusable or the budget impossible; or what
            is verified is not as it was exported.
    """
    if arguments.verify is not None:
        return _verify(arguments, arguments.verify)
    if arguments.device is None:
        raise UserError("name a device with --device, or an earlier export with --verify")
    from ortho_edge.devices.catalogue import load_profile

    profile = load_profile(arguments.device)
    if for_ethos_u := ETHOS_U in profile.runtimes:
        precision = _static(arguments)
    else:
        precision = arguments.precision or "fp32"

    import torch

    from ortho_edge.checkpoint import shipped_checkpoint
    from ortho_export.accuracy import dev_set
    from ortho_export.ethos_u import pipeline as ethos_u
    from ortho_export.pipeline import export, transcribe_sample
    from ortho_export.report import table
    from ortho_export.results import EXECUTORCH, ONNXRUNTIME, Request

    # More threads than free cores only slow the export down.
    torch.set_num_threads(1)
    runtimes = {
        "all": (EXECUTORCH, ONNXRUNTIME), "executorch": (EXECUTORCH,), "onnx": (ONNXRUNTIME,),
    }[arguments.format]  # fmt: skip
    if for_ethos_u:
        runtimes = (ETHOS_U,)
    request = Request(
        profile=profile,
        budget=arguments.budget(profile),
        checkpoint=arguments.checkpoint or shipped_checkpoint(),
        out=arguments.out or Path("exports") / profile.name,
        runtimes=runtimes,
        subnet=arguments.subnet,
        input=arguments.input,
        also=arguments.also,
        precision=precision,
        dev_set=None if arguments.dev_set is None else dev_set(arguments.dev_set, arguments.data),
        command=shlex.join(["python", "-m", "ortho_edge.export", *sys.argv[1:]]),
    )
    result = (ethos_u.export if for_ethos_u else export)(request)
    print(f"\n{table(result)}\n")
    for line in result.selection.explanation():
        print(line)
    print(f"\nwritten: {request.out}")
    if for_ethos_u:
        return
    files = [result.file(runtime) for runtime in runtimes]
    for line in transcribe_sample(request.checkpoint, request.out, files):
        print(line)


def _static(arguments: Arguments) -> Literal["int8-static"]:
    """The one precision of an Ethos-U.

    Raises:
        UserError: Another was asked for, or another kind of file.
    """
    if arguments.precision not in (None, "int8-static"):
        raise UserError(
            f"{arguments.device} takes int8-static only, not --precision {arguments.precision}"
        )
    if arguments.format == "onnx":
        raise UserError(f"{arguments.device} takes an ExecuTorch program, not --format onnx")
    return "int8-static"


def _verify(arguments: Arguments, folder: Path) -> None:
    """Prints what is right and wrong about an earlier export.

    Raises:
        UserError: Something is wrong with it, or an option makes no sense here.
    """
    changed = {
        one.name
        for one in fields(arguments)
        if getattr(arguments, one.name) != one.default and one.name not in ("verify", "checkpoint")
    }
    if changed:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(changed))
        raise UserError(f"--verify takes no option but --checkpoint; leave out {flags}")
    import torch

    from ortho_export.verify import complain, table, verify

    torch.set_num_threads(1)
    checks = verify(folder, arguments.checkpoint)
    print(table(checks))
    complain(folder, checks)
    print(f"\n{folder} is as it was exported")


if __name__ == "__main__":
    run(main, Arguments, prog="python -m ortho_edge.export")
