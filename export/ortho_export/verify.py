"""Checks an export folder again: what is in it, that it loads, and that it still says the same."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ortho_edge.atomic import recover
from ortho_edge.checkpoint import (
    SYMBOLS,
    Checkpoint,
    TrainedSubnet,
    load_checkpoint,
    shipped_checkpoint,
)
from ortho_edge.cli import UserError
from ortho_edge.compaction import DenseEncoder, compact
from ortho_edge.decoding import greedy_text
from ortho_edge.subnet import Subnet
from ortho_export.artefact import Recognizer, load_artefact
from ortho_export.executorch import read_facts
from ortho_export.facts import checkpoint_digest
from ortho_export.fidelity import check_fidelity
from ortho_export.machine import this_machine
from ortho_export.manifest import MANIFEST, SCHEMA_VERSION, digest, read_manifest
from ortho_export.parity import ParityError, check_parity, parity_clips
from ortho_export.sample import SAMPLE, load_sample
from ortho_export.ties import could_say
from ortho_export.words import describe_words

GOOD, WRONG, SKIPPED, OTHER = "ok", "WRONG", "not checked", "differs"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding about an export folder.

    Attributes:
        what: What was looked at, such as `model.pte: SHA-256`.
        outcome: `ok`, `WRONG`, `not checked`, or `differs` where another processor may differ.
        detail: The figures, or why.
    """

    what: str
    outcome: str
    detail: str = ""


def verify(folder: Path, checkpoint: Path | None = None) -> tuple[Check, ...]:
    """Looks at everything that the manifest of an export folder states.

    Args:
        folder: The folder.
        checkpoint: Where the artefacts come from; the checkpoint that ships is tried without one.
            Parity and transcripts need it, and are `not checked` where its digest is another.

    Raises:
        UserError: There is no export at `folder`, or a checkpoint that was named cannot be used.
    """
    if not folder.exists():
        recover(folder)
    if not folder.is_dir():
        raise UserError(f"no export folder at {folder}")
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"{folder} holds no {MANIFEST} of an export, or it is damaged")
    if manifest["schema_version"] != SCHEMA_VERSION:
        raise UserError(
            f"{folder / MANIFEST} has schema version {manifest['schema_version']}; "
            f"this version reads {SCHEMA_VERSION}"
        )
    try:
        return tuple(_checks(folder, manifest, checkpoint))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / MANIFEST} is damaged: {error!r} in it") from error


def table(checks: tuple[Check, ...]) -> str:
    """The findings as a table of three columns."""
    width = max(len(one.what) for one in checks)
    return "\n".join(f"{one.what:<{width}}  {one.outcome:<11}  {one.detail}" for one in checks)


def complain(folder: Path, checks: tuple[Check, ...]) -> None:
    """Ends well only if nothing is wrong.

    Raises:
        UserError: Something is; the message names all of it.
    """
    wrong = [f"{one.what}: {one.detail}" for one in checks if one.outcome == WRONG]
    if wrong:
        raise UserError(f"{folder} is not as it was exported: {'; '.join(wrong)}")


def _checks(folder: Path, manifest: dict[str, Any], named: Path | None) -> Iterator[Check]:
    intact = set()
    for name, stated in manifest["files"].items():
        found = _file(folder, name, stated)
        if found.outcome == GOOD:
            intact.add(name)
        yield found
    extra = sorted({one.name for one in folder.iterdir()} - {*manifest["files"], MANIFEST})
    yield Check(
        what="nothing else in the folder",
        outcome=WRONG if extra else GOOD,
        detail=f"not in {MANIFEST}: {', '.join(extra)}" if extra else "",
    )
    yield from _budget(manifest)
    recognizers: dict[str, Recognizer] = {}
    for name, stated in manifest["files"].items():
        if "runtime" not in stated and "target" not in stated:
            continue
        if name not in intact:
            yield Check(what=f"{name}: loads", outcome=SKIPPED, detail="the file is not intact")
            continue
        if "runtime" not in stated:
            yield _never_executed(folder / name, manifest)
            if "vela" in stated:
                yield from _vela(name, stated["vela"], manifest["budget"])
            continue
        try:
            recognizers[name] = load_artefact(folder / name)
        except UserError as error:
            yield Check(what=f"{name}: loads", outcome=WRONG, detail=str(error))
            continue
        yield _contents(name, recognizers[name], manifest, folder)
    yield from _behaviour(recognizers, manifest, named)


def _file(folder: Path, name: str, stated: Mapping[str, Any]) -> Check:
    what = f"{name}: SHA-256"
    path = folder / name
    if Path(name).name != name:
        return Check(what=what, outcome=WRONG, detail=f"{MANIFEST} names a file elsewhere")
    if not path.is_file():
        return Check(what=what, outcome=WRONG, detail="the file is missing")
    size, expected = path.stat().st_size, stated["bytes"]
    if size != expected:
        return Check(what=what, outcome=WRONG, detail=f"{size} bytes instead of {expected}")
    if (found := digest(path)) != stated["sha256"]:
        return Check(what=what, outcome=WRONG, detail=f"{found[:12]}... is not the recorded one")
    return Check(what=what, outcome=GOOD, detail=f"{found[:12]}..., {size:,} bytes")


def _budget(manifest: Mapping[str, Any]) -> Iterator[Check]:
    """The recorded sizes, which the files were compared with, against the recorded limits."""
    budget = manifest["budget"]
    figures = [
        (f"{name}: file size", stated["bytes"] / 1e6, budget["size_mb"], "MB")
        for name, stated in manifest["files"].items()
        if "runtime" in stated or "target" in stated
    ]
    figures.append(("parameters", manifest["parameters"], budget["params"], ""))
    for what, value, limit, unit in figures:
        if limit is None or limit == float("inf"):
            yield Check(what=what, outcome=GOOD, detail="no limit")
            continue
        yield Check(
            what=what,
            outcome=GOOD if value <= limit else WRONG,
            detail=f"{value:.10g} of at most {limit:.10g} {unit}".rstrip(),
        )


def _contents(
    name: str, recognizer: Recognizer, manifest: Mapping[str, Any], folder: Path
) -> Check:
    """Whether an artefact says of itself what the manifest says of it."""
    bounds = manifest["bounds"]
    pairs = {
        "subnet": (recognizer.subnet, manifest["subnet"]["name"]),
        "checkpoint digest": (recognizer.checkpoint_digest, manifest["checkpoint_digest"]),
        "shortest input": (recognizer.min_frames, bounds["min_frames"]),
        "longest input": (recognizer.max_frames, bounds["max_frames"]),
        "symbols": (_sha256(recognizer.tokens.lines()), manifest["files"][SYMBOLS]["sha256"]),
    }
    wrong = [f"{what} {one}, not {other}" for what, (one, other) in pairs.items() if one != other]
    return Check(
        what=f"{name}: loads",
        outcome=WRONG if wrong else GOOD,
        detail="; ".join(wrong) or f"subnet {recognizer.subnet}",
    )


def _never_executed(path: Path, manifest: Mapping[str, Any]) -> Check:
    """What can be told of a program whose backend is not on this machine."""
    try:
        facts = read_facts(path)
    except UserError as error:
        return Check(what=f"{path.name}: loads", outcome=WRONG, detail=str(error))
    if facts.checkpoint_digest != manifest["checkpoint_digest"]:
        detail = f"checkpoint digest {facts.checkpoint_digest}"
        return Check(what=f"{path.name}: loads", outcome=WRONG, detail=detail)
    stated = (manifest["bounds"]["min_frames"], manifest["bounds"]["max_frames"])
    if (bounds := (facts.min_frames, facts.max_frames)) != stated:
        detail = f"takes {bounds[0]} to {bounds[1]} frames, not {stated[0]} to {stated[1]}"
        return Check(what=f"{path.name}: loads", outcome=WRONG, detail=detail)
    return Check(
        what=f"{path.name}: parity, transcript", outcome=SKIPPED, detail="its backend is not here"
    )


def _vela(name: str, vela: Mapping[str, Any], budget: Mapping[str, Any]) -> Iterator[Check]:
    """What Vela said when the program was made, against the limits."""
    for what, value, limit, unit in (
        ("cycles", vela["milliseconds"], budget["latency_ms"], "ms"),
        ("SRAM", vela["sram_bytes"] / 1e6, budget["memory_mb"], "MB"),
    ):
        held = limit is None or value <= limit
        most = "no limit" if limit is None else f"{value:.4g} of at most {limit:.4g} {unit}"
        yield Check(what=f"{name}: Vela's {what}", outcome=GOOD if held else WRONG, detail=most)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _behaviour(
    recognizers: Mapping[str, Recognizer], manifest: Mapping[str, Any], named: Path | None
) -> Iterator[Check]:
    """Parity and transcripts, where the checkpoint is at hand."""
    path = shipped_checkpoint() if named is None else named
    checkpoint = load_checkpoint(path)
    same = checkpoint_digest(path) == manifest["checkpoint_digest"]
    stated = f"{manifest['checkpoint']} {manifest['checkpoint_digest'][:12]}..."
    if not same:
        why = (
            f"{path} is not checkpoint {stated}"
            if named
            else f"made from checkpoint {stated}; name its folder with --checkpoint"
        )
        yield Check(
            what="checkpoint, parity, transcripts", outcome=WRONG if named else SKIPPED, detail=why
        )
        return
    trained = _subnet(checkpoint, manifest["subnet"])
    kept = list(trained.subnet.kept) == manifest["subnet"]["kept"]
    yield Check(
        what="checkpoint",
        outcome=GOOD if kept else WRONG,
        detail=stated if kept else f"its {trained.name} keeps other components",
    )
    encoder = compact(checkpoint.supernet, trained.subnet, trained.head)
    for name, recognizer in recognizers.items():
        yield _parity(name, recognizer, encoder, manifest["files"][name], path)
        yield _transcript(name, recognizer, manifest["files"][name], manifest["sample"], path)


def _subnet(checkpoint: Checkpoint, stated: Mapping[str, Any]) -> TrainedSubnet:
    """The exported subnet: a trained one by its name, a composed one by its components."""
    if stated.get("trained", True):
        return checkpoint.subnet(stated["name"])
    size = len(checkpoint.supernet.space)
    try:
        subnet = Subnet(size, tuple(stated["kept"]))
    except ValueError as error:
        raise UserError(f"{MANIFEST} is damaged: {error}") from error
    return TrainedSubnet(
        name=stated["name"], subnet=subnet, head=stated["head"], target=stated["target"]
    )


def _parity(
    name: str,
    recognizer: Recognizer,
    encoder: DenseEncoder,
    stated: Mapping[str, Any],
    checkpoint: Path,
) -> Check:
    what = f"{name}: parity"
    assert recognizer.max_frames is not None
    clips = parity_clips(load_sample(checkpoint), recognizer.min_frames, recognizer.max_frames)
    try:
        if stated["precision"] == "fp32":
            parity = check_parity(encoder, recognizer, clips, stated["parity"]["limit"])
            detail = f"{parity.max_abs_error:.1e} of {parity.limit:g} allowed"
        else:
            one = check_fidelity(encoder, recognizer, clips, stated["precision"])
            words = describe_words(None if one.words is None else asdict(one.words))
            detail = f"{one.snr_db:.1f} dB of at least {one.floor_db:g}; {words};"
    except ParityError as error:
        return Check(what=what, outcome=WRONG, detail=str(error))
    return Check(what=what, outcome=GOOD, detail=f"{detail} on {len(clips)} clips")


def _transcript(
    name: str,
    recognizer: Recognizer,
    stated: Mapping[str, Any],
    described: Mapping[str, Any] | None,
    checkpoint: Path,
) -> Check:
    """What is heard in the sample, beside what was heard where the artefact was made.

    In fp32 another transcript is right only where the limit of parity could make it, there and
    here. What a quantised artefact makes of one clip is told and proves nothing: its words are
    counted over many utterances, with its parity.
    """
    what = f"{name}: transcript of the sample"
    sample = load_sample(checkpoint)
    if described is None or sample is None:
        return Check(what=what, outcome=SKIPPED, detail=f"the checkpoint carries no {SAMPLE}")
    log_probs = recognizer.log_probs(recognizer.features(sample))
    heard, expected = greedy_text(log_probs, recognizer.tokens), described["heard"][name]
    if heard == expected:
        return Check(what=what, outcome=GOOD, detail=heard)
    if stated["precision"] != "fp32":
        there, here = stated["fidelity"]["machine"], this_machine()
        detail = f"{heard!r} on {here}; {expected!r} where it was made, on {there}"
        return Check(what=what, outcome=OTHER, detail=detail)
    if could_say(log_probs, expected, recognizer.tokens, 2 * stated["parity"]["limit"]):
        detail = f"{heard!r}, as likely as {expected!r} where it was made"
        return Check(what=what, outcome=GOOD, detail=detail)
    return Check(what=what, outcome=WRONG, detail=f"{heard!r} instead of {expected!r}")
