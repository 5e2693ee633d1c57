"""A convolution of an ONNX model in 8 bits, with inputs rounded as they come.

ONNX has none whose output is not rounded as well, to a scale that must be known before. It is that
of the largest output that the weights can make of inputs whose channels have the maxima that they
have: nothing is ever cut off, and no speech is needed to find it. Speech was seen to use a third of
that range, and a ninth where one maximum stood for all channels.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx.parser
from jaxtyping import Float32
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper

WEIGHT_LEVELS, LEVELS = 63, 255
"""Weights get 7 bits, as those of products do."""
SMALLEST_SCALE = 1e-5
"""Of an input and an output; what is below 255 of them is silence."""
LARGEST_BIAS = 2**30
"""In steps of what 32 bits count."""

CHAIN = ("Relu", "Transpose", "Reshape", "DynamicQuantizeLinear")
"""What stands between the convolution and its product."""

COMPUTATION = """
<opset_import: ["": 18], domain: "local">
convolution (
    input, axes, weight, scales, weight_zeros, bias_over_scales, positive, bias_over_levels,
    levels, smallest, zero
) => (output, output_scale)
{
    maxima = ReduceMax <keepdims: int = 0> (input, axes)
    largest_input = ReduceMax <keepdims: int = 0> (maxima)
    input_level = Div (largest_input, levels)
    input_scale = Max (input_level, smallest)
    rounded = QuantizeLinear (input, input_scale, zero)
    bias_in_steps = Div (bias_over_scales, input_scale)
    whole_steps = Round (bias_in_steps)
    rounded_bias = Cast <to: int = 6> (whole_steps)
    from_weights = MatMul (maxima, positive)
    with_bias = Add (from_weights, bias_over_levels)
    output_level = ReduceMax <keepdims: int = 0> (with_bias)
    output_scale = Max (output_level, smallest)
    output = QLinearConv (
        rounded, input_scale, zero, weight, scales, weight_zeros, output_scale, zero,
        rounded_bias
    )
}
"""
"""Zero is that of both sides of the convolution: behind a ReLU nothing is below it.
`DynamicQuantizeLinear` would take 1 for the scale of an input of zeros."""


def with_integer_convolution(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """The model with the convolution in 8 bits whose output, behind a ReLU, goes into a product.

    The product gets it as it is. The ReLU costs nothing: zero stands for zero, and what is below
    has no number. One such convolution keeps 40 dB and more of a trained network; three in a row,
    with pooling between, were seen to leave 23 dB.

    Args:
        model: One with products in 8 bits; it is changed.
        names: Of its convolutions. Those with several input channels have inputs that are never
            below zero, as behind a ReLU.
    """
    graph = model.graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    for node in [one for one in graph.node if one.name in names]:
        weight = constants[node.input[1]]
        # The exporter leaves out a bias of zeros.
        bias = (
            constants[node.input[2]] if len(node.input) > 2 else np.zeros_like(weight[:, 0, 0, 0])
        )
        chain = _chain(graph, node)[: len(CHAIN)]
        if weight.shape[1] == 1 or tuple(one.op_type for one in chain) != CHAIN:
            continue
        relu, *moves, rounding = chain
        made, output, scale, zero = _computation(graph, node, weight, bias)
        _rename(moves[:1], {relu.output[0]: output})
        results = moves[-1].output[0], scale, zero
        _rename(graph.node, dict(zip(rounding.output, results, strict=True)))
        place = list(graph.node).index(node)
        for one in (node, relu, rounding):
            graph.node.remove(one)
        for index, one in enumerate(made):
            graph.node.insert(place + index, one)
        for one in [one for one in graph.initializer if one.name in node.input[1:]]:
            graph.initializer.remove(one)
    return model


def _computation(
    graph: GraphProto,
    node: NodeProto,
    weight: Float32[np.ndarray, "outputs inputs ..."],
    bias: Float32[np.ndarray, " outputs"],
) -> tuple[list[NodeProto], str, str, str]:
    """What takes the place of a convolution; its output, the scale of that, and what zero is."""
    peaks = np.abs(weight).reshape(len(weight), -1).max(1)
    # Large enough for the bias not to leave its 32 bits.
    scales = np.maximum(peaks / WEIGHT_LEVELS, np.abs(bias) / (LARGEST_BIAS * SMALLEST_SCALE))
    scales = np.maximum(scales, np.finfo(np.float32).tiny).astype(np.float32)
    levels = np.round(weight / scales.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.int8)
    positive = np.maximum(levels, 0).reshape(*weight.shape[:2], -1).sum(2) * scales[:, None]
    prefix = node.output[0]
    constants = {
        "weight": levels,
        "scales": scales,
        "weight_zeros": np.zeros(len(weight), np.int8),
        "bias_over_scales": (bias / scales).astype(np.float32),
        "axes": np.arange(2, weight.ndim),
        "positive": np.ascontiguousarray(positive.T / LEVELS, np.float32),
        "bias_over_levels": (bias / LEVELS).astype(np.float32),
        "levels": np.array(LEVELS, np.float32),
        "smallest": np.array(SMALLEST_SCALE, np.float32),
        "zero": np.array(0, np.uint8),
    }
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(value, f"{prefix}/{name}"))
    computation = onnx.parser.parse_function(COMPUTATION)
    made = list(computation.node)
    made[-1].attribute.extend(node.attribute)
    results = {name: f"{prefix}/{name}" for one in made for name in (*one.input, *one.output)}
    names = {**results, "input": node.input[0]}
    _rename(made, names)
    for one in made:
        one.output[:] = [names[name] for name in one.output]
    output, scale = (names[name] for name in computation.output)
    return made, output, scale, names["zero"]


def _chain(graph: GraphProto, node: NodeProto) -> list[NodeProto]:
    """The nodes behind a node, while each has one reader."""
    chain: list[NodeProto] = []
    while len(readers := [one for one in graph.node if node.output[0] in one.input]) == 1:
        (node,) = readers
        chain.append(node)
    return chain


def _rename(nodes: Sequence[NodeProto], names: Mapping[str, str]) -> None:
    for one in nodes:
        one.input[:] = [names.get(name, name) for name in one.input]
