"""From a checkpoint and an Ethos-U profile to a folder with a program that was never executed."""

import tempfile
from pathlib import Path

import torch

from ortho_edge.atomic import atomic_folder
from ortho_edge.checkpoint import SYMBOLS, Checkpoint, load_checkpoint
from ortho_edge.cli import UserError
from ortho_edge.compaction import DenseEncoder, compact
from ortho_edge.components import REFERENCE_SECONDS
from ortho_edge.devices.latency import runtime_cost
from ortho_edge.devices.profile import DeviceProfile
from ortho_edge.fleet import Demand, select_for_all
from ortho_edge.selector import Selection
from ortho_export.card import CARD, write_card
from ortho_export.ethos_u.compiled import Compiled, check_delegation, compare
from ortho_export.ethos_u.environment import lower_all, python
from ortho_export.ethos_u.protocol import Answer, Job, Request
from ortho_export.ethos_u.windows import Windows, speech_windows
from ortho_export.executorch import read_facts
from ortho_export.facts import FEATURES_IN, FRAMES_PER_SECOND, Facts, checkpoint_digest
from ortho_export.manifest import describe_file, write_manifest
from ortho_export.measure import check_budget
from ortho_export.pipeline import check_out
from ortho_export.report import describe
from ortho_export.results import ETHOS_U, Export
from ortho_export.results import Request as ExportRequest
from ortho_export.sample import describe_sample, load_sample

PRECISION = "int8-static"


def export(request: ExportRequest) -> Export:
    """Selects, compacts, lowers, compares and asks Vela; the folder appears when all is well.

    Raises:
        UserError: The environment is missing, an option makes no sense here, nothing fits the
            budget, or the program exceeds it.
        ParityError: What the program computes is too far from the encoder.
    """
    check_out(request.out)
    _check(request)
    checkpoint = load_checkpoint(request.checkpoint)
    demand = Demand(
        profile=request.profile, budget=request.budget, runtimes=(ETHOS_U,), precision=PRECISION
    )
    (selection,) = select_for_all([demand], checkpoint, request.subnet)
    trained = selection.trained
    encoder = compact(checkpoint.supernet, trained.subnet, trained.head)
    frames = round(request.budget.audio_seconds * FRAMES_PER_SECOND)
    facts = Facts(
        subnet=trained.name,
        tokens=checkpoint.tokens,
        checkpoint_digest=checkpoint_digest(request.checkpoint),
        min_frames=frames,
        max_frames=frames,
    )
    speech = None if request.dev_set is None else (request.dev_set.name, request.dev_set.cuts)
    windows = speech_windows(load_sample(request.checkpoint), speech, checkpoint.tokens, frames)
    python()
    with atomic_folder(request.out) as folder, tempfile.TemporaryDirectory() as exchange:
        answer = _lower(Path(exchange), request.profile, checkpoint, selection, facts, windows)
        compiled = _findings(request.profile, selection, encoder, facts, windows, answer)
        program = folder / compiled.file
        program.write_bytes((Path(exchange) / compiled.lowered.file).read_bytes())
        if not states(program, facts):
            raise AssertionError(f"{program.name} does not state the facts it was made with")
        (folder / SYMBOLS).write_text(checkpoint.tokens.lines(), "utf-8")
        result = _result(request, selection, encoder, facts, checkpoint, compiled)
        found = f"{compiled.accelerator} by Vela"
        check_budget(
            request.budget,
            [program],
            result.params,
            {found: compiled.milliseconds},
            {found: compiled.lowered.cost.sram_bytes / 1e6},
        )
        manifest = describe(result, folder)
        manifest["files"][program.name] = {**describe_file(program), **compiled.entry()}
        manifest["sample"] = describe_sample(request.checkpoint, {})
        manifest["files"][CARD] = write_card(folder, manifest)
        write_manifest(folder, manifest)
    return result


def states(program: Path, facts: Facts) -> bool:
    """Whether a program says of itself what it was made with."""
    return read_facts(program) == facts


def accelerator(profile: DeviceProfile) -> str:
    """Vela's name of the accelerator: that of the core that costs are for."""
    return profile.hardware.runs_on


def _check(request: ExportRequest) -> None:
    """Refuses what an Ethos-U does not take.

    Raises:
        UserError: Something of it was asked for.
    """
    device = request.profile.name
    if request.input != FEATURES_IN:
        raise UserError(f"{device} takes features only, not --input {request.input}")
    if request.also:
        raise UserError(f"--also {' '.join(request.also)} is for CPUs and phones, not for {device}")


def _lower(
    exchange: Path,
    profile: DeviceProfile,
    checkpoint: Checkpoint,
    selection: Selection,
    facts: Facts,
    windows: Windows,
) -> Answer:
    trained, supernet = selection.trained, checkpoint.supernet
    job = Job(
        name=trained.name,
        kept=trained.subnet.kept,
        head=trained.head,
        frames=facts.max_frames,
    )
    return lower_all(
        Request(
            accelerator=accelerator(profile),
            architecture=supernet.architecture,
            num_heads=len(supernet.ctc_heads),
            jobs=[job],
            constants=facts.constants(),
            supernet=supernet.state_dict(),
            calibration=windows.calibration,
            clips=windows.checked,
        ),
        exchange,
    )


@torch.no_grad()
def _findings(
    profile: DeviceProfile,
    selection: Selection,
    encoder: DenseEncoder,
    facts: Facts,
    windows: Windows,
    answer: Answer,
) -> Compiled:
    name = selection.trained.name
    lowered = answer.lowered[name]
    check_delegation(lowered)
    lengths = torch.tensor([facts.max_frames])
    expected = {key: encoder(one, lengths)[0][0].numpy() for key, one in windows.checked.items()}
    speed = runtime_cost(profile, ETHOS_U, PRECISION).assumed_speed
    assert speed is not None
    (predicted,) = selection.chosen.latency
    return Compiled(
        file=f"model.{accelerator(profile)}.pte",
        accelerator=accelerator(profile),
        frames=facts.max_frames,
        calibrated_on=windows.source,
        lowered=lowered,
        milliseconds=speed.milliseconds(lowered.cost.cycles),
        predicted_cycles=predicted.milliseconds * 1e6 * speed.clock_ghz,
        predicted_sram_bytes=selection.chosen.memory_mb * 1e6,
        agreement=compare(name, answer, expected, facts.tokens),
    )


def _result(
    request: ExportRequest,
    selection: Selection,
    encoder: DenseEncoder,
    facts: Facts,
    checkpoint: Checkpoint,
    compiled: Compiled,
) -> Export:
    space = checkpoint.supernet.space
    flops = space.flops(selection.trained.subnet, REFERENCE_SECONDS)
    return Export(
        request=request,
        selection=selection,
        facts=facts,
        precisions={},
        params=sum(parameter.numel() for parameter in encoder.parameters()),
        flops=flops,
        flops_share=flops / space.flops(space.full(), REFERENCE_SECONDS),
        sizes_mb={},
        parity={},
        latency=(),
        compiled=compiled,
    )
