"""ONNX models that sherpa-onnx takes as they are: any batch, any number of frames.

The contract is that of icefall's CTC models: inputs `x` (N, T, bins) float32 and `x_lens` (N)
int64, outputs `log_probs` (N, T', V) float32 and `log_probs_len` (N) int64. Padding is masked
inside, so an utterance gets the same log-probabilities alone and in a padded batch. A model of
audio takes `samples` (N, S) float32 and `num_samples` (N) int64 instead; sherpa-onnx knows none.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import nn

from ortho_edge.cli import UserError
from ortho_edge.compaction import DenseEncoder
from ortho_edge.conformer.architecture import subsampled_length
from ortho_edge.data.features import FRAME_SHIFT, num_frames
from ortho_edge.precision import Precision
from ortho_export.audio import AudioModel
from ortho_export.batched import BatchedEncoder
from ortho_export.calibration import Calibration
from ortho_export.facts import AUDIO_IN, Facts
from ortho_export.quiet import quiet_stderr

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 20
"""From 23 on, attention becomes one operation that fails in ONNX Runtime 1.32 with a mask."""
INPUTS, OUTPUTS = ("x", "x_lens"), ("log_probs", "log_probs_len")

AUDIO_INPUTS = ("samples", "num_samples")

ORT_SUFFIX, ORT_IDENTIFIER = ".ort", b"ORTM"
EXAMPLE_LENGTHS = (501, 300)


def to_onnx(
    encoder: DenseEncoder,
    facts: Facts,
    precision: Precision = "fp32",
    *,
    calibration: Calibration = (),
) -> bytes:
    """Writes a compacted encoder as an ONNX model; the facts are its metadata.

    Args:
        encoder: The dense encoder.
        facts: Its constants.
        precision: Of its weights and products.
        calibration: Features of speech, for a precision of `ortho_edge.precision.CALIBRATED`,
            which a model of audio cannot have.

    Returns:
        The bytes of the `.onnx` file, weights included.
    """
    from ortho_export.quantized_model import quantized

    with quiet_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batched = BatchedEncoder(encoder)
        model = _to_onnx(batched, facts)
        return quantized(model, batched, precision, calibration).SerializeToString()


def _to_onnx(encoder: BatchedEncoder, facts: Facts) -> "ModelProto":
    bins = int(str(facts.features["num_mel_bins"]))
    lengths = torch.tensor(EXAMPLE_LENGTHS)
    shortest, shape = facts.min_frames, [len(lengths), max(EXAMPLE_LENGTHS), bins]
    model: nn.Module = encoder
    names = INPUTS
    if facts.input == AUDIO_IN:
        model, names = AudioModel(model).eval(), AUDIO_INPUTS
        lengths = lengths * FRAME_SHIFT + 3
        shortest, shape = facts.min_frames * FRAME_SHIFT, [len(lengths), int(lengths.max())]
    batch, time = torch.export.Dim("N", min=1), torch.export.Dim("T", min=shortest)
    exported = torch.onnx.export(
        model,
        (torch.zeros(shape), lengths),
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        input_names=names,
        output_names=OUTPUTS,
        dynamic_shapes=({0: batch, 1: time}, {0: batch}),
        external_data=False,
    )
    assert exported is not None
    proto = exported.model_proto
    # The exporter notes for every node in which file and line it was written.
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
    del proto.metadata_props[:]
    for name, value in facts.constants().items():
        proto.metadata_props.add(key=name, value=str(value))
    return proto


Forward = Callable[
    [Float32[np.ndarray, "B ..."], Int64[np.ndarray, " B"]],
    tuple[Float32[np.ndarray, "B T4 V"], Int64[np.ndarray, " B"]],
]
"""Features (B, T, bins), or audio (B, N), and lengths."""


def import_runtime() -> None:
    """Imports what `load` needs."""
    import onnxruntime  # noqa: F401


def check_whole(path: Path) -> None:
    """Looks at a model without executing anything.

    Raises:
        UserError: The file is truncated, no ONNX model, not one of this project, or keeps weights
            in other files.
    """
    import onnx

    if path.suffix == ORT_SUFFIX:
        with path.open("rb") as file:
            if file.read(8)[4:] != ORT_IDENTIFIER:
                raise UserError(f"{path} is not an ORT model, or is truncated")
        return
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except Exception as error:  # protobuf raises what onnx does not name
        raise UserError(f"{path} is not an ONNX model, or is truncated") from error
    if not model.graph.node:
        raise UserError(f"{path} is not an ONNX model, or is truncated")
    for one in model.graph.initializer:
        if one.data_location == onnx.TensorProto.EXTERNAL or one.external_data:
            raise UserError(f"{path} keeps weights in other files, which no artefact does")
    try:
        Facts.parse({one.key: one.value for one in model.metadata_props})
    except ValueError as error:
        raise UserError(f"{path} is no artefact of this project: {error}") from error


def load(path: Path, threads: int) -> tuple[Facts, Forward]:
    """Reads a model and the facts in it.

    Args:
        path: A `.onnx` file.
        threads: Of this model.

    Raises:
        UserError: The file is truncated, is no ONNX model, or not one of this project.
    """
    import onnxruntime
    from onnxruntime.capi import (
        onnxruntime_pybind11_state as states,  # pyright: ignore[reportAttributeAccessIssue]
    )

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # What it logs it raises, too.
    options.log_severity_level = 4
    errors = (
        states.Fail,
        states.InvalidArgument,
        states.InvalidGraph,
        states.InvalidProtobuf,
        states.NotImplemented,
        states.RuntimeException,
    )
    try:
        with quiet_stderr():
            session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
    except errors as error:
        raise UserError(f"{path} is not an ONNX model, or is truncated") from error
    try:
        facts = Facts.parse(session.get_modelmeta().custom_metadata_map)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{path} is no artefact of this project: {error}") from error
    names = AUDIO_INPUTS if facts.input == AUDIO_IN else INPUTS
    if tuple(one.name for one in session.get_inputs()) != names:
        raise UserError(f"{path} is damaged: its inputs are not {' and '.join(names)}")

    def forward(
        batch: Float32[np.ndarray, "B ..."], lengths: Int64[np.ndarray, " B"]
    ) -> tuple[Float32[np.ndarray, "B T4 V"], Int64[np.ndarray, " B"]]:
        try:
            outputs = session.run(OUTPUTS, dict(zip(names, (batch, lengths), strict=True)))
        except errors as error:
            raise UserError(f"{path} fails, it may be damaged: {error}") from error
        log_probs, log_probs_len = map(np.asarray, outputs)
        frames = torch.from_numpy(np.ascontiguousarray(lengths))
        frames = num_frames(frames) if facts.input == AUDIO_IN else frames
        if (
            log_probs.shape[::2] != (len(batch), len(facts.tokens))
            or log_probs.dtype != np.float32
            or log_probs_len.tolist() != subsampled_length(frames).tolist()
        ):
            raise UserError(f"{path} is damaged: its outputs are not those of {len(batch)} inputs")
        return log_probs, log_probs_len

    return facts, forward
