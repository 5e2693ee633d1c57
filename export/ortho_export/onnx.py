"""ONNX models that sherpa-onnx takes as they are: any batch, any number of frames.

The contract is that of icefall's CTC models: inputs `x` (N, T, bins) float32 and `x_lens` (N)
int64, outputs `log_probs` (N, T', V) float32 and `log_probs_len` (N) int64. Padding is masked
inside, or in int8 cut off, so an utterance is the same alone and in a padded batch. A model of
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
from ortho_export.batched import BatchedEncoder, UtteranceEncoder
from ortho_export.calibration import Calibration
from ortho_export.facts import AUDIO_IN, Facts
from ortho_export.quiet import quiet_stderr

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

EXPORTED_OPSET = 18
"""The oldest that the exporter writes. From 23 on, attention becomes one operation that fails in
ONNX Runtime 1.32 with a mask."""
OLDEST = {"onnxruntime": "1.17.0", "sherpa-onnx": "1.8.11"}
"""Runtimes that every kind of file was tried in, by `make test-old-runtimes`; the second has its
own ONNX Runtime, 1.16.2."""
INPUTS, OUTPUTS = ("x", "x_lens"), ("log_probs", "log_probs_len")

AUDIO_INPUTS = ("samples", "num_samples")

ORT_SUFFIX, ORT_IDENTIFIER = ".ort", b"ORTM"
ONE_SCALE: tuple[Precision, ...] = ("int8",)
"""Round by the scale of a whole tensor as it comes, so each utterance is computed alone."""

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
    from ortho_export.opset import as_old_as_possible
    from ortho_export.per_utterance import for_batches
    from ortho_export.quantized_model import quantized

    with quiet_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if precision in ONE_SCALE:
            alone = UtteranceEncoder(encoder)
            model = quantized(_to_onnx(alone, facts, batch=1), alone, precision, calibration)
            model = for_batches(model, _most_frames(facts))
        else:
            batched = BatchedEncoder(encoder)
            model = quantized(_to_onnx(batched, facts), batched, precision, calibration)
        return as_old_as_possible(model).SerializeToString()


def _most_frames(facts: Facts) -> "list[NodeProto]":
    """Nodes that make the encoder frames of a batch, padding included, from its first input."""
    from onnx import helper

    from ortho_export.per_utterance import MOST

    audio = facts.input == AUDIO_IN
    name = (AUDIO_INPUTS if audio else INPUTS)[0]
    nodes = [helper.make_node("Shape", [name], ["size"], start=1, end=2)]
    steps = [(FRAME_SHIFT // 2, FRAME_SHIFT)] if audio else []
    steps.append((facts.subsampling_factor - 1, facts.subsampling_factor))
    size = "size"
    for index, (more, divisor) in enumerate(steps):
        result = MOST if index == len(steps) - 1 else f"size/{index}"
        for what, value in (("more", more), ("divisor", divisor)):
            nodes.append(helper.make_node("Constant", [], [f"{what}/{index}"], value_ints=[value]))
        nodes.append(helper.make_node("Add", [size, f"more/{index}"], [f"sum/{index}"]))
        nodes.append(helper.make_node("Div", [f"sum/{index}", f"divisor/{index}"], [result]))
        size = result
    return nodes


def _to_onnx(encoder: BatchedEncoder, facts: Facts, batch: int | None = None) -> "ModelProto":
    """The fp32 model of a batch of so many utterances, of any number by default."""
    bins = int(str(facts.features["num_mel_bins"]))
    lengths = torch.tensor(EXAMPLE_LENGTHS[:batch])
    shortest, shape = facts.min_frames, [len(lengths), max(EXAMPLE_LENGTHS), bins]
    model: nn.Module = encoder
    names = INPUTS
    if facts.input == AUDIO_IN:
        model, names = AudioModel(model).eval(), AUDIO_INPUTS
        lengths = lengths * FRAME_SHIFT + 3
        shortest, shape = facts.min_frames * FRAME_SHIFT, [len(lengths), int(lengths.max())]
    several, time = torch.export.Dim("N", min=1), torch.export.Dim("T", min=shortest)
    free = {0: several} if batch is None else {}
    exported = torch.onnx.export(
        model,
        (torch.zeros(shape), lengths),
        dynamo=True,
        verbose=False,
        opset_version=EXPORTED_OPSET,
        input_names=names,
        output_names=OUTPUTS,
        dynamic_shapes=({**free, 1: time}, free),
        external_data=False,
    )
    assert exported is not None
    proto = exported.model_proto
    # The exporter notes for every node in which file and line it was written.
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
    graph = proto.graph
    for one in (proto, graph, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del one.metadata_props[:]
    for name, value in facts.constants().items():
        proto.metadata_props.add(key=name, value=str(value))
    _state_shapes(proto, facts)
    return proto


def _state_shapes(proto: "ModelProto", facts: Facts) -> None:
    """Names the sizes of the outputs; the exporter states formulas of many lines."""
    log_probs, counts = (one.type.tensor_type.shape.dim for one in proto.graph.output)
    counts[0].dim_param = log_probs[0].dim_param = "N"
    log_probs[1].dim_param = "frames"
    log_probs[2].dim_value = len(facts.tokens)


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
