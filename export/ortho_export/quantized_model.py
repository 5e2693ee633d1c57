"""An ONNX model in another precision, for ONNX Runtime."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from ortho_edge.precision import Precision
from ortho_export.calibration import Calibration
from ortho_export.integer_convolution import with_integer_convolution

PRODUCTS = ("MatMul", "Gemm")
"""What a linear layer is exported as."""
GROUP = 32
"""Inputs that share a scale in `int4`."""
INTEGERS = 4
"""Of `accuracy_level`: products of 4-bit weights take their inputs in 8 bits."""


def quantized(
    model: ModelProto,
    encoder: nn.Module,
    precision: Precision,
    calibration: Calibration = (),
) -> ModelProto:
    """A model that computes in another precision.

    Inputs, outputs and metadata stay as they are.

    Args:
        model: The fp32 model; it is left as it is.
        encoder: What it was made from; only products with the weight of one of its linear layers
            and its convolutions are quantised, whatever else the graph computes.
        precision: `int8` scales every column of a weight by itself and each input as a whole, so
            the model must be that of one utterance, see `per_utterance`. Weights get 7 of the 8
            bits: without VNNI, x86 adds two products in 16 bits, which would overflow.
            The convolution in front of a product is computed in 8 bits too; others have their
            weights stored so, and widened when the model is loaded.
            `int8-static` gives every input and output of products and convolutions one scale.
            `int4` has a scale for every `GROUP` inputs of a column.
        calibration: Features of speech, for `int8-static`.
    """
    if precision == "fp32":
        return model
    products, convolutions = linear_nodes(model, encoder), convolution_nodes(model, encoder)
    with tempfile.TemporaryDirectory() as folder, _without_advice():
        file = Path(folder) / "model.onnx"
        if precision == "fp16":
            found = _half(model)
        elif precision == "int8":
            found = with_integer_convolution(_dynamic(model, products, file), convolutions)
            found = _with_small_convolutions(found, convolutions)
        elif precision == "int8-static":
            found = _static(model, [*products, *convolutions], file, calibration)
        else:
            found = _with_small_convolutions(_in_groups(model, products), convolutions)
    return _without_names(_with_metadata_of(model, found))


def linear_nodes(model: ModelProto, encoder: nn.Module) -> list[str]:
    """Names of the products with a weight of one of the encoder's linear layers.

    Weights are told by their values: the exporter renames what it transposes.
    """
    layers = [one.weight.detach() for one in encoder.modules() if isinstance(one, nn.Linear)]
    weights = {one.contiguous().numpy().tobytes() for w in layers for one in (w, w.T)}
    return _nodes_with(model, PRODUCTS, weights)


def convolution_nodes(model: ModelProto, encoder: nn.Module) -> list[str]:
    """Names of the encoder's own convolutions; an artefact of audio has another."""
    weights = {
        one.weight.detach().contiguous().numpy().tobytes()
        for one in encoder.modules()
        if isinstance(one, nn.Conv1d | nn.Conv2d)
    }
    return _nodes_with(model, ("Conv",), weights)


def _nodes_with(model: ModelProto, kinds: Sequence[str], weights: set[bytes]) -> list[str]:
    found = {
        one.name
        for one in model.graph.initializer
        if len(one.dims) > 1
        and np.ascontiguousarray(numpy_helper.to_array(one)).tobytes() in weights
    }
    return [
        node.name for node in model.graph.node if node.op_type in kinds and found & set(node.input)
    ]


def _half(model: ModelProto) -> ModelProto:
    """Everything behind the first convolution; means over an utterance need more digits."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    found = OnnxModel(
        convert_float_to_float16(
            _copy(model), keep_io_types=True, node_block_list=_before_convolutions(model)
        )
    )
    # Casts are appended at the end, behind the nodes that need them.
    found.topological_sort()
    return found.model


def _copy(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def _before_convolutions(model: ModelProto) -> list[str]:
    """Names of the nodes whose results the first convolution needs."""
    makers = {name: node for node in model.graph.node for name in node.output}
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    wanted, found = list(first.input), []
    while wanted:
        node = makers.pop(wanted.pop(), None)
        if node is not None:
            found.append(node.name)
            wanted += node.input
            for name in node.output:
                makers.pop(name, None)
    return found


def _dynamic(model: ModelProto, nodes: list[str], file: Path) -> ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        model,
        file,
        op_types_to_quantize=list(PRODUCTS),
        nodes_to_quantize=nodes,
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )
    return _without_weight_zeros(onnx.load(file))


def _without_weight_zeros(model: ModelProto) -> ModelProto:
    """The model without the zero points of symmetric weights, which ONNX Runtime would count in."""
    constants = {one.name: one for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "MatMulInteger" or len(node.input) < 4:
            continue
        zeros = constants[node.input[3]]
        assert not numpy_helper.to_array(zeros).any(), "weights are rounded symmetrically"
        del node.input[3]
        model.graph.initializer.remove(zeros)
    return model


def _static(
    model: ModelProto, nodes: list[str], file: Path, calibration: Sequence[Tensor]
) -> ModelProto:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    assert calibration, "fixed scales are taken from speech"
    features, lengths = (one.name for one in model.graph.input)

    class Reader(CalibrationDataReader):
        """The features, one by one."""

        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
            one = next(self.left, None)
            if one is None:
                return None
            return {features: one.numpy(), lengths: np.array([one.shape[1]])}

    quantize_static(
        _copy(model),  # which it empties
        file,
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=[*PRODUCTS, "Conv"],
        nodes_to_quantize=nodes,
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return onnx.load(file)


def _in_groups(model: ModelProto, nodes: list[str]) -> ModelProto:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    others = [node.name for node in model.graph.node if node.name not in nodes]
    quantizer = MatMulNBitsQuantizer(
        _copy(model),
        bits=4,
        block_size=GROUP,
        is_symmetric=True,
        accuracy_level=INTEGERS,
        nodes_to_exclude=others,
    )
    quantizer.process()
    return quantizer.model.model  # pyright: ignore[reportAttributeAccessIssue]


def _with_small_convolutions(model: ModelProto, nodes: list[str]) -> ModelProto:
    """The model with the weights of convolutions in 8 bits and a scale per output channel.

    They are widened by operations on constants, which ONNX Runtime computes once, on loading.
    """
    graph = model.graph
    by_name = {one.name: one for one in graph.initializer}
    for node in [one for one in graph.node if one.name in nodes]:
        name = node.input[1]
        weight = numpy_helper.to_array(by_name[name])
        peaks = np.abs(weight).reshape(len(weight), -1).max(1)
        scales = np.maximum(peaks, np.finfo(np.float32).tiny) / 127
        scales = scales.astype(np.float32).reshape(-1, *[1] * (weight.ndim - 1))
        integers = np.round(weight / scales).astype(np.int8)
        graph.initializer.remove(by_name[name])
        graph.initializer.append(numpy_helper.from_array(integers, f"{name}_integers"))
        graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scales"))
        widen = [
            helper.make_node("Cast", [f"{name}_integers"], [f"{name}_wide"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}_wide", f"{name}_scales"], [name]),
        ]
        for index, one in enumerate(widen):
            graph.node.insert(index, one)
    return model


def _with_metadata_of(source: ModelProto, model: ModelProto) -> ModelProto:
    """The model with the source's metadata instead of notes of the tool, and no shape hints."""
    del model.metadata_props[:]
    model.metadata_props.extend(source.metadata_props)
    # Shapes of intermediate results: runtimes infer them, and they outweigh the nodes.
    del model.graph.value_info[:]
    return model


def _without_names(model: ModelProto) -> ModelProto:
    """The model with numbers for names inside: where weights are small, names count."""
    graph = model.graph
    kept = {one.name for one in (*graph.input, *graph.output)}
    names: dict[str, str] = {}

    def short(name: str) -> str:
        if not name or name in kept:
            return name
        # Hexadecimal, so never the `x` of an input.
        return names.setdefault(name, format(len(names), "x"))

    for one in graph.initializer:
        one.name = short(one.name)
    for node in graph.node:
        node.ClearField("name")
        node.ClearField("doc_string")
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
    return model


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keeps the tools from advising a pre-processing that finds nothing to do here."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
