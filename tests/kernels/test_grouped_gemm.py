"""Products over work lists against loops over their pairs in float64."""

import pytest
import torch
from torch import Tensor

from ortho_kernels.grouped_gemm.triton import expand, reduce, weight_gradient
from ortho_kernels.worklist import by_unit, open_subnets, plan, refill
from tests.kernels.gating import GATINGS, NUM_SUBNETS, gate_rows, open_units, random_tensors
from tests.kernels.harness import DEVICE, DTYPES, assert_agrees, rounded, work_of

UNITS = 3
SHAPES = [(77, 9, 5), (130, 96, 40), (63, 64, 192)]
"""Rows M, model width D, unit width W: one tile or several, with and without tails."""


def operands(rows: int, dim: int, width: int) -> dict[str, Tensor]:
    return random_tensors(
        0, x=(NUM_SUBNETS, rows, dim), h=(NUM_SUBNETS, UNITS, rows, width),
        weight=(UNITS, width, dim), unit_bias=(UNITS, width), bias=(dim,),
        residual=(NUM_SUBNETS, rows, dim),
    )  # fmt: skip


def compact(h: Tensor, gates: Tensor, capacity: int) -> Tensor:
    """The rows of open pairs, then NaN up to the capacity."""
    rows = torch.full((capacity, *h.shape[2:]), torch.nan, dtype=h.dtype, device=h.device)
    pairs = h[gates.to(h.device) != 0]
    rows[: len(pairs)] = pairs
    return rows


def poison(gates: Tensor, weight: Tensor) -> Tensor:
    """The weight with NaN in units that are open nowhere."""
    return weight.where(gates.ne(0).any(0)[:, None, None].to(weight.device), torch.nan)


def naive_reduce(given: dict[str, Tensor], gates: Tensor, scale: float) -> Tensor:
    rows = []
    for s, units in enumerate(open_units(gates)):
        total = sum((given["h"][s, u] @ given["weight"][u] for u in units), given["bias"])
        rows.append(given["residual"][s] + (scale * total if units else 0))
    return torch.stack(rows)


def naive_weight_gradient(given: dict[str, Tensor], gates: Tensor, scale: float) -> Tensor:
    product = torch.einsum("sumw,smd->suwd", given["h"], given["x"])
    return scale * (product * (gates != 0)[:, :, None, None]).sum(0)


def check(gates: Tensor, shape: tuple[int, int, int], dtype: torch.dtype, capacity: bool) -> None:
    work = work_of(gates, full_capacity=capacity)
    given = rounded(operands(*shape), dtype)
    truth = {name: tensor.cpu().double() for name, tensor in given.items()}
    weight = poison(gates, given["weight"])
    h = compact(given["h"], gates, work.capacity)
    up = expand(given["x"], weight, work.buffer, work.capacity, given["unit_bias"])
    down = reduce(h, weight, work.buffer, NUM_SUBNETS, given["bias"], given["residual"], scale=0.5)
    gradient = weight_gradient(h, given["x"], work.buffer, UNITS, scale=0.5)
    assert (up.dtype, down.dtype, gradient.dtype) == (dtype, dtype, torch.float32)
    pairs = gates.ne(0).nonzero().tolist()
    naive = {
        "up": [truth["x"][s] @ truth["weight"][u].T + truth["unit_bias"][u] for s, u in pairs],
        "down": [naive_reduce(truth, gates, 0.5)],
        "gradient": [naive_weight_gradient(truth, gates, 0.5)],
    }
    assert up[len(pairs) :].isnan().all()
    actual = {"down": down, "gradient": gradient}
    expected = {name: torch.cat(naive[name]) for name in actual}
    if pairs:
        actual["up"], expected["up"] = up[: len(pairs)].flatten(0, 1), torch.cat(naive["up"])
    assert_agrees({n: t.view(expected[n].shape) for n, t in actual.items()}, expected, dtype)
    assert gradient[gates.eq(0).all(0)].eq(0).all()
    assert down[gates.eq(0).all(1)].equal(given["residual"][gates.eq(0).all(1)])


@pytest.mark.parametrize("gating", GATINGS)
def test_agree_with_loops_over_pairs(gating: str) -> None:
    check(gate_rows(gating, UNITS), SHAPES[0], torch.float32, capacity=False)


@pytest.mark.parametrize(
    ("shape", "dtype"), [(SHAPES[1], DTYPES[0]), *((SHAPES[2], d) for d in DTYPES[1:])], ids=str
)
def test_tiles_may_have_tails(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    gates = gate_rows("mixed", UNITS)
    gates[:, 1] = 0  # a unit that is open nowhere
    check(gates, shape, dtype, capacity=True)


def test_sums_need_neither_bias_nor_residual() -> None:
    gates = gate_rows("mixed", UNITS)
    work = work_of(gates)
    given = rounded(operands(77, 9, 5), torch.float32)
    h = compact(given["h"], gates, work.capacity)
    plain = reduce(h, given["weight"], work.buffer, NUM_SUBNETS)
    truth = {name: tensor.cpu().double() for name, tensor in given.items()}
    truth |= {name: torch.zeros_like(truth[name]) for name in ("bias", "residual")}
    assert_agrees({"y": plain}, {"y": naive_reduce(truth, gates, 1.0)}, torch.float32)


def test_other_masks_in_the_same_buffer_give_other_results() -> None:
    old = plan([(open_units(gate_rows("full", UNITS)), UNITS)], DEVICE, full_capacity=True)
    gates = gate_rows("mixed", UNITS)
    refill(old, [open_units(gates)])
    work = old.modules[0]  # what a captured graph holds on to
    given = rounded(operands(77, 9, 5), torch.float32)
    up = expand(given["x"], given["weight"], work.buffer, work.capacity)
    pairs = gates.ne(0).nonzero().tolist()
    expected = torch.stack([given["x"][s] @ given["weight"][u].T for s, u in pairs])
    assert_agrees({"up": up[: len(pairs)]}, {"up": expected}, torch.float32)
    assert up[len(pairs) :].isnan().all()


def test_bfloat16_is_refused_where_it_would_be_wrong() -> None:
    if DEVICE.type == "cuda":
        pytest.skip("a GPU computes bfloat16")
    work = work_of(gate_rows("full", UNITS))
    given = rounded(operands(77, 9, 5), torch.bfloat16)
    with pytest.raises(ValueError, match="bfloat16"):
        expand(given["x"], given["weight"], work.buffer, work.capacity)


@pytest.mark.parametrize("gating", GATINGS)
def test_values_of_pairs_are_spread_over_subnets_and_units(gating: str) -> None:
    gates = gate_rows(gating, UNITS)
    work = work_of(gates, full_capacity=True)
    values = operands(7, 3, 2)["h"].where(gates.ne(0)[:, :, None, None], 0).to(DEVICE)
    spread = by_unit(compact(values, gates, work.capacity), work.buffer, NUM_SUBNETS, UNITS)
    assert spread.equal(values)
    opened = open_subnets(work.buffer, NUM_SUBNETS)
    assert opened.tolist() == gates.ne(0).any(1).tolist()
