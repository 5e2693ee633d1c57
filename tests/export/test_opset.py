"""Reductions of opset 18 written as those of 17: the same numbers, the constants gone."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from ortho_export.opset import IR_VERSION, OPSET, as_old_as_possible

pytestmark = pytest.mark.export

MODEL = """
<ir_version: 10, opset_import: ["": 18]>
agraph (float[N, T, 4] x) => (float[N, 1, 4] y, float[N, T] z)
{
    y = ReduceMean (x, times)
    highest = ReduceMax <keepdims: int = 0> (x, bins)
    z = Expand (highest, shape)
}
"""


def model() -> ModelProto:
    made = parser.parse_model(MODEL)
    for name, value in (("times", [1]), ("bins", [2]), ("shape", [1, 1])):
        made.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    return made


def run(made: ModelProto, x: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return [np.asarray(one) for one in session.run(None, {"x": x})]


def test_numbers_stay_and_constants_go() -> None:
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    expected = run(model(), x)
    old = as_old_as_possible(model())
    assert (old.opset_import[0].version, old.ir_version) == (OPSET, IR_VERSION) == (17, 8)
    assert [one.name for one in old.graph.initializer] == ["shape"]
    for found, wanted in zip(run(old, x), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_graph_inside_a_node_is_written_so_too() -> None:
    inner = model().graph
    del inner.input[:]
    node = helper.make_node("If", ["which"], ["y", "z"], then_branch=inner, else_branch=inner)
    inputs = [
        helper.make_tensor_value_info("which", TensorProto.BOOL, []),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None, 4]),
    ]
    graph = helper.make_graph([node], "outer", inputs, model().graph.output)
    opsets = [helper.make_opsetid("", 18)]
    old = as_old_as_possible(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    for branch in old.graph.node[0].attribute:
        kinds = {one.op_type: len(one.input) for one in branch.g.node}
        assert kinds == {"ReduceMean": 1, "ReduceMax": 1, "Expand": 2}


def test_what_the_old_opset_does_not_know_is_an_error() -> None:
    made = model()
    made.graph.node.append(helper.make_node("Mish", ["y"], ["unused"]))
    with pytest.raises(onnx.checker.ValidationError, match="Mish"):
        as_old_as_possible(made)
