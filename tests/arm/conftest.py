"""The Arm runner, and programs of the shipped checkpoint to run with it."""

from pathlib import Path

import pytest
import torch

from ortho_edge.checkpoint import load_checkpoint, shipped_checkpoint
from ortho_edge.data.audio import load_audio
from ortho_edge.data.features import fbank
from ortho_edge.precision import Precision
from ortho_export.arm.machines import QEMU
from ortho_export.arm.toolchain import Bundle, MissingToolError, load_bundle, tool
from ortho_export.calibration import calibration_features
from ortho_export.facts import MAX_FRAMES, MIN_FRAMES
from ortho_export.host import export_program
from tests.arm.scope import ALL


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The runner and its libraries; skips the test where they cannot be had."""
    try:
        tool(QEMU)
        return load_bundle()
    except MissingToolError as error:
        if ALL:
            raise
        pytest.skip(str(error))


class Programs:
    """Programs of the shipped sizes, each lowered once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint = load_checkpoint(shipped_checkpoint())
        self.files: dict[tuple[str, Precision], Path] = {}
        clip = load_audio(shipped_checkpoint() / "sample.flac")
        self.calibration = calibration_features(
            clip, None, self.checkpoint.tokens, MIN_FRAMES, MAX_FRAMES
        )

    def __call__(self, size: str, precision: Precision = "fp32") -> Path:
        if (size, precision) not in self.files:
            self.files[size, precision] = export_program(
                self.checkpoint,
                self.checkpoint.subnet(size),
                self.folder,
                precision,
                self.calibration,
            )
        return self.files[size, precision]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return Programs(tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="session")
def speech() -> torch.Tensor:
    """Features of the sample clip."""
    return fbank(load_audio(shipped_checkpoint() / "sample.flac"))
