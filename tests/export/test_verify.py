"""`python -m ortho_edge.export --verify`: an export is found intact, or what is wrong is named."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ortho_edge.checkpoint import save_checkpoint
from ortho_edge.cli import UserError, run
from ortho_edge.export import Arguments, main
from ortho_export import card, report, verify
from ortho_export.manifest import MANIFEST, describe_file, read_manifest
from tests.export.tiny import Exported, bursts, tiny_checkpoint

pytestmark = pytest.mark.export


@pytest.fixture
def folder(exported: Exported, tmp_path: Path) -> Path:
    """A copy of the export, to be damaged."""
    return Path(shutil.copytree(exported.folder, tmp_path / "device"))


@pytest.fixture
def few_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "parity_clips", lambda *args: {"short": bursts(0.77)})


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the manifest."""
    content = read_manifest(folder)
    assert content is not None
    change(content)
    (folder / MANIFEST).write_text(json.dumps(content))


def wrong(folder: Path, checkpoint: Path | None) -> dict[str, str]:
    return {
        one.what: one.detail
        for one in verify.verify(folder, checkpoint)
        if one.outcome == verify.WRONG
    }


def test_an_export_is_as_it_was_exported(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "--verify", str(exported.folder), "--checkpoint", str(exported.checkpoint)]
    monkeypatch.setattr(sys, "argv", words)
    run(main, Arguments, prog="export")
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split("  ")[0]: line for line in lines[:-2]}
    for name in ("model.pte", "model.onnx"):
        for check in ("SHA-256", "file size", "loads", "parity", "transcript of the sample"):
            assert "  ok  " in rows.pop(f"{name}: {check}")
    for name in ("tokens.txt: SHA-256", "model_card.md: SHA-256", "nothing else in the folder",
                 "parameters", "checkpoint"):  # fmt: skip
        assert "  ok" in rows.pop(name)
    assert not rows
    assert lines[-1] == f"{exported.folder} is as it was exported"


@pytest.mark.parametrize("name", ["model.pte", "model.onnx", "tokens.txt", "model_card.md"])
def test_a_changed_file_is_named(
    folder: Path, few_clips: None, exported: Exported, name: str
) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    (found,) = wrong(folder, exported.checkpoint).items()
    assert found[0] == f"{name}: SHA-256"
    (folder / name).write_bytes(content[:-1])
    (found,) = wrong(folder, exported.checkpoint).items()
    assert found == (f"{name}: SHA-256", f"{len(content) - 1} bytes instead of {len(content)}")
    (folder / name).unlink()
    (found,) = wrong(folder, exported.checkpoint).items()
    assert found == (f"{name}: SHA-256", "the file is missing")


def test_a_file_too_many_is_named(folder: Path, few_clips: None, exported: Exported) -> None:
    (folder / "model.bin").write_bytes(b"x")
    assert wrong(folder, exported.checkpoint) == {
        "nothing else in the folder": "not in manifest.json: model.bin"
    }


def test_a_forged_manifest_does_not_hide_another_model(
    folder: Path, few_clips: None, exported: Exported
) -> None:
    import onnx

    model = onnx.load(folder / "model.onnx")
    weights = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    weights.raw_data = b"\0" * len(weights.raw_data)
    onnx.save(model, folder / "model.onnx")
    edit(folder, lambda one: one["files"]["model.onnx"].update(
        describe_file(folder / "model.onnx")
    ))  # fmt: skip
    assert "differs by" in wrong(folder, exported.checkpoint)["model.onnx: parity"]


@pytest.mark.parametrize(
    ("change", "what", "detail"),
    [
        (lambda one: one["budget"].update(size_mb=0.01), "model.pte: file size", "at most 0.01 MB"),
        (lambda one: one["budget"].update(params=10), "parameters", "of at most 10"),
        (lambda one: one["subnet"].update(name="s050"), "model.onnx: loads", "subnet s100, not"),
        (lambda one: one["subnet"]["kept"].pop(), "checkpoint", "keeps other components"),
        (lambda one: one["bounds"].update(max_frames=9999), "model.pte: loads", "3000, not 9999"),
        (
            lambda one: one["sample"]["heard"].update({"model.pte": "NINE"}),
            "model.pte: transcript of the sample",
            "instead of 'NINE'",
        ),
        (
            lambda one: one["files"].update({"../secret": {"bytes": 1, "sha256": ""}}),
            "../secret: SHA-256",
            "elsewhere",
        ),
    ],
    ids=["size", "params", "subnet", "kept", "bounds", "transcript", "path"],
)
def test_what_the_manifest_states_is_compared(
    folder: Path, few_clips: None, exported: Exported,
    change: Callable[[dict[str, Any]], object], what: str, detail: str,
) -> None:  # fmt: skip
    edit(folder, change)
    assert detail in wrong(folder, exported.checkpoint)[what]


def test_an_artefact_that_states_another_checkpoint(
    folder: Path, few_clips: None, exported: Exported
) -> None:
    edit(folder, lambda one: one.update(checkpoint_digest="0" * 64))
    found = wrong(folder, exported.checkpoint)
    assert "checkpoint digest" in found["model.pte: loads"]
    assert "is not checkpoint tiny 000000000000..." in found["checkpoint, parity, transcripts"]


def test_without_its_checkpoint_the_rest_is_checked(folder: Path) -> None:
    outcomes = {one.what: one for one in verify.verify(folder)}
    skipped = [one for one in outcomes.values() if one.outcome == verify.SKIPPED]
    (one,) = skipped
    assert one.what == "checkpoint, parity, transcripts"
    assert "name its folder with --checkpoint" in one.detail
    assert outcomes["model.pte: loads"].outcome == verify.GOOD


def test_a_checkpoint_without_a_sample(
    folder: Path, exported: Exported, few_clips: None, tmp_path: Path
) -> None:
    save_checkpoint(tiny_checkpoint(), tmp_path / "bare")
    outcomes = {one.what: one.outcome for one in verify.verify(folder, tmp_path / "bare")}
    assert outcomes["model.pte: transcript of the sample"] == verify.SKIPPED
    assert outcomes["model.pte: parity"] == verify.GOOD


def test_mistakes_are_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (folder / "model.pte").write_bytes(b"half")
    (bare := tmp_path / "bare").mkdir()
    damaged, future = tmp_path / "damaged", tmp_path / "future"
    for path in (damaged, future):
        shutil.copytree(folder, path)
    edit(damaged, lambda one: one.pop("budget"))
    edit(future, lambda one: one.update(schema_version=99))
    for words, part in [
        (["--verify", folder], "model.pte: SHA-256: 4 bytes instead of"),
        (["--verify", bare], "holds no manifest.json"),
        (["--verify", tmp_path / "nowhere"], "no export folder at"),
        (["--verify", damaged], "damaged: KeyError('budget')"),
        (["--verify", future], "schema version 99"),
        (["--verify", folder, "--device", "pixel8"], "leave out --device"),
        (["--verify", folder, "--params", "1", "--size-mb", "1"], "leave out --params, --size-mb"),
        ([], "name a device with --device"),
    ]:
        monkeypatch.setattr(sys, "argv", ["export", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            run(main, Arguments, prog="export")
        error = capsys.readouterr().err
        assert stopped.value.code == 2
        assert (error.count("\n"), error.startswith("error: ")) == (1, True)
        assert part in error


def test_a_folder_between_two_names_is_verified(folder: Path, few_clips: None) -> None:
    holder = folder.parent / ".device.abcdefgh.partial"
    holder.mkdir()
    folder.rename(holder / "old")
    verify.complain(folder, verify.verify(folder))


def test_the_card_says_what_the_manifest_says(exported: Exported) -> None:
    manifest = read_manifest(exported.folder)
    assert manifest is not None
    text = (exported.folder / card.CARD).read_text("utf-8")
    assert text.startswith("# Model card: s100 of tiny for pixel8\n")
    assert "| dev WER | 5.00 |" in text
    assert "at most latency 1000 ms for 5 s of audio" in text
    for name, stated in manifest["files"].items():
        if name != card.CARD:
            assert f"| `{name}` | {stated['bytes']:,} | `{stated['sha256']}` |" in text
    assert manifest["command"] in text
    assert manifest["checkpoint_digest"] in text
    for one in (*manifest["latency"]["predicted"], *manifest["latency"]["measured"]):
        assert f"| latency, {one['runtime']} | {one['milliseconds']:.2f} ms for" in text
    assert text.count("measured on the exporting host (not the device)") == 2
    assert "not timed: an analytic estimate" in text
    assert "predicted for pixel8, not measured: an analytic estimate" in text
    heard = manifest["sample"]["heard"]["model.pte"]
    assert f"| `model.pte` | hears in sample.flac | {heard} |" in text
    assert manifest["attribution"] is None
    assert "The checkpoint states none." in text


def test_the_card_carries_the_attribution_of_the_checkpoint(tmp_path: Path) -> None:
    lines = ["# Digits", "", "## Data and attribution", "", "| FSDD | CC BY-SA |", "", "## Limits"]
    (tmp_path / "README.md").write_text("\n".join(lines))
    assert report.attribution(tmp_path) == "| FSDD | CC BY-SA |"
    (tmp_path / "README.md").write_text("# Digits\n")
    assert report.attribution(tmp_path) is None


def test_the_shipped_checkpoint_states_its_licences() -> None:
    from ortho_edge.checkpoint import shipped_checkpoint

    text = report.attribution(shipped_checkpoint())
    assert text is not None
    assert "CC BY-SA 4.0" in text
    assert "CC BY 4.0" in text


def test_a_complaint_names_all_that_is_wrong() -> None:
    checks = tuple(
        verify.Check(what=what, outcome=outcome, detail="d")
        for what, outcome in (("a", verify.WRONG), ("b", verify.GOOD), ("c", verify.WRONG))
    )
    with pytest.raises(UserError, match=r"a: d; c: d$"):
        verify.complain(Path("x"), checks)
    verify.complain(Path("x"), checks[1:2])
