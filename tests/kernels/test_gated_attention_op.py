"""The kernels of gated attention against loops over heads and frames in float64."""

import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ortho_kernels import dispatch
from ortho_kernels.gated_attention import op, reference
from ortho_kernels.gated_attention.triton import attention_backward, attention_forward
from ortho_kernels.worklist import WorkList, plan, refill
from tests import naive
from tests.kernels.gating import (
    GATINGS,
    NUM_SUBNETS,
    gate_rows,
    open_units,
    output_and_gradients,
    random_tensors,
)
from tests.kernels.harness import (
    DEVICE,
    DTYPES,
    assert_agrees,
    check_operation,
    poison_closed,
    rounded,
    work_of,
)
from tests.tolerances import tolerance

HEADS, DIM, SCALE = 2, 24, 0.7
WEIGHTS = ("w_qkv", "b_qkv", "w_out")
LENGTHS = {7: (7, 3), 63: (1, 62, 63), 77: (40, 77), 111: (111, 17)}
"""Frames T and the lengths of the batch; a tile of the kernels has 32 to 128 frames."""


@pytest.fixture(autouse=True)
def kernels_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, "triton")


class Case:
    """The operation and its loops, read at the real frames of one batch only."""

    def __init__(self, gates: Tensor, frames: int, head_dim: int = 16) -> None:
        self.gates, self.frames, self.lengths = gates, frames, LENGTHS[frames]
        self.work = work_of(gates)
        self.real = torch.tensor([[t < length for t in range(frames)] for length in self.lengths])
        shape = (NUM_SUBNETS, len(self.lengths), frames, DIM)
        tensors = random_tensors(
            0, x=shape, w_qkv=(HEADS, 3, head_dim, DIM), b_qkv=(HEADS, 3, head_dim),
            w_out=(HEADS, head_dim, DIM), b_out=(DIM,), residual=shape,
        )  # fmt: skip
        tensors["w_qkv"] *= 0.2  # else the softmax saturates and hides its gradient
        self.tensors = {**tensors, "gates": gates}

    def at_real_frames(self, y: Tensor) -> Tensor:
        return y * self.real[:, :, None].to(y)

    def run(self, work: WorkList | None = None, **given: Any) -> Tensor:
        lengths = torch.tensor(self.lengths, device=given["x"].device)
        return self.at_real_frames(
            op.gated_attention(**given, work=work or self.work, lengths=lengths, scale=SCALE)
        )

    def loops(self, residual: Tensor, **given: Tensor) -> Tensor:
        y = naive.attention(**given, lengths=self.lengths)
        return self.at_real_frames(residual + SCALE * y)

    def check(self, dtype: torch.dtype, truth: Callable[..., Tensor] | None = None) -> dict:
        return check_operation(self.run, truth or self.loops, self.tensors, dtype)

    def gradients(self, given: dict[str, Tensor], work: WorkList | None = None) -> dict:
        """Output and gradients of the kernels in float32."""
        return output_and_gradients(
            lambda **tensors: self.run(work, **tensors), rounded(given, torch.float32), None
        )


@pytest.mark.parametrize("gating", GATINGS)
def test_agree_with_loops_over_heads_and_frames(gating: str) -> None:
    Case(gate_rows(gating, HEADS), 7).check(torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("gating", "frames", "head_dim"),
    [("one_open", 63, 64), ("mixed", 77, 32), ("one_open", 111, 20)],
)
def test_any_number_of_frames_and_any_width(
    gating: str, frames: int, head_dim: int, dtype: torch.dtype
) -> None:
    Case(gate_rows(gating, HEADS), frames, head_dim).check(dtype)


def test_agree_with_attention_of_torch_over_each_utterance_alone() -> None:
    gates = gate_rows("mixed", HEADS)
    case = Case(gates, 77, 32)

    def utterances(x: Tensor, w_qkv: Tensor, b_qkv: Tensor, w_out: Tensor, b_out: Tensor,
                   gates: Tensor, residual: Tensor) -> Tensor:  # fmt: skip
        branch = torch.zeros_like(x)
        for s, units in enumerate(open_units(gates)):
            for b, length in enumerate(case.lengths if units else ()):
                projected = torch.einsum("td,hied->hite", x[s, b, :length], w_qkv[units])
                q, k, v = (projected + b_qkv[units][:, :, None]).unbind(1)
                heads = F.scaled_dot_product_attention(q, k, v) * gates[s, units][:, None, None]
                y = torch.einsum("hte,hed->td", heads, w_out[units]) + b_out
                branch[s, b, :length] = y
        return case.at_real_frames(residual + SCALE * branch)

    case.check(torch.float32, utterances)


def test_a_tiny_gate_keeps_the_precision_of_its_gradient() -> None:
    # g u is 0 in float16, and nothing could be recovered from it.
    case = Case(1e-9 * gate_rows("full", HEADS), 7)
    given = rounded(case.tensors, torch.float16)
    truth = {name: tensor.cpu().double() for name, tensor in given.items()}
    actual = output_and_gradients(case.run, given, None)["gates"]
    expected = output_and_gradients(case.loops, truth)["gates"]
    assert_agrees({"gates": actual}, {"gates": expected}, torch.float16)


def test_closed_heads_are_not_read_and_get_no_gradient() -> None:
    gates = gate_rows("soft", HEADS)
    gates[:, 1] = 0
    gates[2] = 0
    case = Case(gates, 7)
    clean = case.gradients(case.tensors)
    broken = case.gradients(poison_closed(case.tensors, gates, WEIGHTS))
    torch.testing.assert_close(broken, clean, **tolerance("exact"))
    for name in WEIGHTS:
        assert broken[name][1].eq(0).all()
        assert broken[name][0].abs().sum() > 0
    assert broken["gates"][gates == 0].eq(0).all()


def test_without_open_heads_the_residual_comes_back_and_no_weight_is_read() -> None:
    case = Case(gate_rows("closed", HEADS), 7)
    for work in (case.work, work_of(case.gates, full_capacity=True)):
        given = case.tensors | {
            name: torch.full_like(case.tensors[name], math.nan) for name in (*WEIGHTS, "b_out")
        }
        actual = case.gradients(given, work)
        residual = rounded(given, torch.float32)["residual"]
        assert actual["output"].equal(case.at_real_frames(residual))
        assert all(actual[name].eq(0).all() for name in given if name != "residual")
    branch: dict[str, Any] = rounded(given, torch.float32)
    del branch["residual"]
    lengths = torch.tensor(case.lengths, device=DEVICE)
    assert op.gated_attention(**branch, work=case.work, lengths=lengths).eq(0).all()


def test_padded_frames_have_no_effect_and_get_no_gradient() -> None:
    case = Case(gate_rows("one_open", HEADS), 77)
    clean = case.gradients(case.tensors)
    noisy = dict(case.tensors)
    noisy["x"] = noisy["x"] + 1e4 * (~case.real)[:, :, None]
    torch.testing.assert_close(case.gradients(noisy), clean, **tolerance("exact"))
    assert clean["x"][:, ~case.real].eq(0).all()


def test_heads_of_padded_frames_are_zero() -> None:
    case = Case(gate_rows("soft", HEADS), 7)
    given: dict[str, Any] = rounded(case.tensors, torch.float32)
    y = op.gated_attention(
        **given, work=case.work, lengths=torch.tensor(case.lengths, device=DEVICE), scale=SCALE
    )
    padded = given["residual"] + SCALE * given["b_out"]
    torch.testing.assert_close(
        y[:, ~case.real], padded[:, ~case.real], **tolerance("float32_reordered")
    )


def test_spare_capacity_changes_nothing() -> None:
    case = Case(gate_rows("mixed", HEADS), 7)
    roomy = work_of(case.gates, full_capacity=True)
    assert roomy.capacity > case.work.capacity
    torch.testing.assert_close(
        case.gradients(case.tensors, roomy), case.gradients(case.tensors), **tolerance("exact")
    )


def test_rows_without_a_pair_are_left_alone() -> None:
    case = Case(gate_rows("mixed", HEADS), 7)
    work = work_of(case.gates, full_capacity=True)
    qkv = torch.ones(work.capacity, len(case.lengths), 7, 3, 16, device=DEVICE)
    gates = case.gates.float().to(DEVICE)
    shared = (gates, torch.tensor(case.lengths, device=DEVICE), work.buffer)
    forward = attention_forward(qkv, *shared)
    d_qkv, *_, gated = attention_backward(forward[0], qkv, *forward[1:], *shared)
    for rows in (*forward, d_qkv, gated):  # allocated as NaN
        assert rows[: work.num_pairs].isfinite().all()
        assert rows[work.num_pairs :].isnan().all()


def test_other_masks_in_the_same_memory_give_other_results() -> None:
    old = plan([(open_units(gate_rows("full", HEADS)), HEADS)], DEVICE, full_capacity=True)
    case = Case(gate_rows("mixed", HEADS), 7)
    refill(old, [case.work.open_units])
    torch.testing.assert_close(
        case.gradients(case.tensors, old.modules[0]),  # what a captured graph holds on to
        case.gradients(case.tensors),
        **tolerance("exact"),
    )


def test_strides_do_not_matter() -> None:
    case = Case(gate_rows("one_open", HEADS), 7)
    expected = case.gradients(case.tensors)
    lengths = torch.tensor(case.lengths, device=DEVICE)

    def run(**given: Tensor) -> Tensor:
        strided: dict[str, Any] = {
            name: torch.stack([tensor] * 2, -1)[..., 0] for name, tensor in given.items()
        }
        every_other = torch.stack([lengths] * 2, -1)[:, 0]
        y = op.gated_attention(**strided, work=case.work, lengths=every_other, scale=SCALE)
        return case.at_real_frames(y)

    actual = output_and_gradients(run, rounded(case.tensors, torch.float32), None)
    torch.testing.assert_close(actual, expected, **tolerance("exact"))


def test_the_operators_satisfy_torch() -> None:
    case = Case(gate_rows("hard", HEADS), 7)
    given: dict[str, Any] = rounded(case.tensors, torch.float32)
    residual = given.pop("residual")
    inputs = (case.work.buffer, case.work.capacity)
    lengths = torch.tensor(case.lengths, device=DEVICE)
    torch.library.opcheck(op._forward, (*given.values(), lengths, *inputs, None, 1.0, False))
    leaves = [tensor.requires_grad_() for tensor in (*given.values(), residual)]
    arguments = (*leaves[:-1], lengths, *inputs, leaves[-1], SCALE, True)
    torch.library.opcheck(op._forward, arguments)
    kept = [tensor.detach() for tensor in op._forward(*arguments)[1:]]
    x, w_qkv, _, w_out, _, gates = (tensor.detach() for tensor in leaves[:-1])
    torch.library.opcheck(
        op._backward,
        (torch.ones_like(x), x, w_qkv, w_out, gates, lengths, case.work.buffer, SCALE, *kept),
    )


def test_nothing_is_kept_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(gate_rows("mixed", HEADS), 7)
    given: dict[str, Any] = rounded(case.tensors, torch.float32)
    outputs, forward = [], op._forward
    monkeypatch.setattr(op, "_forward", lambda *args: outputs.append(forward(*args)) or outputs[-1])
    y = case.run(None, **given)
    assert [tensor.numel() for tensor in outputs[0][1:]] == [0, 0, 0]
    expected = case.run(None, **{name: tensor.requires_grad_() for name, tensor in given.items()})
    assert min(tensor.numel() for tensor in outputs[1][1:]) > 0
    torch.testing.assert_close(y, expected.detach(), **tolerance("exact"))


def test_autocast_lowers_the_branch_and_keeps_the_residual() -> None:
    case = Case(gate_rows("mixed", HEADS), 7)
    dtype = torch.float16
    expected = output_and_gradients(case.loops, case.tensors)
    with torch.autocast(DEVICE.type, dtype):
        actual = case.gradients(case.tensors)
    assert actual["output"].dtype == torch.float32
    assert_agrees(actual, expected, dtype)


def test_dropout_falls_back_to_plain_torch_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    op._log_obstacle.cache_clear()
    case = Case(gate_rows("mixed", HEADS), 7)
    given: dict[str, Any] = rounded(case.tensors, torch.float32)
    results = []
    with caplog.at_level(logging.WARNING, "ortho_kernels"):
        for _ in range(2):
            torch.manual_seed(0)
            results.append(case.run(None, **given, dropout=0.5))
    assert [record.getMessage() for record in caplog.records] == [
        "gated_attention: reference (no kernel has dropout on the attention weights)"
    ]
    torch.manual_seed(0)
    residual = given.pop("residual")
    y = reference.gated_attention(
        **given, open_heads=case.work.open_units, valid=case.real.to(DEVICE), dropout=0.5
    )
    expected = case.at_real_frames(residual + SCALE * y)
    torch.testing.assert_close(results, [expected, expected], **tolerance("exact"))


def test_wide_heads_fall_back_to_plain_torch_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    op._log_obstacle.cache_clear()
    with caplog.at_level(logging.WARNING, "ortho_kernels"):
        Case(gate_rows("mixed", HEADS), 7, op.MAXIMUM_HEAD_DIM + 1).check(torch.float32)
    assert "wider than 128: 129" in caplog.text


@pytest.mark.parametrize("gating", ["mixed", "closed"])
def test_plain_torch_takes_the_same_arguments(gating: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, "reference")
    case = Case(gate_rows(gating, HEADS), 7)
    expected = output_and_gradients(case.loops, case.tensors)
    torch.testing.assert_close(
        output_and_gradients(case.run, case.tensors), expected, **tolerance("float64_reordered")
    )
