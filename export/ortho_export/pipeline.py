"""From a checkpoint and a device to a folder of verified artefacts."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ortho_edge.atomic import atomic_folder
from ortho_edge.checkpoint import SYMBOLS, Checkpoint, load_checkpoint
from ortho_edge.cli import UserError
from ortho_edge.compaction import DenseEncoder, compact
from ortho_edge.components import REFERENCE_SECONDS
from ortho_edge.devices.filter_banks import filter_bank_flops
from ortho_edge.devices.memory import can_measure, peak_memory_mb
from ortho_edge.fleet import Demand, select_for_all
from ortho_edge.precision import BY_DEFAULT, Precision
from ortho_edge.selector import Selection
from ortho_edge.subnet import Subnet
from ortho_export.accuracy import Accuracy, limits_of, measure_accuracy
from ortho_export.artefact import Recognizer, load_artefact
from ortho_export.auto import Choice, LatencyFrom, choose, predicted_ms
from ortho_export.calibration import Calibration, speech_for
from ortho_export.card import CARD, write_card
from ortho_export.checks import check_latency
from ortho_export.facts import (
    FRAMES_PER_SECOND,
    MAX_FRAMES,
    Facts,
    checkpoint_digest,
)
from ortho_export.fidelity import Fidelity, check_fidelity
from ortho_export.manifest import MANIFEST, read_manifest, write_manifest
from ortho_export.measure import (
    Latency,
    check_budget,
    load_model,
    load_program,
    measure_latency,
    size_mb,
)
from ortho_export.parity import Clips, Parity, check_parity, parity_clips
from ortho_export.report import describe
from ortho_export.results import (
    EXECUTORCH,
    ONNXRUNTIME,
    Export,
    Request,
    check_together,
    file_name,
)
from ortho_export.sample import SAMPLE, describe_sample, load_sample, sample_text
from ortho_export.stages import Stages
from ortho_export.targets import check_targets, executed, target_file, write_target
from ortho_export.writing import Job, write_all

LOADERS = {EXECUTORCH: load_program, ONNXRUNTIME: load_model}


@dataclass(frozen=True, kw_only=True)
class _Model:
    """What is exported."""

    checkpoint: Checkpoint
    selection: Selection
    encoder: DenseEncoder
    facts: Facts
    sample: np.ndarray | None
    calibration: Calibration = ()


def export(request: Request) -> Export:
    """Selects, compacts, writes, verifies and measures; the folder appears only when all is well.

    Raises:
        UserError: The checkpoint cannot be used, nothing fits the budget, an artefact exceeds it,
            or what stands at the folder to write is no earlier export.
        ParityError: An artefact disagrees with the encoder it was made from.
    """
    check_out(request.out)
    check_together(request)
    check_targets(request.also, request.input)
    model = _select(request)
    jobs = [*_jobs(request, model), *_warm_ups(request, model)]
    stages = 2 + len(jobs) + (request.dev_set is not None) + len(request.also)
    with atomic_folder(request.out) as folder, Stages(stages) as stage:
        (folder / SYMBOLS).write_text(model.checkpoint.tokens.lines(), "utf-8")
        delegations = {}
        for one in stage.written(write_all(jobs), [job.file for job in jobs]):
            (folder / one.file).write_bytes(one.content)
            delegations[one.file] = one.delegation
        tried = {
            key: load_artefact(folder / request.file(*key), trusted=True) for key in request.tries
        }
        accuracy = None
        if request.dev_set is not None:
            with stage("measuring error rates"):
                encoders = {request.file(*key): one.encode_batch for key, one in tried.items()}
                accuracy = measure_accuracy(
                    model.encoder,
                    encoders,
                    request.dev_set,
                    model.checkpoint.tokens,
                    limits_of(tried.values()),
                )
        choices = _choose(request, model, tried, accuracy)
        for runtime, precision in request.tries:
            if any(one.runtime == runtime and one.precision != precision for one in choices):
                (folder / request.file(runtime, precision)).unlink()
                del tried[runtime, precision]
        precisions: dict[str, Precision] = dict(tried.keys())
        recognizers = {runtime: one for (runtime, _), one in tried.items()}
        with stage("comparing with the eager encoder"):
            agreement = _compare(request, model, recognizers, precisions, accuracy)
        extra = {}
        for target in request.also:
            with stage(f"writing {target_file(target, request.input)}"):
                extra |= write_target(target, model.encoder, model.facts, folder, _clips(model))
        with stage("measuring"):
            latency = measure_latency(recognizers, request.budget.audio_seconds)
            memory = _peak_memory(request, folder, precisions)
            checks = check_latency(
                request.profile,
                model.selection.chosen.latency,
                {runtime: folder / request.file(runtime, one) for runtime, one in tried},
                latency,
                request.input,
            )
        result = _result(request, model, folder, precisions, agreement, latency, memory)
        result = dataclasses.replace(
            result,
            accuracy=accuracy,
            choices=choices,
            checks=checks,
            delegation=next(filter(None, (delegations[request.file(*key)] for key in tried)), None),
        )
        check_budget(
            request.budget,
            [folder / one for one in (*map(result.file, request.runtimes), *extra)],
            result.params,
            {one.runtime: one.found_ms for one in checks if one.found_ms is not None},
            memory,
            None if result.delegation is None else result.delegation.planned_bytes / 1e6,
        )
        manifest = describe(result, folder)
        manifest["files"] |= extra
        by_file = {result.file(runtime): one for runtime, one in recognizers.items()}
        by_file |= {name: load_artefact(folder / name, trusted=True) for name in executed(extra)}
        manifest["sample"] = describe_sample(request.checkpoint, by_file)
        manifest["files"][CARD] = write_card(folder, manifest)
        write_manifest(folder, manifest)
    return result


def transcribe_sample(checkpoint: Path, out: Path, files: Sequence[str]) -> list[str]:
    """Lines for a person: what each artefact in `out` hears in the checkpoint's sample clip."""
    sample = load_sample(checkpoint)
    if sample is None:
        return [f"no {SAMPLE} in {checkpoint}: nothing to transcribe"]
    lines = []
    if (words := sample_text(checkpoint)) is not None:
        lines.append(f"{SAMPLE} says: {words}")
    return [
        *lines,
        *(f"{file} hears: {load_artefact(out / file).transcribe(sample)}" for file in files),
    ]


def check_out(out: Path) -> None:
    """Refuses to replace what was not exported, and folders that cannot be written.

    Raises:
        UserError: One of both.
    """
    out = out.absolute()
    if out.is_dir():
        if any(out.iterdir()) and read_manifest(out) is None:
            raise UserError(
                f"{out} holds files but no {MANIFEST} of an earlier export; name another folder"
            )
    elif out.exists():
        raise UserError(f"{out} is a file; name a folder to write")
    parent = next(one for one in out.parents if one.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"cannot write {out}: {parent} is not a folder that can be written")


def _select(request: Request) -> _Model:
    checkpoint = load_checkpoint(request.checkpoint)
    demand = Demand(
        profile=request.profile,
        budget=request.budget,
        runtimes=request.runtimes,
        # What auto may take needs no more than fp32 does.
        precision="fp32" if request.precision == "auto" else request.precision,
        takes=request.input,
    )
    (selection,) = select_for_all([demand], checkpoint, request.subnet)
    trained = selection.trained
    facts = Facts(
        subnet=trained.name,
        tokens=checkpoint.tokens,
        checkpoint_digest=checkpoint_digest(request.checkpoint),
        max_frames=max(MAX_FRAMES, round(request.budget.audio_seconds * FRAMES_PER_SECOND)),
        input=request.input,
    )
    sample = load_sample(request.checkpoint)
    return _Model(
        checkpoint=checkpoint,
        selection=selection,
        encoder=compact(checkpoint.supernet, trained.subnet, trained.head),
        facts=facts,
        sample=sample,
        calibration=speech_for(
            request.precision, sample, request.dev_set, checkpoint.tokens, facts
        ),
    )


def _jobs(request: Request, model: _Model) -> list[Job]:
    """Every artefact that the request tries."""
    return [
        Job(
            file=request.file(runtime, precision),
            runtime=runtime,
            precision=precision,
            encoder=model.encoder,
            facts=model.facts,
            calibration=model.calibration,
        )
        for runtime, precision in request.tries
    ]


def _warm_ups(request: Request, model: _Model) -> list[Job]:
    """The smallest artefact there is for each runtime whose peak memory will be measured."""
    if not (request.is_for_this_host and can_measure()):
        return []
    supernet = model.checkpoint.supernet
    empty = compact(supernet, Subnet.of(len(supernet.space), ()))
    return [
        Job(
            file=_warm_up(request, runtime),
            runtime=runtime,
            precision="fp32",
            encoder=empty,
            facts=model.facts,
        )
        for runtime in request.runtimes
    ]


def _warm_up(request: Request, runtime: str) -> str:
    return f"warm-up-{file_name(runtime, request.input)}"


def _clips(model: _Model) -> Clips:
    return parity_clips(model.sample, model.facts.min_frames, model.facts.max_frames)


def _choose(
    request: Request,
    model: _Model,
    tried: Mapping[tuple[str, Precision], Recognizer],
    accuracy: Accuracy | None,
) -> tuple[Choice, ...]:
    """A precision for every runtime; nothing where the request names it."""
    if request.precision != "auto":
        return ()
    assert accuracy is not None
    choices = []
    for runtime in request.runtimes:
        files = [request.file(runtime, one) for one in BY_DEFAULT]
        source: LatencyFrom = "predicted for the device"
        space = model.checkpoint.supernet.space
        milliseconds = predicted_ms(request.profile, model.selection, runtime, space, request.input)
        if milliseconds is None:
            source = "measured on this host"
            found = measure_latency(
                {file: tried[runtime, one] for one, file in zip(BY_DEFAULT, files, strict=True)},
                request.budget.audio_seconds,
            )
            milliseconds = [one.milliseconds for one in found]
        rates: list[tuple[Precision, float]] = [
            (one, accuracy.artefacts[file]) for one, file in zip(BY_DEFAULT, files, strict=True)
        ]
        choices.append(choose(runtime, rates, milliseconds, accuracy.fp32, source))
    return tuple(choices)


def _compare(
    request: Request,
    model: _Model,
    recognizers: Mapping[str, Recognizer],
    precisions: Mapping[str, Precision],
    accuracy: Accuracy | None,
) -> dict[str, Parity | Fidelity]:
    clips = _clips(model)
    words = {} if accuracy is None else accuracy.agreement
    return {
        runtime: check_parity(model.encoder, one, clips)
        if (precision := precisions[runtime]) == "fp32"
        else check_fidelity(
            model.encoder, one, clips, precision, words.get(request.file(runtime, precision))
        )
        for runtime, one in recognizers.items()
    }


def _peak_memory(
    request: Request, folder: Path, precisions: Mapping[str, Precision]
) -> dict[str, float]:
    """Measured peak memory by runtime; nothing where this host is not the device."""
    peaks = {}
    for runtime in request.runtimes:
        # It makes the libraries count as loaded.
        warm_up = folder / _warm_up(request, runtime)
        if warm_up.exists():
            file = folder / request.file(runtime, precisions[runtime])
            peaks[runtime] = peak_memory_mb(
                LOADERS[runtime], file, warm_up, request.budget.audio_seconds
            )
            warm_up.unlink()
    return peaks


def _result(
    request: Request,
    model: _Model,
    folder: Path,
    precisions: Mapping[str, Precision],
    agreement: Mapping[str, Parity | Fidelity],
    latency: tuple[Latency, ...],
    memory_mb: Mapping[str, float],
) -> Export:
    space = model.checkpoint.supernet.space
    before = filter_bank_flops(REFERENCE_SECONDS, request.input)
    flops = before + space.flops(model.selection.trained.subnet, REFERENCE_SECONDS)
    return Export(
        request=request,
        selection=model.selection,
        facts=model.facts,
        precisions=precisions,
        params=sum(parameter.numel() for parameter in model.encoder.parameters()),
        flops=flops,
        flops_share=flops / (before + space.flops(space.full(), REFERENCE_SECONDS)),
        sizes_mb={
            runtime: size_mb(folder / request.file(runtime, one))
            for runtime, one in precisions.items()
        },
        parity={name: one for name, one in agreement.items() if isinstance(one, Parity)},
        fidelity={name: one for name, one in agreement.items() if isinstance(one, Fidelity)},
        latency=latency,
        memory_mb=memory_mb,
    )
