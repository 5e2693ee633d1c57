"""The gated self-attention against loops over its heads and frames."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ortho_kernels.gated_attention.reference import gated_attention
from tests import naive
from tests.kernels.gating import (
    GATINGS,
    LENGTHS,
    NUM_SUBNETS,
    gate_rows,
    open_units,
    output_and_gradients,
    random_tensors,
    relative_to_largest,
)
from tests.tolerances import tolerance

HEADS, HEAD_DIM, DIM = 3, 5, 7
WEIGHTS = ("w_qkv", "b_qkv", "w_out")


def tensors(gates: Tensor, lengths: tuple[int, ...], frames: int) -> dict[str, Tensor]:
    drawn = random_tensors(
        0, x=(NUM_SUBNETS, len(lengths), frames, DIM), w_qkv=(HEADS, 3, HEAD_DIM, DIM),
        b_qkv=(HEADS, 3, HEAD_DIM), w_out=(HEADS, HEAD_DIM, DIM), b_out=(DIM,),
    )  # fmt: skip
    drawn["w_qkv"] *= 0.3  # else the softmax saturates and hides its gradient
    return {**drawn, "gates": gates}


def valid_frames(lengths: tuple[int, ...], frames: int) -> Tensor:
    return torch.tensor([[t < length for t in range(frames)] for length in lengths])


class Case:
    """The operation and its loops for one batch."""

    def __init__(self, frames: int) -> None:
        self.frames, self.lengths = frames, LENGTHS[frames]

    def tensors(self, gates: Tensor) -> dict[str, Tensor]:
        return tensors(gates, self.lengths, self.frames)

    def run(self, x: Tensor, gates: Tensor, **weights: Any) -> Tensor:
        valid = valid_frames(self.lengths, self.frames)
        return gated_attention(x, gates=gates, open_heads=open_units(gates), valid=valid, **weights)

    def loops(self, **given: Tensor) -> Tensor:
        return naive.attention(**given, lengths=self.lengths)


@pytest.mark.parametrize(
    ("gating", "frames"),
    [*((gating, 7) for gating in GATINGS), ("mixed", 63), ("soft", 77)],
)
def test_agrees_with_loops_over_heads_and_frames(gating: str, frames: int) -> None:
    case = Case(frames)
    given = case.tensors(gate_rows(gating, HEADS))
    expected = output_and_gradients(case.loops, given)
    actual = output_and_gradients(case.run, given)
    torch.testing.assert_close(actual, expected, **tolerance("float64_reordered"))


def test_float32_agrees_with_float64() -> None:
    case = Case(63)
    given = case.tensors(gate_rows("hard", HEADS))
    expected = output_and_gradients(case.loops, given)
    actual = output_and_gradients(case.run, given, torch.float32)
    torch.testing.assert_close(
        relative_to_largest(actual, expected), relative_to_largest(expected, expected),
        **tolerance("float32_reordered"),
    )  # fmt: skip


def test_padded_frames_are_never_attended_to() -> None:
    case = Case(7)
    given = case.tensors(gate_rows("soft", HEADS))
    before = case.run(**given)
    for b, length in enumerate(case.lengths):
        given["x"][:, b, length:] += 100
    after = case.run(**given)
    for b, length in enumerate(case.lengths):
        torch.testing.assert_close(
            after[:, b, :length], before[:, b, :length], **tolerance("float64_reordered")
        )


def test_closed_heads_have_no_effect_and_no_gradient() -> None:
    case = Case(7)
    gates = gate_rows("soft", HEADS)
    gates[:, 1] = 0
    given = case.tensors(gates)
    clean = output_and_gradients(case.run, given)
    for name in WEIGHTS:
        given[name][1] = math.nan
    broken = output_and_gradients(case.run, given)
    torch.testing.assert_close(broken, clean, **tolerance("exact"))
    for name in WEIGHTS:
        assert broken[name][1].eq(0).all()
        assert broken[name][[0, 2]].abs().sum() > 0
    assert broken["gates"][:, 1].eq(0).all()


def test_a_module_without_open_heads_gives_zeros_and_spares_its_bias() -> None:
    case = Case(7)
    given = case.tensors(gate_rows("closed", HEADS))
    for name in (*WEIGHTS, "b_out"):
        given[name].fill_(math.nan)
    assert all(tensor.eq(0).all() for tensor in output_and_gradients(case.run, given).values())


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_a_gate_scales_its_head_once(factor: float) -> None:
    case = Case(7)
    gates = gate_rows("one_open", HEADS)
    given = case.tensors(gates)
    contribution = case.run(**given) - given["b_out"]
    scaled = case.run(**{**given, "gates": factor * gates}) - given["b_out"]
    torch.testing.assert_close(scaled, factor * contribution, **tolerance("float64_reordered"))


def test_dropout_falls_on_the_attention_weights() -> None:
    torch.manual_seed(0)
    frames, rate = 200, 0.3
    # No queries and keys, and frame t's value is the unit vector t: row t of the output holds the
    # attention weights of frame t, which are all 1 / T.
    w_qkv = torch.zeros(1, 3, frames, frames)
    w_qkv[0, 2] = torch.eye(frames)
    eye = torch.eye(frames)
    y = gated_attention(
        eye[None, None], w_qkv, torch.zeros(1, 3, frames), eye[None], torch.zeros(frames),
        torch.ones(1, 1), [[0]], torch.ones(1, frames, dtype=torch.bool), rate,
    ).flatten()  # fmt: skip
    dropped = y.eq(0).double().mean().item()
    assert abs(dropped - rate) < 5 * math.sqrt(rate * (1 - rate) / y.numel())
    survivors = y[y != 0]
    torch.testing.assert_close(
        survivors, torch.full_like(survivors, 1 / frames / (1 - rate)),
        **tolerance("float32_reordered"),
    )  # fmt: skip
