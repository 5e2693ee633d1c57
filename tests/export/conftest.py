"""The tiny checkpoint and what the export command makes of it, once per session."""

import contextlib
import io
from pathlib import Path
from typing import Literal

import pytest
import soundfile

from ortho_edge.checkpoint import save_checkpoint
from ortho_edge.data.audio import SAMPLE_RATE
from ortho_edge.export import Arguments, main
from ortho_edge.precision import Precision
from tests.export.tiny import Exported, bursts, tiny_checkpoint


def save_tiny(folder: Path, spread: float = 20) -> Path:
    """Writes the tiny checkpoint with a sample clip."""
    clip = io.BytesIO()
    soundfile.write(clip, bursts(2.35), SAMPLE_RATE, format="FLAC")
    extra = {"sample.flac": clip.getvalue(), "sample.txt": b"ONE TWO\n"}
    save_checkpoint(tiny_checkpoint(spread=spread), folder, extra)
    return folder


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint as a folder, with a sample clip."""
    return save_tiny(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def exported(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """What `python -m ortho_edge.export` writes and prints for the tiny checkpoint."""
    return _export(checkpoint_folder, tmp_path_factory.mktemp("exports") / "device")


@pytest.fixture(scope="session")
def exported_int8(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The same in int8."""
    folder = tmp_path_factory.mktemp("exports") / "device"
    return _export(checkpoint_folder, folder, precision="int8")


@pytest.fixture(scope="session")
def exported_audio(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The same with audio as input.

    Its outputs are spread less: what two float32 Fourier transforms differ by in faint bins comes
    out twenty times as large otherwise, with kaldi-native-fbank as much as with this one.
    """
    folder = tmp_path_factory.mktemp("audio")
    return _export(save_tiny(folder / "tiny", spread=5), folder / "device", "audio")


def _export(
    checkpoint: Path,
    folder: Path,
    takes: Literal["features", "audio"] = "features",
    precision: Precision = "fp32",
) -> Exported:
    printed = io.StringIO()
    arguments = Arguments(
        device="pixel8", checkpoint=checkpoint, out=folder, latency_ms=1e3,
        size_mb=2.0 if takes == "audio" else 1.0, input=takes, precision=precision,
    )  # fmt: skip
    with contextlib.redirect_stdout(printed):
        main(arguments)
    return Exported(
        checkpoint=checkpoint,
        folder=folder,
        printed=printed.getvalue(),
        input=takes,
        precision=precision,
    )
