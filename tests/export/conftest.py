"""The tiny checkpoint and what the export command makes of it, once per session."""

import contextlib
import io
from pathlib import Path

import pytest
import soundfile

from ortho_edge.checkpoint import save_checkpoint
from ortho_edge.data.audio import SAMPLE_RATE
from ortho_edge.export import Arguments, main
from tests.export.tiny import Exported, bursts, tiny_checkpoint


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint as a folder, with a sample clip."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    clip = io.BytesIO()
    soundfile.write(clip, bursts(2.35), SAMPLE_RATE, format="FLAC")
    extra = {"sample.flac": clip.getvalue(), "sample.txt": b"ONE TWO\n"}
    save_checkpoint(tiny_checkpoint(), folder, extra)
    return folder


@pytest.fixture(scope="session")
def exported(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """What `python -m ortho_edge.export` writes and prints for the tiny checkpoint."""
    folder = tmp_path_factory.mktemp("exports") / "device"
    printed = io.StringIO()
    arguments = Arguments(
        device="pixel8", checkpoint=checkpoint_folder, out=folder, latency_ms=1e3, size_mb=1.0
    )
    with contextlib.redirect_stdout(printed):
        main(arguments)
    return Exported(checkpoint=checkpoint_folder, folder=folder, printed=printed.getvalue())
