"""Every other precision in both runtimes: close to the float encoder, within its bounds."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from ortho_edge.compaction import DenseEncoder, compact
from ortho_edge.data.features import fbank
from ortho_edge.precision import CALIBRATED, PRECISIONS, Precision, precision_of
from ortho_export import executorch
from ortho_export import onnx as onnx_models
from ortho_export.artefact import load_artefact
from ortho_export.executorch import Delegation
from ortho_export.facts import Facts
from ortho_export.fidelity import FLOORS_DB, decibels, powers
from ortho_export.flat import FlatEncoder
from ortho_export.quantized_program import (
    GROUP,
    FixedRounding,
    FrameRounding,
    RoundedLayer,
    RoundedWeight,
    quantized,
)
from tests.export.tiny import SMALL, bursts, tiny_checkpoint

CHECKPOINT = tiny_checkpoint()
LONGEST = 400
FACTS = Facts(
    subnet=SMALL, tokens=CHECKPOINT.tokens, checkpoint_digest="", max_frames=LONGEST
)  # fmt: skip
CALIBRATION = [fbank(bursts(seconds, seed))[None] for seed, seconds in enumerate((1, 2.35, 0.4))]
OTHERS: list[Precision] = [one for one in PRECISIONS if one not in ("fp32", "int8")]
OUTSIDE = {"aten__log_softmax_default", "getitem"}
CASTS = {"dim_order_ops__to_dim_order_copy_default"}
"""Of fp16 alone: features and logits are fp32."""


def encoder() -> DenseEncoder:
    trained = CHECKPOINT.subnet(SMALL)
    return compact(CHECKPOINT.supernet, trained.subnet, trained.head)


def eager(x: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return encoder()(x[None], torch.tensor([len(x)]))[0][0].numpy()


@pytest.fixture(scope="module", params=OTHERS)
def precision(request: pytest.FixtureRequest) -> Precision:
    return request.param


@pytest.fixture(scope="module")
def program(precision: Precision, tmp_path_factory: pytest.TempPathFactory):
    lowered = executorch.lower(encoder(), FACTS, precision, calibration=CALIBRATION)
    file = tmp_path_factory.mktemp("program") / f"model.{precision}.pte"
    file.write_bytes(lowered.content)
    return file, lowered.delegation


@pytest.fixture(scope="module")
def model(precision: Precision, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / f"model.{precision}.onnx"
    file.write_bytes(onnx_models.to_onnx(encoder(), FACTS, precision, calibration=CALIBRATION))
    return file


def assert_close_at_every_length(file: Path, precision: Precision) -> None:
    recognizer = load_artefact(file)
    assert recognizer.tokens == CHECKPOINT.tokens
    for frames in (LONGEST, 9, 10, 11, 12, 101, LONGEST - 1, 250):
        x = fbank(bursts(frames / 100, frames))
        assert len(x) == frames
        expected, found = eager(x), recognizer.log_probs(x)
        assert found.shape == expected.shape
        assert FLOORS_DB[precision] < decibels(*powers(expected, found)) < 100
        np.testing.assert_allclose(np.exp(found).sum(-1), 1, atol=1e-3)


@pytest.mark.export
@pytest.mark.slow
def test_a_program_is_close_at_every_length_and_delegated(
    program: tuple[Path, Delegation], precision: Precision
) -> None:
    file, delegation = program
    assert set(delegation.outside) <= OUTSIDE | (CASTS if precision == "fp16" else set())
    assert delegation.subgraphs == (3 if precision == "fp16" else 1)
    assert_close_at_every_length(file, precision)


@pytest.mark.export
def test_a_model_is_close_at_every_length_and_keeps_its_contract(
    model: Path, precision: Precision
) -> None:
    content = onnx.load(model)
    onnx.checker.check_model(content)
    assert [one.name for one in content.graph.input] == list(onnx_models.INPUTS)
    assert [one.name for one in content.graph.output] == list(onnx_models.OUTPUTS)
    assert {one.key for one in content.metadata_props} == set(FACTS.constants())
    assert_close_at_every_length(model, precision)


@pytest.mark.export
def test_no_large_constant_of_a_model_is_left_in_fp32(model: Path) -> None:
    constants = onnx.load(model).graph.initializer
    large = [one for one in constants if numpy_helper.to_array(one).size > 128]
    assert large
    assert onnx.TensorProto.FLOAT not in {one.data_type for one in large}


def test_a_file_says_its_precision() -> None:
    for one in PRECISIONS:
        assert precision_of(f"model.audio.{one}.onnx") == one
        assert precision_of(f"s015.{one}.pte") == one
    assert precision_of("model.pte") == "fp32"


def test_a_weight_is_rounded_by_the_largest_of_each_output() -> None:
    weight = torch.tensor([[1.0, -2.0, 0.3], [0.0, 0.0, 0.0], [1e-3, 5e-4, -1e-3]])
    rounded = RoundedWeight(weight)
    assert rounded.values[0].tolist() == [64, -127, 19]
    assert rounded.values[1].tolist() == [0, 0, 0]
    assert rounded.values[2].tolist() == [127, 64, -127]
    torch.testing.assert_close(
        rounded()[0], torch.tensor([64, -127, 19]) * 2 / 127, rtol=1e-6, atol=0
    )


def test_every_frame_is_rounded_by_its_own_range_and_keeps_zero() -> None:
    frames = torch.tensor([[0.0, 1.0, 3.0], [0.0, -2e-3, 1e-3], [-4.0, -3.0, -1.0]])
    steps = torch.tensor([3.0, 3e-3, 4.0]) / 255
    expected = torch.round(frames / steps[:, None]) * steps[:, None]
    torch.testing.assert_close(FrameRounding()(frames), expected, rtol=1e-5, atol=1e-9)


def test_int4_takes_8_bits_where_a_group_would_be_incomplete() -> None:
    flat = FlatEncoder(encoder())
    rounded = quantized(flat, "int4")
    for name, layer in flat.named_modules():
        if isinstance(layer, torch.nn.Linear):
            found = rounded.get_submodule(name)
            assert isinstance(found, RoundedLayer) == (layer.in_features % GROUP != 0)


def test_fixed_rounding_uses_the_whole_range_it_has_seen_and_keeps_zero() -> None:
    rounding = FixedRounding()
    for seen in (torch.tensor([0.5, 3.0]), torch.tensor([1.1])):
        assert rounding(seen) is seen
    rounding.fix()
    step = 3.0 / 255
    found = rounding(torch.tensor([0.0, 1.0, 3.0, 99.0, -5.0]))
    expected = torch.tensor([0.0, round(1.0 / step) * step, 3.0, 3.0, 0.0])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_fixed_scales_come_from_the_speech_that_is_given() -> None:
    loud = [4 * one for one in CALIBRATION]
    ranges = []
    for speech in (CALIBRATION, loud):
        found = quantized(FlatEncoder(encoder()), "int8-static", speech)
        layers = [one for one in found.modules() if isinstance(one, RoundedLayer)]
        dense = [
            one for one in encoder().modules()
            if isinstance(one, torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d)
        ]  # fmt: skip
        # The gated linear unit is two layers.
        assert len(dense) <= len(layers) <= len(dense) + 1
        first = layers[0].input
        assert isinstance(first, FixedRounding)
        ranges.append(first.high - first.low)
    assert ranges[1] > 2 * ranges[0]


def test_quantising_leaves_the_encoder_alone() -> None:
    flat = FlatEncoder(encoder())
    before = {name: value.clone() for name, value in flat.state_dict().items()}
    for one in PRECISIONS:
        quantized(flat, one, CALIBRATION if one in CALIBRATED else ())
    assert {name: value.dtype for name, value in flat.state_dict().items()} == {
        name: value.dtype for name, value in before.items()
    }
    assert all(value.equal(before[name]) for name, value in flat.state_dict().items())
