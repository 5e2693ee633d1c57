"""An export in words: the table for a person and the content of the manifest."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ortho_edge.checkpoint import SYMBOLS
from ortho_edge.cli import UserError
from ortho_edge.components import REFERENCE_SECONDS
from ortho_edge.devices.profile import Budget
from ortho_export.auto import MARGIN
from ortho_export.facts import FRAMES_PER_SECOND
from ortho_export.manifest import describe_file, versions
from ortho_export.onnx import OLDEST
from ortho_export.opset import IR_VERSION, OPSET
from ortho_export.results import EXECUTORCH, ONNXRUNTIME, Export
from ortho_export.words import describe_words

CHECKPOINT_CARD, ATTRIBUTION = "README.md", "## Data and attribution"
"""Where a checkpoint states the licences of what it was trained on."""
LIMITS = {
    "latency_ms": "latency {:g} ms for {seconds:g} s of audio",
    "memory_mb": "memory {:g} MB",
    "size_mb": "file {:g} MB",
    "params": "{:,.0f} parameters",
    "flops": "{:,.0f} FLOPs for {seconds:g} s of audio",
}


def table(export: Export) -> str:
    """The result as one table of two columns."""
    rows = list(_rows(export))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _rows(export: Export) -> Iterator[tuple[str, str]]:
    profile, selection = export.request.profile, export.selection
    chosen, trained = selection.chosen, selection.trained
    yield "device", f"{profile.name}: {profile.description}"
    place = (
        f"number {selection.candidates[::-1].index(chosen) + 1} by size of "
        f"{len(selection.candidates)}"
        if selection.is_trained
        else "composed for this budget, not trained"
    )
    yield (
        "subnet",
        f"{trained.name}, {place}; keeps "
        f"{len(trained.subnet.kept)} of {trained.subnet.num_components} components",
    )
    yield "budget", f"at most {_budget(selection.budget)}"
    yield "parameters", f"{export.params:,}"
    yield (
        f"FLOPs at {REFERENCE_SECONDS:g} s",
        f"{export.flops / 1e6:,.0f} M, {100 * export.flops_share:.0f} % of the full network",
    )
    yield from _latency_rows(export)
    yield from _memory_rows(export)
    for runtime, megabytes in export.sizes_mb.items():
        yield f"file size, {export.file(runtime)}", f"{megabytes:.2f} MB"
    error_rate = chosen.error_rate
    yield "dev WER", "not recorded" if error_rate is None else f"{error_rate:.2f} %"
    yield from _accuracy_rows(export)
    if export.compiled is not None:
        yield from export.compiled.rows
    for runtime, one in export.parity.items():
        yield (
            f"parity error, {export.file(runtime)}",
            f"{one.max_abs_error:.1e} of {one.limit:g} allowed; "
            f"same transcripts on {one.same_transcripts} of {len(one.frames)} clips",
        )
    for runtime, one in export.fidelity.items():
        yield (
            f"agreement, {export.file(runtime)}",
            f"{one.snr_db:.1f} dB, at least {one.floor_db:g} wanted; "
            f"{describe_words(None if one.words is None else asdict(one.words))}; "
            f"on {one.machine}",
        )


def _accuracy_rows(export: Export) -> Iterator[tuple[str, str]]:
    for one in export.choices:
        others = ", ".join(
            f"{trial.precision} {trial.wer:.2f} % in {trial.milliseconds:.2f} ms"
            for trial in one.trials
        )
        yield (
            f"precision, {one.runtime}",
            f"{one.precision}, the fastest within {MARGIN:g} points of the fp32 WER: {others} "
            f"({one.latency_from})",
        )
    if (accuracy := export.accuracy) is not None:
        for runtime in export.precisions:
            name = export.file(runtime)
            yield (
                f"WER, {name}",
                f"{accuracy.artefacts[name]:.2f} % instead of {accuracy.fp32:.2f} % in fp32, "
                f"{accuracy.words:,} words of {accuracy.name}",
            )


def _latency_rows(export: Export) -> Iterator[tuple[str, str]]:
    seconds = export.selection.budget.audio_seconds
    for one in export.selection.chosen.latency:
        figure = (
            f"{one.p50_milliseconds:.2f} ms for {seconds:g} s on {export.request.profile.name}, "
            f"{one.basis}"
        )
        precision = export.precisions.get(one.runtime, one.precision)
        if one.precision != precision:
            figure = (
                f"not predicted for {precision}; the budget was held with {one.precision}: "
                + (figure)
            )
        yield f"predicted latency, {one.runtime}", figure
    where = "the device" if export.request.is_for_this_host else "not on the device"
    for one in export.latency:
        yield (
            f"measured latency, {one.runtime}",
            f"{one.milliseconds:.2f} ms for {one.seconds:g} s on this host ({where}): "
            f"{one.where}, one thread; p50 {one.p50_milliseconds:.2f} ms",
        )
    for one in export.checks:
        yield f"latency on {export.request.profile.name}, {one.runtime}", one.text


def _memory_rows(export: Export) -> Iterator[tuple[str, str]]:
    chosen = export.selection.chosen
    yield "predicted memory", f"{chosen.memory_mb:.3g} MB, {chosen.memory_basis}"
    planned = export.selection.chosen.planned_mb
    if export.delegation is not None and planned:
        yield (
            "planned memory",
            f"{export.delegation.planned_bytes / 1e6:.2f} MB of it in {EXECUTORCH}, "
            f"{planned:.2f} MB predicted",
        )
    for runtime, megabytes in export.memory_mb.items():
        yield f"measured memory, {runtime}", f"{megabytes:.1f} MB on this host"


def _budget(budget: Budget) -> str:
    words = [
        text.format(limit, seconds=budget.audio_seconds)
        for name, text in LIMITS.items()
        if (limit := getattr(budget, name)) is not None and limit < float("inf")
    ]
    return ", ".join(words) if words else "anything"


def attribution(checkpoint: Path) -> str | None:
    """What a checkpoint's card says about its data; None where it has no such section."""
    path = checkpoint / CHECKPOINT_CARD
    if not path.is_file():
        return None
    try:
        _, found, rest = path.read_text("utf-8").partition(f"{ATTRIBUTION}\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text: {error}") from error
    return rest.partition("\n## ")[0].strip() if found else None


def describe(export: Export, folder: Path) -> dict[str, Any]:
    """The content of the manifest; the files must stand in `folder`."""
    request, selection, facts = export.request, export.selection, export.facts
    trained = selection.trained
    budget = selection.budget
    return {
        "device": request.profile.name,
        "command": request.command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "checkpoint": request.checkpoint.resolve().name,
        "checkpoint_digest": facts.checkpoint_digest,
        "attribution": attribution(request.checkpoint),
        "subnet": {
            "name": trained.name,
            "trained": selection.is_trained,
            "head": trained.head,
            "target": trained.target,
            "num_components": trained.subnet.num_components,
            "kept": list(trained.subnet.kept),
            "metrics": dict(trained.metrics),
        },
        "budget": {name: getattr(budget, name) for name in (*LIMITS, "audio_seconds")},
        "parameters": export.params,
        "flops": {
            "seconds": REFERENCE_SECONDS,
            "flops": export.flops,
            "share_of_full": export.flops_share,
        },
        "latency": {
            "predicted": [{**asdict(one), "basis": one.basis} for one in selection.chosen.latency],
            "measured": [
                {**asdict(one), "threads": 1, "on_the_device": request.is_for_this_host}
                for one in export.latency
            ],
            "checked": [{**asdict(one), "text": one.text} for one in export.checks],
        },
        "memory_mb": {
            "predicted": selection.chosen.memory_mb,
            "planned": selection.chosen.planned_mb,
            "provenance": selection.chosen.memory_provenance,
            "basis": selection.chosen.memory_basis,
            "measured": dict(export.memory_mb),
        },
        "bounds": {
            **{
                name: value
                for name, value in facts.constants().items()
                if name in ("min_samples", "max_samples")
            },
            "min_frames": facts.min_frames,
            "max_frames": facts.max_frames,
            "frames_per_second": FRAMES_PER_SECOND,
            "subsampling_factor": facts.subsampling_factor,
        },
        "features": dict(facts.features),
        "accuracy": None if export.accuracy is None else asdict(export.accuracy),
        "precision": {
            "asked": request.precision,
            "chosen": [asdict(one) for one in export.choices],
        },
        "files": _files(export, folder),
    }


def _files(export: Export, folder: Path) -> dict[str, Any]:
    files = {SYMBOLS: describe_file(folder / SYMBOLS)}
    for runtime, precision in export.precisions.items():
        name = export.file(runtime)
        files[name] = {
            **describe_file(folder / name),
            "runtime": runtime,
            "precision": precision,
            "input": export.request.input,
        }
        if runtime == ONNXRUNTIME:
            files[name]["onnx"] = {
                "ir_version": IR_VERSION, "opset": OPSET, "oldest_tried": OLDEST
            }  # fmt: skip
        for what, found in (("parity", export.parity), ("fidelity", export.fidelity)):
            if runtime in found:
                files[name][what] = asdict(found[runtime])
    if export.delegation is not None:
        files[export.file(EXECUTORCH)]["delegation"] = asdict(export.delegation)
    return files
