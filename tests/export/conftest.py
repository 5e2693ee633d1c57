"""The tiny checkpoint and what the export command makes of it, once per run."""

import contextlib
import io
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import soundfile

from ortho_edge.checkpoint import save_checkpoint
from ortho_edge.data.audio import SAMPLE_RATE
from ortho_edge.export import Arguments, main
from ortho_edge.precision import Precision
from ortho_export import writing
from tests.export.tiny import Exported, bursts, tiny_checkpoint
from tests.made_once import made_once

PRINTED = "printed.txt"


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
    return made_once(tmp_path_factory, "checkpoint", _save) / "tiny"


@pytest.fixture(scope="session")
def exported(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """What `python -m ortho_edge.export` writes and prints for the tiny checkpoint."""
    return _exported(tmp_path_factory, checkpoint_folder)


@pytest.fixture(scope="session")
def exported_int8(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The same in int8."""
    return _exported(tmp_path_factory, checkpoint_folder, precision="int8")


@pytest.fixture(scope="session")
def exported_audio(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The same with audio as input.

    Its outputs are spread less: what two float32 Fourier transforms differ by in faint bins comes
    out twenty times as large otherwise, with kaldi-native-fbank as much as with this one.
    """
    checkpoint = made_once(tmp_path_factory, "checkpoint-audio", partial(_save, spread=5)) / "tiny"
    return _exported(tmp_path_factory, checkpoint, "audio")


def _save(folder: Path, spread: float = 20) -> None:
    save_tiny(folder / "tiny", spread)


def _exported(
    factory: pytest.TempPathFactory,
    checkpoint: Path,
    takes: Literal["features", "audio"] = "features",
    precision: Precision = "fp32",
) -> Exported:
    def export(folder: Path) -> None:
        printed = io.StringIO()
        arguments = Arguments(
            device="pixel8", checkpoint=checkpoint, out=folder / "exports" / "device",
            latency_ms=1e3, size_mb=2.0 if takes == "audio" else 1.0, input=takes,
            precision=precision,
        )  # fmt: skip
        # Another process would import for longer than it writes, and test_writing.py has those.
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.setattr(writing, "num_workers", lambda: 1)
            main(arguments)
        (folder / PRINTED).write_text(printed.getvalue(), "utf-8")

    folder = made_once(factory, f"exported-{takes}-{precision}", export)
    return Exported(
        checkpoint=checkpoint,
        folder=folder / "exports" / "device",
        printed=(folder / PRINTED).read_text("utf-8"),
        input=takes,
        precision=precision,
    )
