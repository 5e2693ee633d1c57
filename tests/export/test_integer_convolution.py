"""The convolution in 8 bits against one in float64, with the error that its steps allow."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ortho_export.integer_convolution import LEVELS, SMALLEST_SCALE, with_integer_convolution

pytestmark = pytest.mark.export
STRIDES, PADS = [2, 2], [1, 1, 1, 1]


def written(weight: np.ndarray, bias: np.ndarray | None) -> ModelProto:
    """A convolution, a ReLU, what moves its output into rows, and those rounded and widened."""
    constants = {"w": weight, "rows": np.array([-1, len(weight)])}
    if bias is not None:
        constants["b"] = bias
    nodes = [
        helper.make_node(
            "Conv", ["x", "w", "b"] if bias is not None else ["x", "w"], ["c"], name="conv",
            strides=STRIDES, pads=PADS,
        ),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["t", "rows"], ["f"]),
        helper.make_node("DynamicQuantizeLinear", ["f"], ["q", "s", "z"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]  # fmt: skip
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", weight.shape[1], "T", "bins"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", len(weight)])
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", [x], [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"x": x})
    return np.asarray(found)


def assert_close_to_float64(weight: np.ndarray, bias: np.ndarray | None, x: np.ndarray) -> None:
    """As close as half a step of input, weight and output allow."""
    model = with_integer_convolution(written(weight, bias), ["conv"])
    assert [one.op_type for one in model.graph.node].count("QLinearConv") == 1
    assert not {"w", "b"} & {one.name for one in model.graph.initializer}
    found = run(model, x)

    def convolved(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> torch.Tensor:
        arrays = (torch.tensor(one, dtype=torch.float64) for one in (x, weight, bias))
        return F.conv2d(*arrays, stride=2, padding=1).permute(0, 2, 3, 1).flatten(0, 2)

    outputs, biases = len(weight), np.zeros(len(weight)) if bias is None else bias
    input_step = max(x.max() / LEVELS, SMALLEST_SCALE)
    weight_steps = np.abs(weight).reshape(outputs, -1).max(1) / 63 + np.abs(biases) * 1e-4
    half = np.broadcast_to(weight_steps[:, None, None, None] / 2, weight.shape)
    maxima = x.max((2, 3)) + input_step
    largest = (maxima @ (np.maximum(weight, 0) + half).sum((2, 3)).T + biases).max().clip(0)
    allowed = (
        convolved(np.full_like(x, input_step / 2), np.abs(weight) + half, 0 * biases)
        + convolved(x, half, 0 * biases)
        + largest / LEVELS / 2
        + SMALLEST_SCALE
    )
    expected = convolved(x, weight, biases).clamp(min=0)
    error = (torch.from_numpy(found) - expected).abs()
    assert (error <= allowed * (1 + 1e-4)).all()


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 3),
    inputs=st.integers(2, 9),
    outputs=st.integers(1, 9),
    frames=st.integers(1, 12),
    bins=st.integers(1, 9),
    loudness=st.sampled_from([1e-7, 1e-3, 1.0, 1e3]),
    has_bias=st.booleans(),
)
def test_any_size_and_loudness(
    seed: int,
    batch: int,
    inputs: int,
    outputs: int,
    frames: int,
    bins: int,
    loudness: float,
    has_bias: bool,
) -> None:
    random = np.random.default_rng(seed)
    weight = random.normal(0, 1, (outputs, inputs, 3, 3)).astype(np.float32)
    bias = random.normal(0, 1, outputs).astype(np.float32) if has_bias else None
    x = np.maximum(random.normal(0, loudness, (batch, inputs, frames, bins)), 0)
    assert_close_to_float64(weight, bias, x.astype(np.float32))


def test_the_largest_output_is_not_cut_off() -> None:
    weight = np.ones((2, 3, 3, 3), np.float32)
    weight[1] = -1
    bias = np.array([0.5, 1.0], np.float32)
    x = np.full((1, 3, 9, 9), 7.0, np.float32)
    found = run(with_integer_convolution(written(weight, bias), ["conv"]), x)
    assert found[:, 0].max() == pytest.approx(27 * 7 + 0.5, rel=1 / LEVELS)


def test_channels_that_are_loud_in_different_utterances_are_not_added_up() -> None:
    random = np.random.default_rng(0)
    x = np.zeros((9, 9, 8, 8), np.float32)
    for index in range(len(x)):
        x[index, index] = random.uniform(0, 100, x.shape[2:])
    assert_close_to_float64(np.ones((2, 9, 3, 3), np.float32), None, x)


@pytest.mark.parametrize("bias", [0.0, 3.0, -3.0])
def test_silence_and_channels_without_weights(bias: float) -> None:
    weight = np.random.default_rng(0).normal(size=(3, 2, 3, 3)).astype(np.float32)
    weight[1] = 0
    biases = np.full(3, bias, np.float32)
    assert_close_to_float64(weight, biases, np.zeros((1, 2, 6, 5), np.float32))
    assert_close_to_float64(weight, biases, np.ones((1, 2, 6, 5), np.float32))


def test_one_input_channel_and_other_readers_are_left_alone() -> None:
    single = written(np.ones((2, 1, 3, 3), np.float32), None)
    pooled = written(np.ones((2, 3, 3, 3), np.float32), None)
    pooled.graph.node[2].op_type = "Abs"
    del pooled.graph.node[2].attribute[:]
    twice = written(np.ones((2, 3, 3, 3), np.float32), None)
    twice.graph.node.append(helper.make_node("Abs", ["r"], ["another"]))
    for model in (single, pooled, twice):
        before = model.SerializeToString()
        assert with_integer_convolution(model, ["conv"]).SerializeToString() == before
    named = written(np.ones((2, 3, 3, 3), np.float32), None)
    before = named.SerializeToString()
    assert with_integer_convolution(named, ["another"]).SerializeToString() == before
