"""ONNX files as old as their operators: the exporter writes no opset older than 18.

Layer normalisation is an operator since opset 17. What 18 changed is where reductions state their
axes; written as before, a model is one of 17. That matters beyond the number: ONNX Runtime 1.16 has
no layer normalisation in fp16 and takes that of opset 17 apart, which is no valid model in 18.
"""

from collections.abc import Iterator

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 8
"""ONNX Runtime reads both since 1.12."""
REDUCTIONS = ("ReduceMax", "ReduceMean")


def as_old_as_possible(model: ModelProto) -> ModelProto:
    """Writes a model in `OPSET` and `IR_VERSION`; it is changed.

    Raises:
        onnx.checker.ValidationError: It has something that they have not.
    """
    for graph in _graphs(model.graph):
        _state_axes(graph)
    for one in model.opset_import:
        if one.domain in ("", "ai.onnx"):
            one.version = OPSET
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for one in node.attribute:
            if one.type == AttributeProto.GRAPH:
                yield from _graphs(one.g)


def _state_axes(graph: GraphProto) -> None:
    """Moves the axes of reductions from constants to attributes."""
    constants = {one.name: one for one in graph.initializer}
    moved = set()
    for node in graph.node:
        if node.op_type in REDUCTIONS and len(node.input) > 1:
            moved.add(node.input[1])
            axes = numpy_helper.to_array(constants[node.input[1]]).reshape(-1).tolist()
            # The flag says what to do without axes.
            kept = [one for one in node.attribute if one.name != "noop_with_empty_axes"]
            del node.attribute[:], node.input[1]
            node.attribute.extend([*kept, helper.make_attribute("axes", axes)])
    used = {name for node in graph.node for name in node.input}
    for name in moved - used:
        graph.initializer.remove(constants[name])
