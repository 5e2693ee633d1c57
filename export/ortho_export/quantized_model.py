"""Quantising an ONNX model for ONNX Runtime."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper
from torch import nn

from ortho_edge.precision import Precision

PRODUCTS = ("MatMul", "Gemm")
"""What a linear layer is exported as."""


def quantized(model: ModelProto, encoder: nn.Module, precision: Precision) -> ModelProto:
    """A model whose linear layers compute in another precision.

    Inputs, outputs and metadata stay as they are.

    Args:
        model: The fp32 model; it is left as it is.
        encoder: What it was made from; only products with the weight of one of its linear layers
            are quantised, whatever else the graph computes.
        precision: `int8` scales every column of a weight by itself and each input as a whole, so in
            a padded batch the neighbours of an utterance have a say in its rounding. Weights get 7
            of the 8 bits: without VNNI, x86 adds two products in 16 bits, which would overflow.
    """
    if precision == "fp32":
        return model
    nodes = linear_nodes(model, encoder)
    with tempfile.TemporaryDirectory() as folder, _without_advice():
        return _dynamic(model, nodes, Path(folder) / "model.onnx")


def linear_nodes(model: ModelProto, encoder: nn.Module) -> list[str]:
    """Names of the products with a weight of one of the encoder's linear layers.

    Weights are told by their values: the exporter renames what it transposes.
    """
    weights = {
        layer.weight.detach().T.contiguous().numpy().tobytes()
        for layer in encoder.modules()
        if isinstance(layer, nn.Linear)
    }
    found = {
        one.name
        for one in model.graph.initializer
        if len(one.dims) == 2
        and np.ascontiguousarray(numpy_helper.to_array(one)).tobytes() in weights
    }
    return [
        node.name
        for node in model.graph.node
        if node.op_type in PRODUCTS and found & set(node.input)
    ]


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
    return _with_metadata_of(model, onnx.load(file))


def _with_metadata_of(source: ModelProto, model: ModelProto) -> ModelProto:
    """The model with the source's metadata instead of notes of the tool, and no shape hints."""
    del model.metadata_props[:]
    model.metadata_props.extend(source.metadata_props)
    # Shapes of intermediate results: runtimes infer them, and they outweigh the nodes.
    del model.graph.value_info[:]
    return model


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keeps the tool from advising a pre-processing that finds nothing to do here."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
