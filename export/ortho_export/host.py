"""The runtimes of this host, for whoever measures it: how each is written, loaded and run."""

from functools import partial
from importlib.metadata import version
from pathlib import Path

from ortho_edge.checkpoint import Checkpoint, TrainedSubnet
from ortho_edge.compaction import DenseEncoder, compact
from ortho_edge.devices.profiler import Runtime
from ortho_edge.precision import Precision
from ortho_export.calibration import Calibration
from ortho_export.executorch import lower, planned_bytes
from ortho_export.facts import Facts
from ortho_export.measure import load_model, load_program
from ortho_export.onnx import to_onnx
from ortho_export.results import EXECUTORCH, ONNXRUNTIME

NO_DIGEST = "measured and deleted"
"""In place of a checkpoint's digest: what is written here is deleted after the measurement."""


def host_runtimes(
    precision: Precision = "fp32", calibration: Calibration = ()
) -> tuple[Runtime, ...]:
    """ExecuTorch and ONNX Runtime on this host, one thread each, at one precision.

    Args:
        precision: Of the artefacts.
        calibration: Features of speech, where the precision needs some.
    """
    return (
        Runtime(
            name=EXECUTORCH,
            version=version("executorch"),
            export=partial(export_program, precision=precision, calibration=calibration),
            load=load_program,
            precision=precision,
            planned_bytes=planned_bytes,
        ),
        Runtime(
            name=ONNXRUNTIME,
            version=version("onnxruntime"),
            export=partial(export_model, precision=precision, calibration=calibration),
            load=load_model,
            precision=precision,
        ),
    )


def export_program(
    checkpoint: Checkpoint,
    trained: TrainedSubnet,
    folder: Path,
    precision: Precision = "fp32",
    calibration: Calibration = (),
) -> Path:
    """Writes a subnet for ExecuTorch into `folder` and returns the file."""
    file = folder / f"{trained.name}.{precision}.pte"
    encoder, facts = _encoder_and_facts(checkpoint, trained)
    file.write_bytes(lower(encoder, facts, precision, calibration=calibration).content)
    return file


def export_model(
    checkpoint: Checkpoint,
    trained: TrainedSubnet,
    folder: Path,
    precision: Precision = "fp32",
    calibration: Calibration = (),
) -> Path:
    """Writes a subnet for ONNX Runtime into `folder` and returns the file."""
    file = folder / f"{trained.name}.{precision}.onnx"
    encoder, facts = _encoder_and_facts(checkpoint, trained)
    file.write_bytes(to_onnx(encoder, facts, precision, calibration=calibration))
    return file


def _encoder_and_facts(
    checkpoint: Checkpoint, trained: TrainedSubnet
) -> tuple[DenseEncoder, Facts]:
    facts = Facts(subnet=trained.name, tokens=checkpoint.tokens, checkpoint_digest=NO_DIGEST)
    return compact(checkpoint.supernet, trained.subnet, trained.head), facts
