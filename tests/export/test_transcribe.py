"""`python -m ortho_edge.transcribe`: text for any audio and model, one line for every mistake."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ortho_edge.cli import run
from ortho_edge.data.audio import load_audio
from ortho_edge.transcribe import Arguments, main
from ortho_export.artefact import load_artefact
from tests.export.tiny import SMALL, Exported, bursts

pytestmark = pytest.mark.export

Command = Callable[..., tuple[object, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs the command; exit status, standard output and standard error."""

    def call(*words: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["transcribe", *map(str, words)])
        status: object = 0
        try:
            run(main, Arguments, prog="transcribe")
        except SystemExit as stopped:
            status = stopped.code
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One clip in several formats, rates and channel counts."""
    folder = tmp_path_factory.mktemp("recordings")
    paths = [folder / name for name in ("a.wav", "b.flac", "c.ogg", "two words.wav")]
    soundfile.write(paths[0], bursts(1.5), 16000)
    soundfile.write(paths[1], bursts(1.5), 8000)
    soundfile.write(paths[2], bursts(1.5), 48000)
    soundfile.write(paths[3], np.stack([bursts(1.5), 0.5 * bursts(1.5)], axis=1), 44100)
    return paths


def test_every_model_and_format(
    command: Command, exported: Exported, recordings: list[Path]
) -> None:
    outputs = []
    for model in (exported.program, exported.model, exported.checkpoint):
        status, out, error = command(model, *recordings)
        assert (status, error) == (0, "")
        lines = out.splitlines()
        seconds = sum(len(load_audio(path)) / 16000 for path in recordings)
        assert re.fullmatch(
            rf"RTF \d+\.\d{{4}}: \d+\.\d\d s for {seconds:.2f} s of audio, .*, threads: 1",
            lines[-1],
        )
        outputs.append(lines[:-1])
    eager = load_artefact(exported.checkpoint)
    expected = [f"{path}: {eager.transcribe(load_audio(path))}" for path in recordings]
    assert outputs == [expected] * 3


def test_another_subnet(command: Command, exported: Exported, recordings: list[Path]) -> None:
    _, out, _ = command(exported.checkpoint, recordings[0], "--subnet", SMALL, "--threads", 2)
    text = load_artefact(exported.checkpoint, subnet=SMALL).transcribe(load_audio(recordings[0]))
    assert out.splitlines()[0] == f"{recordings[0]}: {text}"
    assert f"/{SMALL}, threads: 2" in out


def test_long_recordings_are_heard_sentence_by_sentence(
    command: Command, exported: Exported, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).standard_normal(16000)
    sentence = np.concatenate([bursts(1.5), 1e-4 * noise])
    soundfile.write(tmp_path / "long.wav", np.tile(sentence, 14), 16000, subtype="FLOAT")
    outputs = []
    for model in (exported.program, exported.model, exported.checkpoint):
        status, out, _ = command(model, tmp_path / "long.wav")
        assert status == 0
        assert "for 35.00 s of audio" in out
        outputs.append(out.splitlines()[0])
    eager = load_artefact(exported.checkpoint)
    pieces = list(eager.stretches(iter([load_audio(tmp_path / "long.wav")])))
    assert len(pieces) >= 14
    words = " ".join(filter(None, (eager.text(one.log_probs) for one in pieces)))
    assert outputs == [f"{tmp_path / 'long.wav'}: {words}"] * 3


def test_mistakes_are_one_line(
    command: Command, exported: Exported, recordings: list[Path], tmp_path: Path
) -> None:
    text, truncated, empty = (tmp_path / name for name in ("notes.txt", "model.pte", "empty.wav"))
    text.write_text("not audio at all")
    truncated.write_bytes(exported.program.read_bytes()[:5000])
    empty.write_bytes(b"")
    (tmp_path / "model.onnx").write_bytes(exported.model.read_bytes()[:5000])
    soundfile.write(tmp_path / "tap.wav", bursts(0.02), 16000)
    good = recordings[0]
    for words, part in [
        ((exported.program, good, text), "notes.txt"),
        ((exported.program, good, tmp_path / "nowhere.wav"), "nowhere.wav"),
        ((exported.program, empty), "empty"),
        ((exported.program, tmp_path / "tap.wav"), "shorter than the 0.09 s"),
        ((exported.checkpoint, tmp_path / "tap.wav"), "shorter than the 0.09 s"),
        ((truncated, good), "truncated"),
        ((tmp_path / "model.onnx", good), "truncated"),
        ((tmp_path / "nowhere.pte", good), "no model at"),
        ((tmp_path, good), "name one of model.onnx, model.pte"),
        ((exported.checkpoint, good, "--subnet", "s999"), "known: s100, s050"),
        ((exported.program, good, "--threads", "0"), "threads"),
    ]:
        status, out, error = command(*words)
        assert (status, out) == (2, "")
        assert error.count("\n") == 1
        assert error.startswith("error: ")
        assert part in error
