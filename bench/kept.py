"""Artefacts that benches keep in a folder: named alike, made where they are missing, never half."""

import tempfile
from pathlib import Path

from ortho_edge.checkpoint import Checkpoint, TrainedSubnet
from ortho_edge.devices.measurements import Runtime

SUFFIXES = {"executorch": "pte", "onnxruntime": "onnx"}


def kept_file(folder: Path, runtime: Runtime, name: str) -> Path:
    """Where the artefact of a subnet or probe stands, made or not."""
    return folder / f"{name}.{runtime.precision}.{SUFFIXES[runtime.name]}"


def export_kept(
    runtime: Runtime, folder: Path, checkpoint: Checkpoint, subnet: TrainedSubnet
) -> Path:
    """The artefact of a subnet or probe, made where it is missing.

    Args:
        runtime: At one precision.
        folder: It is made too.
        checkpoint: Whose subnet.
        subnet: Its name is that of the file.
    """
    file = kept_file(folder, runtime, subnet.name)
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        # Only what is whole stands under its name, for a bench may be stopped.
        with tempfile.TemporaryDirectory(prefix="partial-", dir=folder) as partial:
            runtime.export(checkpoint, subnet, Path(partial)).replace(file)
    return file
