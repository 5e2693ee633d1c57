"""`python -m ortho_edge.export`: what it prints, and one line for every mistake."""

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ortho_edge.cli import run
from ortho_edge.export import Arguments, main
from ortho_edge.precision import PRECISIONS
from tests.export.tiny import LARGE, Exported

pytestmark = pytest.mark.export

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs the command in an empty folder; exit status and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["export", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            run(main, Arguments, prog="export")
        captured = capsys.readouterr()
        assert captured.out == ""
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, captured.err

    return call


@pytest.fixture
def broken(exported: Exported, tmp_path: Path) -> Path:
    folder = tmp_path / "broken"
    shutil.copytree(exported.checkpoint, folder)
    return folder


def assert_one_line(outcome: tuple[int, str], *parts: str) -> None:
    status, error = outcome
    assert status == 2
    assert error.count("\n") == 1
    assert error.startswith("error: ")
    for part in parts:
        assert part in error


def test_the_table(exported: Exported) -> None:
    lines = exported.printed.splitlines()
    table = dict(line.split("  ", 1) for line in lines[1 : lines.index("", 1)])
    table = {name.strip(): value.strip() for name, value in table.items()}
    assert table["device"].startswith("pixel8: ")
    assert table["subnet"] == f"{LARGE}, number 1 by size of 2; keeps 12 of 12 components"
    assert table["budget"] == ("at most latency 1000 ms for 5 s of audio, memory 64 MB, file 1 MB")
    parameters = sum(one.numel() for one in exported.encoder.parameters())
    assert table["parameters"] == f"{parameters:,}"
    assert table["FLOPs at 4 s"].endswith("M, 100 % of the full network")
    assert table["dev WER"] == "5.00 %"
    for runtime, file in (("executorch", "model.pte"), ("onnxruntime", "model.onnx")):
        assert (
            "on pixel8, not timed: an analytic estimate" in table[f"predicted latency, {runtime}"]
        )
        assert "this host (not on the device)" in table[f"measured latency, {runtime}"]
        size = (exported.folder / file).stat().st_size / 1e6
        assert table[f"file size, {file}"] == f"{size:.2f} MB"
        assert "of 0.0001 allowed" in table[f"parity error, {file}"]
    assert table["predicted memory"].endswith(" MB, not measured: an analytic estimate")
    assert lines[-3] == "sample.flac says: ONE TWO"
    heard = {line.partition(" hears: ")[2] for line in lines[-2:]}
    assert len(heard) == 1
    assert heard != {""}


def test_an_unknown_device(command: Command, tmp_path: Path) -> None:
    assert_one_line(command("--device", "pixel99"), "unknown device 'pixel99'; known: ", "pixel8")
    assert not (tmp_path / "exports").exists()


@pytest.mark.parametrize(
    ("flag", "value", "word"),
    [
        ("--latency-ms", "0.0001", "latency"),
        ("--memory-mb", "0.01", "memory"),
        ("--size-mb", "0.001", "file size"),
        ("--params", "12", "parameters"),
    ],
)
def test_an_impossible_budget(
    command: Command, exported: Exported, tmp_path: Path, flag: str, value: str, word: str
) -> None:
    outcome = command("--device", "pixel8", "--checkpoint", exported.checkpoint, flag, value)
    assert_one_line(outcome, "no trained subnet fits", word)
    assert not (tmp_path / "exports").exists()


@pytest.mark.parametrize("value", ["-1", "0", "nan"])
def test_a_limit_that_is_none(command: Command, value: str) -> None:
    assert_one_line(command("--device", "pixel8", "--latency-ms", value), "--latency-ms", value)


def test_an_unknown_precision_is_answered_with_the_known_ones(command: Command) -> None:
    status, error = command("--device", "pixel8", "--precision", "int2")
    assert status == 2
    for precision in (*PRECISIONS, "auto"):
        assert precision in error


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ("taken from speech", "--dev-set")),
        (("--input", "audio"), ("tried with features alone", "fp32, int8")),
    ],
)
def test_fixed_scales_need_speech(
    command: Command, exported: Exported, tmp_path: Path, options: Sequence[str],
    words: Sequence[str],
) -> None:  # fmt: skip
    silent = tmp_path / "silent"
    shutil.copytree(exported.checkpoint, silent)
    (silent / "sample.flac").unlink()
    outcome = command(
        "--device", "pixel8", "--checkpoint", silent, "--precision", "int8-static",
        "--latency-ms", "1000", *options,
    )  # fmt: skip
    assert_one_line(outcome, *words)
    assert not (tmp_path / "exports").exists()


def test_auto_without_speech(command: Command, tmp_path: Path) -> None:
    outcome = command("--device", "pixel8", "--precision", "auto")
    assert_one_line(outcome, "--dev-set", "digits/dev", "transcripts.tsv")
    assert not (tmp_path / "exports").exists()


def test_a_missing_checkpoint(command: Command, tmp_path: Path) -> None:
    outcome = command("--device", "pixel8", "--checkpoint", "nowhere")
    assert_one_line(outcome, "no checkpoint folder at nowhere")
    assert not (tmp_path / "exports").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "checkpoint.json", "tokens.txt"])
def test_a_truncated_checkpoint(command: Command, broken: Path, tmp_path: Path, name: str) -> None:
    content = (broken / name).read_bytes()
    (broken / name).write_bytes(content[: len(content) // 2])
    assert_one_line(command("--device", "pixel8", "--checkpoint", broken), "is damaged")
    (broken / name).unlink()
    assert_one_line(command("--device", "pixel8", "--checkpoint", broken), f"{name} is missing")
    assert not (tmp_path / "exports").exists()


def test_a_sample_that_is_no_audio(command: Command, broken: Path, tmp_path: Path) -> None:
    (broken / "sample.flac").write_text("not audio")
    assert_one_line(command("--device", "pixel8", "--checkpoint", broken), "sample.flac")
    assert not (tmp_path / "exports").exists()


def test_a_folder_of_something_else(command: Command, exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    outcome = command("--device", "pixel8", "--checkpoint", exported.checkpoint, "--out", tmp_path)
    assert_one_line(outcome, "name another folder")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
