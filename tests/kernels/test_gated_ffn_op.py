"""The gated FFN that networks call: its kernels, and what they have in common with plain torch."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ortho_kernels import dispatch
from ortho_kernels.gated_ffn.op import forward, gated_ffn
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

CHUNKS = 2
SMALL = (2, 63, 9, 5)
"""Batch, frames, model width, chunk width: one tile with tails."""
TAILS = [((1, 77, 96, 40), DTYPES[0]), *(((1, 111, 40, 136), dtype) for dtype in DTYPES[1:])]
"""Several tiles of rows, of the model's width, and of a chunk's."""
WEIGHTS = ("w1", "b1", "w2")


def tensors(gates: Tensor, shape: tuple[int, int, int, int] = SMALL) -> dict[str, Tensor]:
    batch, frames, dim, width = shape
    drawn = random_tensors(
        0, x=(NUM_SUBNETS, batch, frames, dim), w1=(CHUNKS, width, dim), b1=(CHUNKS, width),
        w2=(CHUNKS, width, dim), b2=(dim,), residual=(NUM_SUBNETS, batch, frames, dim),
    )  # fmt: skip
    drawn["w1"] /= math.sqrt(dim)
    return {**drawn, "gates": gates}


def operation(work: WorkList, dropout: float = 0.0) -> Callable[..., Tensor]:
    def run(**given: Any) -> Tensor:
        return gated_ffn(**given, work=work, dropout=dropout, scale=0.5)

    return run


def loops(residual: Tensor, **given: Tensor) -> Tensor:
    return residual + 0.5 * naive.ffn(**given)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, "triton")


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, "reference")


def check(gates: Tensor, shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    given = poison_closed(tensors(gates, shape), gates, WEIGHTS)  # NaN
    actual = check_operation(operation(work_of(gates)), loops, given, dtype)
    closed = gates.eq(0)
    assert actual["gates"].cpu()[closed].eq(0).all()
    for name in WEIGHTS:
        assert actual[name].cpu()[closed.all(0)].eq(0).all()
    asleep = closed.all(1)
    assert actual["output"].cpu()[asleep].equal(given["residual"].to(dtype)[asleep])


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("gating", ["hard", "mixed", "one_open", "full"])
def test_kernels_agree_with_loops_over_chunks(gating: str) -> None:
    check(gate_rows(gating, CHUNKS), SMALL, torch.float32)


@pytest.mark.usefixtures("kernels")
def test_kernels_read_nothing_of_a_chunk_that_is_closed_everywhere() -> None:
    gates = gate_rows("soft", CHUNKS)
    gates[:, 0] = 0
    check(gates, SMALL, torch.float32)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("shape", "dtype"), TAILS, ids=str)
def test_kernels_agree_in_every_dtype_and_tile(
    shape: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    check(gate_rows("mixed", CHUNKS), shape, dtype)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("gating", GATINGS)
def test_plain_torch_agrees_with_loops_over_chunks(gating: str) -> None:
    given = tensors(gate_rows(gating, CHUNKS))
    actual = output_and_gradients(operation(work_of(given["gates"])), given)
    expected = output_and_gradients(loops, given)
    torch.testing.assert_close(actual, expected, **tolerance("float64_reordered"))


@pytest.mark.parametrize("backend", ["kernels", "plain"])
def test_the_residual_and_the_factor_may_be_left_out(
    backend: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(backend)
    gates = gate_rows("mixed", CHUNKS)
    given: dict[str, Any] = rounded(tensors(gates), torch.float32)
    del given["residual"]
    truth = {name: tensor.cpu().double() for name, tensor in given.items()}
    y = gated_ffn(**given, work=work_of(gates))
    assert_agrees({"y": y}, {"y": naive.ffn(**truth)}, torch.float32)


@pytest.mark.parametrize("backend", ["kernels", "plain"])
def test_where_nothing_is_open_the_residual_comes_back(
    backend: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(backend)
    gates = gate_rows("closed", CHUNKS)
    given = rounded(tensors(gates), torch.float32)
    assert operation(work_of(gates))(**given) is given["residual"]
    del given["residual"]
    assert operation(work_of(gates))(**given).eq(0).all()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("gating", ["closed", "hard"])
def test_other_masks_in_the_same_buffer_give_other_results(gating: str) -> None:
    old = plan([(open_units(gate_rows("full", CHUNKS)), CHUNKS)], DEVICE, full_capacity=True)
    gates = gate_rows(gating, CHUNKS)
    refill(old, [open_units(gates)])
    # A captured graph holds on to the old list, of which only the device's part has changed.
    check_operation(operation(old.modules[0]), loops, tensors(gates), torch.float32)


@pytest.mark.usefixtures("kernels")
def test_dropout_zeroes_its_share_and_the_backward_knows_which() -> None:
    rate = 0.4
    gates = gate_rows("mixed", CHUNKS)
    given = rounded(tensors(gates, (2, 63, 9, 136)), torch.float32)
    work = work_of(gates)
    pairs = gates.ne(0).nonzero().tolist()
    torch.manual_seed(3)
    seed = torch.randint(2**62, (1,), device=DEVICE)
    order = [given[name] for name in ("x", "w1", "b1", "w2", "b2", "gates", "residual")]
    hidden = forward(*order, work.buffer, work.capacity, seed, rate, 0.5, True)[2]
    masks = dict(zip(map(tuple, pairs), hidden.ne(0).cpu(), strict=True))
    rates = [rate * len(units) / CHUNKS for units in open_units(gates)]
    for (subnet, _), mask in masks.items():
        deviation = math.sqrt(rates[subnet] * (1 - rates[subnet]) / mask.numel())
        assert abs(1 - mask.double().mean().item() - rates[subnet]) < 5 * deviation
    assert len({mask.double().mul(torch.arange(136)).sum() for mask in masks.values()}) == len(
        pairs
    )

    def with_those_masks(
        x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, gates: Tensor, residual: Tensor
    ) -> Tensor:
        rows = list(residual)
        for subnet, chunk in pairs:
            units = F.silu(x[subnet] @ w1[chunk].T + b1[chunk]) * gates[subnet, chunk]
            kept = units * masks[subnet, chunk].view(units.shape) / (1 - rates[subnet])
            rows[subnet] = rows[subnet] + 0.5 * kept @ w2[chunk]
        opened = gates.detach().ne(0).any(1)
        return torch.stack(rows) + 0.5 * b2 * opened[:, None, None, None]

    torch.manual_seed(3)  # the operation draws the same seed
    check_operation(operation(work, dropout=rate), with_those_masks, given, torch.float32)


@pytest.mark.usefixtures("kernels")
def test_dropout_follows_torch_manual_seed() -> None:
    gates = gate_rows("one_open", CHUNKS)
    given = rounded(tensors(gates), torch.float32)

    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return operation(work_of(gates), dropout=0.5)(**given)

    assert draw(0).equal(draw(0))
    assert not draw(0).equal(draw(1))


@pytest.mark.usefixtures("kernels")
def test_under_autocast_weights_keep_their_precision() -> None:
    gates = gate_rows("mixed", CHUNKS)
    given = rounded(tensors(gates), torch.float32)
    work = work_of(gates)

    def cast(**leaves: Tensor) -> Tensor:
        with torch.autocast(DEVICE.type, torch.float16):
            y = operation(work)(**leaves)
        assert y.dtype == torch.float32  # that of the residual
        return y

    truth = {name: tensor.cpu().double() for name, tensor in given.items()}
    expected = output_and_gradients(loops, truth)
    actual = output_and_gradients(cast, given, None)
    assert all(tensor.dtype == torch.float32 for tensor in actual.values())
    assert_agrees(actual, expected, torch.float16)


@pytest.mark.export  # it traces
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_operator_keeps_what_it_promises_torch(dropout: float) -> None:
    gates = gate_rows("mixed", CHUNKS)
    given = rounded(tensors(gates, (1, 7, 9, 5)), torch.float32)
    work = work_of(gates)
    seed = torch.zeros(1, dtype=torch.int64, device=DEVICE) if dropout else None
    order = [given[name].requires_grad_() for name in ("x", *WEIGHTS, "b2", "gates", "residual")]
    torch.library.opcheck(forward, (*order, work.buffer, work.capacity, seed, dropout, 0.5, True))
