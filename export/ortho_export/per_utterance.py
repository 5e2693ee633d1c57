"""An ONNX model of a batch from one of an utterance: a loop over the utterances, without padding.

Rounding to 8 bits as inputs come takes one scale for a whole tensor. In a padded batch that would
be the scale of all utterances together, and what is heard in one would depend on what else is in
the batch. So the batch is taken apart: `Scan` gives the model every utterance alone, cut to its own
length, and it computes what it computes for that one alone, to the last bit. Weights belong to the
body of the loop, where ONNX Runtime arranges and fuses them as anywhere else.

Letters: N utterances, T frames or samples of the longest, T' encoder frames, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

MOST = "most_frames"
"""T' of the batch."""
CONSTANTS = {
    "first": np.array([0]),
    "one": np.array([1]),
    # `Pad` takes what comes before both axes, then what comes behind: 0, 0, missing, 0.
    "nothing": np.array([0, 0]),
    "silence": np.array(0, np.float32),
}


def for_batches(model: ModelProto, most_frames: Sequence[NodeProto]) -> ModelProto:
    """A model of a padded batch, from one of an utterance.

    Args:
        model: Takes one utterance (1, T, ...) and its length (1,), gives log-probabilities
            (1, T', V) and their number (1,), which is taken from their shape instead: as a
            quotient of integers it costs a dozen nodes. The model is left as it is.
        most_frames: Nodes that make T' of the batch, `MOST` (1,), from its inputs.

    Returns:
        A model whose inputs and outputs have the same names and a free first size.
    """
    graph = model.graph
    inputs, outputs = ([one.name for one in ends] for ends in (graph.input, graph.output))
    batch = GraphProto(name=graph.name)
    batch.initializer.extend(numpy_helper.from_array(one, name) for name, one in CONSTANTS.items())
    batch.node.extend(most_frames)
    batch.node.append(
        helper.make_node("Scan", inputs, outputs, body=_body(graph), num_scan_inputs=len(inputs))
    )
    batch.input.extend(graph.input)
    batch.output.extend(graph.output)
    for one in (*batch.input, *batch.output):
        one.type.tensor_type.shape.dim[0].dim_param = "N"
    made = ModelProto()
    made.CopyFrom(model)
    made.graph.CopyFrom(batch)
    return made


def _body(graph: GraphProto) -> GraphProto:
    """What is done with one row of the batch: cut, encoded, and padded again."""
    ends = (*graph.input, *graph.output)
    names = {one.name: f"utterance/{one.name}" for one in ends}
    padded, length, log_probs, count = names.values()
    rows = [f"row/{one.name}" for one in ends]
    body = GraphProto(name="utterance")
    body.node.extend(_needed(graph.node, graph.output[0].name))
    used = {name for node in body.node for name in node.input}
    body.initializer.extend(one for one in graph.initializer if one.name in used)
    for node in body.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    cut = [
        helper.make_node("Unsqueeze", [rows[1], "first"], [length]),
        helper.make_node("Slice", [rows[0], "first", length, "first", "one"], ["row/cut"]),
        helper.make_node("Unsqueeze", ["row/cut", "first"], [padded]),
    ]
    for index, node in enumerate(cut):
        body.node.insert(index, node)
    body.node.extend(
        [
            helper.make_node("Shape", [log_probs], [count], start=1, end=2),
            helper.make_node("Sub", [MOST, count], ["row/missing"]),
            helper.make_node("Concat", ["nothing", "row/missing", "first"], ["row/pads"], axis=0),
            helper.make_node("Squeeze", [log_probs, "first"], ["row/frames"]),
            helper.make_node("Pad", ["row/frames", "row/pads", "silence"], [rows[2]]),
            helper.make_node("Squeeze", [count, "first"], [rows[3]]),
        ]
    )
    free = len(graph.input[0].type.tensor_type.shape.dim) - 1
    body.input.extend(
        [
            helper.make_tensor_value_info(rows[0], TensorProto.FLOAT, [None] * free),
            helper.make_tensor_value_info(rows[1], TensorProto.INT64, []),
        ]
    )
    body.output.extend(
        [
            helper.make_tensor_value_info(rows[2], TensorProto.FLOAT, [None, None]),
            helper.make_tensor_value_info(rows[3], TensorProto.INT64, []),
        ]
    )
    return body


def _needed(nodes: Sequence[NodeProto], result: str) -> list[NodeProto]:
    """Those that a result is made of, in their order."""
    wanted, needed = {result}, []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            needed.append(node)
    return needed[::-1]
