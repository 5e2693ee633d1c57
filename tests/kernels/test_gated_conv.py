"""The gated convolution module against loops over its frames and taps."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ortho_kernels.gated_conv.reference import gated_conv
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

DIM = 5
GATED = [gating for gating in GATINGS if gating not in ("hard", "one_open")]


class Case:
    """The operation and its loops for one batch and one depthwise kernel size."""

    def __init__(self, frames: int, kernel: int) -> None:
        self.lengths, self.frames, self.kernel = LENGTHS[frames], frames, kernel
        self.valid = torch.tensor([[t < length for t in range(frames)] for length in self.lengths])

    def tensors(self, gates: Tensor) -> dict[str, Tensor]:
        drawn = random_tensors(
            0, x=(NUM_SUBNETS, len(self.lengths), self.frames, DIM), w_in=(2 * DIM, DIM),
            b_in=(2 * DIM,), w_depthwise=(DIM, 1, self.kernel), b_depthwise=(DIM,),
            w_norm=(DIM,), b_norm=(DIM,), w_out=(DIM, DIM), b_out=(DIM,),
        )  # fmt: skip
        return {**drawn, "gates": gates}

    def run(self, x: Tensor, gates: Tensor, **weights: Any) -> Tensor:
        return gated_conv(
            x, gates=gates, open_modules=open_units(gates), valid=self.valid, **weights
        )

    def loops(self, **given: Tensor) -> Tensor:
        return naive.conv(**given, lengths=self.lengths)


@pytest.mark.parametrize(
    ("gating", "frames", "kernel"),
    [*((gating, 7, 3) for gating in GATED), ("mixed", 7, 1), ("full", 7, 15), ("soft", 63, 5)],
)
def test_agrees_with_loops_over_frames_and_taps(gating: str, frames: int, kernel: int) -> None:
    case = Case(frames, kernel)
    given = case.tensors(gate_rows(gating, 1))
    expected = output_and_gradients(case.loops, given)
    actual = output_and_gradients(case.run, given)
    torch.testing.assert_close(actual, expected, **tolerance("float64_reordered"))


def test_float32_agrees_with_float64() -> None:
    case = Case(63, 5)
    given = case.tensors(gate_rows("soft", 1))
    expected = output_and_gradients(case.loops, given)
    actual = output_and_gradients(case.run, given, torch.float32)
    torch.testing.assert_close(
        relative_to_largest(actual, expected), relative_to_largest(expected, expected),
        **tolerance("float32_reordered"),
    )  # fmt: skip


def test_padded_frames_count_as_zeros() -> None:
    case = Case(7, 5)
    given = case.tensors(gate_rows("soft", 1))
    before = case.run(**given)
    for b, length in enumerate(case.lengths):
        given["x"][:, b, length:] += 100
    after = case.run(**given)
    for b, length in enumerate(case.lengths):
        torch.testing.assert_close(
            after[:, b, :length], before[:, b, :length], **tolerance("float64_reordered")
        )


def test_a_closed_module_gives_zeros_and_no_gradient_whatever_its_weights() -> None:
    case = Case(7, 3)
    given = case.tensors(gate_rows("closed", 1))
    for name in given.keys() - {"x", "gates"}:
        given[name].fill_(math.nan)
    assert all(tensor.eq(0).all() for tensor in output_and_gradients(case.run, given).values())


def test_the_gradient_of_a_closed_subnet_is_zero_beside_an_open_one() -> None:
    case = Case(7, 3)
    given = case.tensors(gate_rows("mixed", 1))
    assert given["gates"].ne(0).flatten().tolist() == [True, False, True]
    result = output_and_gradients(case.run, given)
    assert result["x"][1].eq(0).all()
    assert result["gates"][1].eq(0).all()
    assert result["x"][[0, 2]].abs().sum() > 0


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_the_gate_scales_the_module_once(factor: float) -> None:
    case = Case(7, 3)
    given = case.tensors(gate_rows("soft", 1))
    scaled = case.run(**{**given, "gates": factor * given["gates"]})
    torch.testing.assert_close(scaled, factor * case.run(**given), **tolerance("float64_reordered"))
