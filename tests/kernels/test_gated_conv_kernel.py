"""The kernels of the gated convolution module against its plain torch form in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ortho_kernels.gated_conv import op, reference
from ortho_kernels.gated_conv.op import gated_conv
from ortho_kernels.worklist import WorkList, plan, refill
from tests.kernels.gating import (
    NUM_SUBNETS,
    gate_rows,
    open_units,
    output_and_gradients,
    random_tensors,
)
from tests.kernels.harness import DEVICE, assert_agrees, check_operation, rounded, work_of

EPS = 1e-3


@pytest.fixture(autouse=True)
def take_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTHO_KERNELS", "triton")


class Case:
    """The module for one batch and its sizes."""

    def __init__(self, lengths: tuple[int, ...], frames: int, dim: int, taps: int) -> None:
        self.lengths = torch.tensor(lengths, device=DEVICE)
        self.valid = torch.arange(frames) < torch.tensor(lengths)[:, None]
        self.shape = (NUM_SUBNETS, len(lengths), frames, dim)
        self.dim, self.taps = dim, taps

    def tensors(self, gates: Tensor) -> dict[str, Tensor]:
        dim = self.dim
        drawn = random_tensors(
            0, x=self.shape, w_in=(2 * dim, dim), b_in=(2 * dim,), w_depthwise=(dim, 1, self.taps),
            b_depthwise=(dim,), w_norm=(dim,), b_norm=(dim,), w_out=(dim, dim), b_out=(dim,),
            residual=self.shape,
        )  # fmt: skip
        for name in ("w_in", "w_out"):
            drawn[name] /= dim**0.5
        return {**drawn, "gates": gates}

    def run(self, work: WorkList, scale: float = 1.0, **tensors: Any) -> Tensor:
        return gated_conv(**tensors, work=work, lengths=self.lengths, eps=EPS, scale=scale)

    def plain(
        self, residual: Tensor | None, gates: Tensor, scale: float = 1.0, **tensors: Any
    ) -> Tensor:
        y = scale * reference.gated_conv(
            **tensors, gates=gates, open_modules=open_units(gates), valid=self.valid, eps=EPS
        )
        return y if residual is None else residual + y


SMALL = ((1, 7), 7, 9, 3)


@pytest.mark.parametrize(
    ("sizes", "gating", "dtype", "scale"),
    [
        (((2, 62, 63), 63, 9, 31), "mixed", torch.float32, 0.5),
        (((77, 77), 77, 40, 5), "soft", torch.float32, 1.0),
        (((111, 30), 111, 96, 31), "mixed", torch.float16, 0.5),
        (((40, 77), 77, 40, 3), "full", torch.float16, 1.0),
        (((2, 20), 20, 9, 1), "hard", torch.float32, 1.0),
    ],
    ids=str,
)
def test_agrees_with_the_reference(
    sizes: Any, gating: str, dtype: torch.dtype, scale: float
) -> None:
    case, gates = Case(*sizes), gate_rows(gating, 1)
    work = work_of(gates, full_capacity=gating == "mixed")
    check_operation(
        lambda **given: case.run(work, scale, **given),
        lambda **given: case.plain(scale=scale, **given),
        case.tensors(gates), dtype,
    )  # fmt: skip


def test_a_module_without_residual_agrees_too() -> None:
    case, gates = Case(*SMALL), gate_rows("mixed", 1)
    tensors = case.tensors(gates)
    del tensors["residual"]
    work = work_of(gates)
    actual = check_operation(
        lambda **given: case.run(work, **given), lambda **given: case.plain(None, **given),
        tensors, torch.float32,
    )  # fmt: skip
    assert actual["output"][1].eq(0).all()


def test_the_reference_runs_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    case, gates = Case(*SMALL), gate_rows("mixed", 1)
    tensors, work = case.tensors(gates), work_of(gates)
    monkeypatch.setenv("ORTHO_KERNELS", "reference")
    expected = case.plain(scale=0.5, **tensors)
    device: dict[str, Any] = {name: tensor.to(DEVICE) for name, tensor in tensors.items()}
    assert case.run(work, 0.5, **device).cpu().equal(expected)


@pytest.mark.parametrize("full", [True, False])
def test_a_closed_module_gives_its_residual_and_no_gradient_whatever_its_weights(
    full: bool,
) -> None:
    case, gates = Case(*SMALL), gate_rows("closed", 1)
    tensors = rounded(case.tensors(gates), torch.float32)
    poisoned = {
        name: tensor if name in ("gates", "residual") else torch.full_like(tensor, torch.nan)
        for name, tensor in tensors.items()
    }
    work = work_of(gates, full_capacity=full)
    result = output_and_gradients(lambda **given: case.run(work, **given), poisoned, None)
    assert result.pop("output").equal(tensors["residual"])
    assert result.pop("residual").any()
    assert all(gradient.eq(0).all() for gradient in result.values())


def test_a_closed_subnet_is_never_read() -> None:
    case, gates = Case(*SMALL), gate_rows("mixed", 1)
    assert gates.ne(0).flatten().tolist() == [True, False, True]
    tensors = rounded(case.tensors(gates), torch.float32)
    work = work_of(gates, full_capacity=True)
    before = output_and_gradients(lambda **given: case.run(work, **given), tensors, None)
    tensors["x"][1] = torch.nan
    after = output_and_gradients(lambda **given: case.run(work, **given), tensors, None)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert after["x"][1].eq(0).all()
    assert after["gates"][1].eq(0).all()
    assert after["output"][1].equal(tensors["residual"][1])


def test_padded_frames_count_as_zeros() -> None:
    case, gates = Case(*SMALL), gate_rows("soft", 1)
    tensors, work = rounded(case.tensors(gates), torch.float32), work_of(gates)
    before = output_and_gradients(lambda **given: case.run(work, **given), tensors, None)
    tensors["x"][:, ~case.valid.to(DEVICE)] += 5
    after = output_and_gradients(lambda **given: case.run(work, **given), tensors, None)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert after["x"][:, ~case.valid.to(DEVICE)].eq(0).all()


def test_other_masks_in_the_same_buffer_give_other_results() -> None:
    case, gates = Case(*SMALL), gate_rows("mixed", 1)
    old = plan([(open_units(gate_rows("full", 1)), 1)], DEVICE, full_capacity=True)
    refill(old, [open_units(gates)])
    captured = old.modules[0]  # what a captured graph holds on to
    check_operation(
        lambda **given: case.run(captured, **given), case.plain, case.tensors(gates), torch.float32
    )


def test_without_gradients_the_output_is_the_same() -> None:
    case, gates = Case(*SMALL), gate_rows("mixed", 1)
    tensors: dict[str, Any] = rounded(case.tensors(gates), torch.float32)
    work = work_of(gates)
    expected = output_and_gradients(lambda **given: case.run(work, **given), tensors, None)
    assert case.run(work, **tensors).equal(expected["output"])


def test_autocast_multiplies_in_its_dtype_and_keeps_gradients_of_weights_in_theirs() -> None:
    case, gates = Case((20, 13), 20, 40, 5), gate_rows("soft", 1)
    tensors, work = rounded(case.tensors(gates), torch.float32), work_of(gates)

    def run(residual: Tensor, **given: Any) -> Tensor:
        with torch.autocast(DEVICE.type, torch.float16):
            y = case.run(work, **given)
        assert y.dtype == torch.float16
        return residual + y

    actual = output_and_gradients(run, tensors, None)
    assert {gradient.dtype for gradient in actual.values()} == {torch.float32}
    truth = {name: tensor.cpu().double() for name, tensor in tensors.items()}
    assert_agrees(actual, output_and_gradients(case.plain, truth), torch.float16)


@pytest.mark.parametrize("full", [True, False])
def test_torch_accepts_the_operators(full: bool) -> None:
    case, gates = Case(*SMALL), gate_rows("mixed", 1)
    given = rounded(case.tensors(gates), torch.float32)
    residual = given.pop("residual")
    given = {name: tensor.requires_grad_(full) for name, tensor in given.items()}
    work = work_of(gates)
    torch.library.opcheck(
        op.forward,
        (*given.values(), residual if full else None, case.lengths, work.buffer, work.capacity,
         EPS, 0.5, full),
    )  # fmt: skip
