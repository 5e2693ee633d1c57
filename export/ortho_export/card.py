"""`model_card.md`: an export folder in words, for who finds it later."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ortho_edge.components import REFERENCE_SECONDS
from ortho_export.facts import AUDIO_IN
from ortho_export.manifest import describe_file
from ortho_export.report import LIMITS
from ortho_export.words import describe_words

CARD = "model_card.md"
_MARKS = re.compile(r"[|<>\[\]`*\\]")
"""What means something in Markdown within a line; an underscore within a word does not."""


def write_card(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the model card of an export folder.

    Args:
        folder: The folder; its other files must stand in it.
        manifest: What the manifest states, but for the card itself.

    Returns:
        The card's entry for the manifest.
    """
    (folder / CARD).write_text(card(manifest), "utf-8")
    return describe_file(folder / CARD)


UNTRAINED = (
    " It was composed for its budget and never trained as such: its error rate is unknown until it "
    "is measured."
)


def card(manifest: Mapping[str, Any]) -> str:
    """The text of a model card.

    Args:
        manifest: The content of the manifest.
    """
    attribution, command = manifest["attribution"], manifest["command"]
    # Names and transcripts are whatever their makers chose.
    manifest = plain(manifest)
    subnet = manifest["subnet"]
    shown = ", ".join(
        name
        for name, stated in manifest["files"].items()
        if "runtime" in stated or "target" in stated
    )
    bounds = manifest["bounds"]
    sections = {
        f"Model card: {subnet['name']} of {manifest['checkpoint']} for {manifest['device']}": (
            f"A Conformer-CTC speech recogniser: 16 kHz audio of "
            f"{_seconds(bounds, 'min_frames')} to {_seconds(bounds, 'max_frames')} s in, "
            f"text out. Artefacts: {shown}. "
            f"`tokens.txt` holds the symbols, `manifest.json` all that is said here and more.\n\n"
            f"Subnet {subnet['name']} keeps {len(subnet['kept'])} of {subnet['num_components']} "
            f"components: {manifest['parameters']:,} parameters, "
            f"{manifest['flops']['flops'] / 1e6:,.0f} M FLOPs for {REFERENCE_SECONDS:g} s of audio "
            f"({100 * manifest['flops']['share_of_full']:.0f} % of the full network)."
            + ("" if subnet["trained"] else UNTRAINED)
            + "".join(_runtimes(manifest))
        ),
        "Error rates": _table(("set", "per cent"), _error_rates(manifest)),
        "Cost": _table(("what", "figure", "provenance"), _costs(manifest)),
        "Budget": _table(("limit",), ((one,) for one in _limits(manifest["budget"]))),
        "Agreement with the checkpoint": _table(("file", "check", "figure"), _agreement(manifest)),
        "Data and attribution": _without_html(attribution or "")
        or "The checkpoint states none. Ask whoever trained it.",
        "Files": _table(
            ("file", "bytes", "SHA-256"),
            (
                (f"`{name}`", f"{stated['bytes']:,}", f"`{stated['sha256']}`")
                for name, stated in manifest["files"].items()
            ),
        )
        + "\n\nCheck them all with `python -m ortho_edge.export --verify FOLDER`.",
        "How to make it again": (
            f"{_fenced(command)}\n\n"
            f"Made {manifest['created']} from checkpoint {manifest['checkpoint']}, digest "
            f"`{manifest['checkpoint_digest']}`, with "
            + ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
            + "."
        ),
    }
    (title, lead), *rest = sections.items()
    body = "".join(f"\n## {heading}\n\n{text}\n" for heading, text in rest)
    return f"# {title}\n\n{lead}\n{body}"


def plain(content: Any) -> Any:
    """A manifest whose texts Markdown shows as they are: no table, link, code or HTML of theirs."""
    if isinstance(content, str):
        return _MARKS.sub(lambda mark: f"&#{ord(mark[0])};", " ".join(content.split()))
    if isinstance(content, Mapping):
        return {plain(name): plain(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(one) for one in content]
    return content


def _without_html(text: str) -> str:
    """Markdown of a checkpoint's own card, in which tags are text; links in brackets stay."""
    return re.sub(r"<(?!https?://[^\s<>\"']+>)", "&lt;", text)


def _fenced(command: str) -> str:
    """A command as a block of code, whatever backticks it has."""
    line = " ".join(command.split())
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{fence}sh\n{line}\n{fence}"


def _runtimes(manifest: Mapping[str, Any]) -> Iterator[str]:
    """The oldest that an ONNX file was tried in; that sherpa-onnx takes no audio and no int4."""
    for name, stated in manifest["files"].items():
        if "onnx" not in stated:
            continue
        form, tried = stated["onnx"], dict(stated["onnx"]["oldest_tried"])
        if stated["input"] == AUDIO_IN or stated["precision"] == "int4":
            tried.pop("sherpa-onnx", None)
        yield (
            f"\n\n`{name}` has IR version {form['ir_version']} and opset {form['opset']}. "
            f"The oldest runtimes that such files were tried in: "
            + ", ".join(f"{runtime} {release}" for runtime, release in tried.items())
            + "."
        )


def _seconds(bounds: Mapping[str, Any], key: str) -> str:
    return f"{bounds[key] / bounds['frames_per_second']:g}"


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _error_rates(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from _metrics(manifest["subnet"]["metrics"])
    if (accuracy := manifest.get("accuracy")) is not None:
        yield from _rates(accuracy, accuracy["name"])
        for group in accuracy["groups"]:
            yield from _rates(group, f"{group['name']} of {accuracy['name']}")


def _rates(accuracy: Mapping[str, Any], name: str) -> Iterator[tuple[str, str]]:
    what = f"WER on {name}, {accuracy['words']:,} words"
    yield f"{what}, fp32", f"{accuracy['fp32']:.2f}"
    for file, wer in accuracy["artefacts"].items():
        yield f"{what}, `{file}`", f"{wer:.2f}"


def _metrics(metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    for name, value in metrics.items():
        yield name.replace("_", " ").replace("wer", "WER").replace("cer", "CER"), f"{value:.2f}"
    if not metrics:
        yield "none", "not recorded"


def _costs(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    seconds = manifest["budget"]["audio_seconds"]
    latency, memory = manifest["latency"], manifest["memory_mb"]
    for one in latency["predicted"]:
        yield (
            f"latency, {one['runtime']}",
            f"{one['milliseconds'] * one['p50_ratio']:.2f} ms for {seconds:g} s of audio",
            f"predicted for {manifest['device']} in {one['precision']}, {one['basis']}",
        )
    for one in latency["measured"]:
        place = "the device" if one["on_the_device"] else "not the device"
        yield (
            f"latency, {one['runtime']}",
            f"{one['milliseconds']:.2f} ms for {one['seconds']:g} s of audio",
            f"measured on the exporting host ({place}): {one['where']}, one thread",
        )
    for one in latency["checked"]:
        yield f"latency, {one['runtime']}", one["text"], f"the budget, for {manifest['device']}"
    yield (
        "memory",
        f"{memory['predicted']:.1f} MB",
        f"predicted for {manifest['device']}, {memory['basis']}",
    )
    for name, stated in manifest["files"].items():
        if (vela := stated.get("vela")) is not None:
            yield from _vela_costs(name, vela, seconds)
    for runtime, megabytes in memory["measured"].items():
        yield f"memory, {runtime}", f"{megabytes:.1f} MB", "measured on the exporting host"
    for name, stated in manifest["files"].items():
        if "runtime" in stated or "target" in stated:
            yield f"file size, {name}", f"{stated['bytes'] / 1e6:.2f} MB", "measured"


def _vela_costs(
    name: str, vela: Mapping[str, Any], seconds: float
) -> Iterator[tuple[str, str, str]]:
    says = (
        f"Vela {vela['vela']}, {vela['system_config']}, {vela['memory_mode']}; not measured on any "
        "device"
    )
    yield (
        f"cycles, `{name}`",
        f"{vela['cycles']:,} for {seconds:g} s of audio, {vela['milliseconds']:.2f} ms; predicted "
        f"{vela['predicted_cycles']:,.0f}",
        says,
    )
    yield (
        f"SRAM, `{name}`",
        f"{vela['sram_bytes'] / 1e3:.0f} kB; predicted {vela['predicted_sram_bytes'] / 1e3:.0f} kB",
        says,
    )
    yield f"weights in flash, `{name}`", f"{vela['flash_bytes'] / 1e3:.0f} kB", says


def _limits(budget: Mapping[str, Any]) -> Iterator[str]:
    limits = [
        f"at most {text.format(budget[name], seconds=budget['audio_seconds'])}"
        for name, text in LIMITS.items()
        if budget[name] is not None and budget[name] != float("inf")
    ]
    yield from limits or ["none"]


def _agreement(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, stated in manifest["files"].items():
        if "parity" in stated:
            parity = stated["parity"]
            yield (
                f"`{name}`",
                f"largest error of a log-probability, {len(parity['frames'])} clips",
                f"{parity['max_abs_error']:.1e} of {parity['limit']:g} allowed; "
                f"{parity['same_transcripts']} transcripts the same; on {parity['machine']}",
            )
        if stated.get("executed") is False:
            pieces = stated["delegation"]["subgraphs"]
            yield f"`{name}`", "lowered, never executed", f"delegates: {pieces}"
        if "agreement" in stated:
            agreement = stated["agreement"]
            yield (
                f"`{name}`",
                f"its int8 graph by TOSA's reference model against the fp32 encoder, "
                f"{len(agreement['windows'])} windows of {stated['frames'] / 100:g} s",
                f"{agreement['tosa_db']:.1f} dB, at least {agreement['floor_db']:g} wanted; "
                f"{agreement['same_transcripts']} transcripts the same",
            )
        if "fidelity" in stated:
            fidelity = stated["fidelity"]
            yield (
                f"`{name}`",
                f"{stated['precision']} against the fp32 encoder, {len(fidelity['frames'])} clips",
                f"{fidelity['snr_db']:.1f} dB, at least {fidelity['floor_db']:g} wanted; "
                f"{describe_words(fidelity['words'])}; on {fidelity['machine']}",
            )
    sample = manifest["sample"]
    if sample is not None:
        if sample["says"] is not None:
            yield sample["clip"], "says", sample["says"]
        for name, heard in sample["heard"].items():
            yield f"`{name}`", f"hears in {sample['clip']}", heard or "nothing"
