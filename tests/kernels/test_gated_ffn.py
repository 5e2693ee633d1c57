"""The gated feed-forward against loops over its chunks."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ortho_kernels.gated_ffn.reference import gated_ffn
from tests import naive
from tests.kernels.gating import (
    GATINGS,
    NUM_SUBNETS,
    gate_rows,
    open_units,
    output_and_gradients,
    random_tensors,
    relative_to_largest,
)
from tests.tolerances import tolerance

CHUNKS, WIDTH, DIM = 4, 5, 9
WEIGHTS = ("w1", "b1", "w2")


def tensors(gates: Tensor, frames: int = 63, batch: int = 2) -> dict[str, Tensor]:
    drawn = random_tensors(
        0, x=(NUM_SUBNETS, batch, frames, DIM), w1=(CHUNKS, WIDTH, DIM), b1=(CHUNKS, WIDTH),
        w2=(CHUNKS, WIDTH, DIM), b2=(DIM,),
    )  # fmt: skip
    return {**drawn, "gates": gates}


def run(x: Tensor, gates: Tensor, **weights: Any) -> Tensor:
    return gated_ffn(x, gates=gates, open_chunks=open_units(gates), **weights)


@pytest.mark.parametrize("frames", [1, 63, 77])
@pytest.mark.parametrize("gating", GATINGS)
def test_agrees_with_loops_over_chunks(gating: str, frames: int) -> None:
    given = tensors(gate_rows(gating, CHUNKS), frames)
    expected = output_and_gradients(naive.ffn, given)
    actual = output_and_gradients(run, given)
    torch.testing.assert_close(actual, expected, **tolerance("float64_reordered"))


@pytest.mark.parametrize("gating", ["soft", "hard"])
def test_float32_agrees_with_float64(gating: str) -> None:
    given = tensors(gate_rows(gating, CHUNKS), 77)
    expected = output_and_gradients(naive.ffn, given)
    actual = output_and_gradients(run, given, torch.float32)
    torch.testing.assert_close(
        relative_to_largest(actual, expected), relative_to_largest(expected, expected),
        **tolerance("float32_reordered"),
    )  # fmt: skip


def test_closed_chunks_have_no_effect_and_no_gradient() -> None:
    gates = gate_rows("soft", CHUNKS)
    gates[:, [0, 2]] = 0
    given = tensors(gates)
    clean = output_and_gradients(run, given)
    for name in WEIGHTS:
        given[name][[0, 2]] = math.nan
    broken = output_and_gradients(run, given)
    torch.testing.assert_close(broken, clean, **tolerance("exact"))
    for name in WEIGHTS:
        assert broken[name][[0, 2]].eq(0).all()
        assert broken[name][[1, 3]].ne(0).all()
    assert broken["gates"][:, [0, 2]].eq(0).all()


def test_a_module_without_open_chunks_gives_zeros_and_spares_its_bias() -> None:
    given = tensors(gate_rows("closed", CHUNKS))
    for name in (*WEIGHTS, "b2"):
        given[name].fill_(math.nan)
    assert all(tensor.eq(0).all() for tensor in output_and_gradients(run, given).values())


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_a_gate_scales_its_chunk_once(factor: float) -> None:
    gates = gate_rows("one_open", CHUNKS)
    given = tensors(gates)
    contribution = run(**given) - given["b2"]
    scaled = run(**{**given, "gates": factor * gates}) - given["b2"]
    torch.testing.assert_close(scaled, factor * contribution, **tolerance("float64_reordered"))


@pytest.mark.parametrize("kept", [(2,), (0, 3), (0, 1, 2, 3)])
def test_dropout_shrinks_with_the_kept_chunks(kept: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    rate, frames = 0.4, 4000
    dim = CHUNKS * WIDTH
    gates = torch.zeros(1, CHUNKS)
    gates[0, list(kept)] = 1
    # Every hidden unit is silu(1) and has an output dimension of its own.
    w1, b1 = torch.zeros(CHUNKS, WIDTH, dim), torch.ones(CHUNKS, WIDTH)
    w2 = torch.eye(dim).unflatten(0, (CHUNKS, WIDTH))
    y = gated_ffn(
        torch.zeros(1, 1, frames, dim), w1, b1, w2, torch.zeros(dim), gates, [list(kept)], rate
    )
    hidden = y[0, 0].unflatten(-1, (CHUNKS, WIDTH))[:, list(kept)].flatten()
    expected_rate = rate * len(kept) / CHUNKS
    dropped = hidden.eq(0).double().mean().item()
    deviation = math.sqrt(expected_rate * (1 - expected_rate) / hidden.numel())
    assert abs(dropped - expected_rate) < 5 * deviation
    survivor = torch.nn.functional.silu(torch.ones(())) / (1 - expected_rate)
    torch.testing.assert_close(
        hidden[hidden != 0], survivor.expand(int(hidden.ne(0).sum())),
        **tolerance("float32_reordered"),
    )  # fmt: skip
