"""The kernels of `expand`, `reduce` and `weight_gradient`, and how they are launched.

All loops accumulate in float32. Rows are addressed from the first row of a tile, by a 64-bit
number, since capacity M W passes 2^31; inside a tile 32 bits do.
"""

from collections.abc import Mapping

import torch
import triton
import triton.language as tl
from torch import Tensor

from ortho_kernels.launch import Precision, dot_precision, launch_config, start

RUNTIME = ("M", "S", "U")
"""Arguments that a kernel is not compiled anew for."""


@triton.jit
def tile_indices(columns, BLOCK_N: tl.constexpr):
    """Row tile and column tile of a program; the grid is that of `tile_grid`."""
    inner = tl.program_id(0)
    group = tl.num_programs(0) // tl.cdiv(columns, BLOCK_N)
    return tl.program_id(2) * group + inner % group, inner // group


@triton.jit
def pair_product(
    x, weight, work, M, D, W, S, U, pair, m, n,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    FULL_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Tile (m, n) of x[subnet] @ weight[unit].T, subnet, unit, and its rows: 0 without a pair."""
    subnet = tl.load(work + S + 1 + pair)
    unit = tl.load(work + S + 1 + S * U + pair)
    # Reading the last row or column again keeps bounds out of the loop; it is never stored. Where
    # memory is contiguous only bounds leave loads asynchronous.
    rows = tl.where(pair < tl.load(work + S), tl.minimum(M - m * BLOCK_M, BLOCK_M), 0)
    row = tl.minimum(tl.arange(0, BLOCK_M), rows - 1)
    column = tl.minimum(n * BLOCK_N + tl.arange(0, BLOCK_N), W - 1)
    k = tl.arange(0, BLOCK_K)
    x_tile = x + (subnet.to(tl.int64) * M + m * BLOCK_M) * D + row[:, None] * D + k[None, :]
    weight_tile = weight + unit.to(tl.int64) * W * D + column[None, :] * D + k[:, None]
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(tl.where(rows > 0, tl.cdiv(D, BLOCK_K), 0)):
        if FULL_K:
            a = tl.load(x_tile + step * BLOCK_K)
            b = tl.load(weight_tile + step * BLOCK_K)
        else:
            left = D - step * BLOCK_K
            a = tl.load(x_tile + step * BLOCK_K, mask=k[None, :] < left, other=0.0)
            b = tl.load(weight_tile + step * BLOCK_K, mask=k[:, None] < left, other=0.0)
        product = tl.dot(a, b, product, input_precision=PRECISION)
    return product, subnet, unit, rows


@triton.jit(do_not_specialize=RUNTIME, do_not_specialize_on_alignment=["work"])
def expand_kernel(
    x, weight, bias, work, out, M, D, W, S, U,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    FULL_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of one pair: out[pair] = x[subnet] @ weight[unit].T + bias[unit]."""
    m, n = tile_indices(W, BLOCK_N)
    pair = tl.program_id(1)
    product, _, unit, rows = pair_product(
        x, weight, work, M, D, W, S, U, pair, m, n, BLOCK_M, BLOCK_N, BLOCK_K, FULL_K, PRECISION
    )
    row = tl.arange(0, BLOCK_M)[:, None]
    column = n * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    if bias is not None:
        product += tl.load(bias + unit * W + column, mask=column < W, other=0.0).to(tl.float32)
    tile = out + (pair.to(tl.int64) * M + m * BLOCK_M) * W + row * W + column
    tl.store(tile, product.to(out.dtype.element_ty), mask=(row < rows) & (column < W))


@triton.jit(do_not_specialize=RUNTIME, do_not_specialize_on_alignment=["work"])
def reduce_kernel(
    h, weight, bias, residual, work, out, scale, M, D, W, S, U, bias_stride,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    FULL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of one subnet: its open pairs' h @ weight, plus bias, times scale, plus residual."""
    m, n = tile_indices(D, BLOCK_N)
    subnet = tl.program_id(1)
    first = tl.load(work + subnet)
    pairs = tl.load(work + subnet + 1) - first
    units = work + S + 1 + S * U + first
    rows = tl.minimum(M - m * BLOCK_M, BLOCK_M)
    row = tl.minimum(tl.arange(0, BLOCK_M), rows - 1)
    column = n * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    h_tile = h + (first.to(tl.int64) * M + m * BLOCK_M) * W + row[:, None] * W + k[None, :]
    weight_tile = weight + column[None, :] + k[:, None] * D
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    # One loop over all units, not one per unit: the pipeline is filled once. A unit is looked up
    # one step ahead (behind the last one it reads another entry of the buffer, and ignores it):
    # loads that hang on another load of their own step would get half the pipeline's stages.
    per_unit = tl.cdiv(W, BLOCK_K)
    unit = tl.load(units)
    for step in range(tl.where(rows > 0, pairs * per_unit, 0)):
        pair = step // per_unit
        start = (step - pair * per_unit) * BLOCK_K
        h_step = h_tile + (pair.to(tl.int64) * M * W + start)
        weight_step = weight_tile + (unit.to(tl.int64) * W + start) * D
        if FULL:
            a = tl.load(h_step)
            b = tl.load(weight_step)
        else:
            left = W - start
            a = tl.load(h_step, mask=k[None, :] < left, other=0.0)
            b = tl.load(weight_step, mask=(k[:, None] < left) & (column[None, :] < D), other=0.0)
        product = tl.dot(a, b, product, input_precision=PRECISION)
        unit = tl.load(units + (step + 1) // per_unit)
    row = tl.arange(0, BLOCK_M)[:, None]
    column = n * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    inside = (row < rows) & (column < D)
    if bias is not None:
        bias += subnet * bias_stride
        product += tl.load(bias + column, mask=column < D, other=0.0).to(tl.float32)
    product = tl.where(pairs > 0, product * scale, 0.0)
    tile = (subnet.to(tl.int64) * M + m * BLOCK_M) * D + row * D + column
    if residual is not None:
        product += tl.load(residual + tile, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + tile, product.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=RUNTIME, do_not_specialize_on_alignment=["work"])
def weight_gradient_kernel(
    a, x, work, out, scale, M, D, W, S, U,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    FULL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile (W, D) of one unit, from one share of every subnet's rows."""
    tiles_n = tl.cdiv(D, BLOCK_N)
    m, n = tl.program_id(0) // tiles_n, tl.program_id(0) % tiles_n
    unit, split = tl.program_id(1), tl.program_id(2)
    share = tl.cdiv(tl.cdiv(M, BLOCK_K), tl.num_programs(2))
    first = split * share * BLOCK_K
    steps = tl.minimum(share, tl.cdiv(M - first, BLOCK_K))
    row = m * BLOCK_M + tl.arange(0, BLOCK_M)
    column = n * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for number in range(S):
        subnet = number + tl.zeros((), tl.int32)  # the interpreter counts in Python's ints
        slot = tl.load(work + S + 1 + 2 * S * U + subnet * U + unit)
        a_first = slot.to(tl.int64) * M + first
        x_first = subnet.to(tl.int64) * M + first
        for step in range(tl.where(slot >= 0, steps, 0)):
            left = M - first - step * BLOCK_K
            a_mask, x_mask = k[None, :] < left, k[:, None] < left
            if not FULL:
                a_mask, x_mask = a_mask & (row[:, None] < W), x_mask & (column[None, :] < D)
            a_step = a + (a_first + step * BLOCK_K) * W + row[:, None] + k[None, :] * W
            x_step = x + (x_first + step * BLOCK_K) * D + column[None, :] + k[:, None] * D
            product = tl.dot(
                tl.load(a_step, mask=a_mask, other=0.0),
                tl.load(x_step, mask=x_mask, other=0.0),
                product,
                input_precision=PRECISION,
            )
    row = m * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    column = n * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    tile = out + (split * U + unit).to(tl.int64) * W * D + row * D + column
    tl.store(tile, product * scale, mask=(row < W) & (column < D))


def tile_grid(
    rows: int, columns: int, parts: int, blocks: Mapping[str, int]
) -> tuple[int, int, int]:
    """A grid whose programs next to each other share rows and columns of their operands.

    Fastest are the row tiles of a group, then column tiles, then the parts (pairs or subnets): all
    parts read a group's rows of x before the next group's turn.
    """
    tiles = triton.cdiv(rows, blocks["BLOCK_M"])
    group = max(1, min(blocks["GROUP_M"], tiles))
    return group * triton.cdiv(columns, blocks["BLOCK_N"]), parts, triton.cdiv(tiles, group)


def expand(
    x: Tensor,
    weight: Tensor,
    work: Tensor,
    capacity: int,
    bias: Tensor | None = None,
    *,
    precision: Precision | None = None,
) -> Tensor:
    """x[subnet] @ weight[unit].T + bias[unit] of every open pair.

    Args:
        x: (S, M, D), contiguous.
        weight: (U, W, D), contiguous, in the dtype of x.
        work: Buffer of the work list.
        capacity: Rows of the result.
        bias: (U, W), contiguous.
        precision: Of products of float32; by default `dot_precision`.

    Returns:
        (capacity, M, W) in the dtype of x; rows beyond the pairs are not written.
    """
    subnets, rows, dim = x.shape
    units, width, _ = weight.shape
    config = launch_config("expand", x.device, x.dtype, width)
    blocks = config.blocks
    out = torch.empty(capacity, rows, width, dtype=x.dtype, device=x.device)
    start(
        expand_kernel, tile_grid(rows, width, capacity, blocks), config,
        x, weight, bias, work, out, rows, dim, width, subnets, units,
        FULL_K=dim % blocks["BLOCK_K"] == 0, PRECISION=precision or dot_precision(x),
    )  # fmt: skip
    return out


def reduce(
    h: Tensor,
    weight: Tensor,
    work: Tensor,
    num_subnets: int,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    scale: float = 1.0,
    precision: Precision | None = None,
) -> Tensor:
    """scale (sum over a subnet's open pairs of h[pair] @ weight[unit] + bias) + residual.

    A subnet without open units gives exactly its residual, or zeros.

    Args:
        h: (capacity, M, W), contiguous.
        weight: (U, W, D), contiguous, in the dtype of h.
        work: Buffer of the work list.
        num_subnets: S.
        bias: (D,), or (S, D) with one of each subnet; added where a unit is open.
        residual: (S, M, D), contiguous.
        scale: Of the sum and the bias.
        precision: Of products of float32; by default `dot_precision`.

    Returns:
        (S, M, D) in the dtype of the residual, if there is one, else of h.
    """
    _, rows, width = h.shape
    units, _, dim = weight.shape
    config = launch_config("reduce", h.device, h.dtype, dim)
    blocks = config.blocks
    dtype = h.dtype if residual is None else residual.dtype
    out = torch.empty(num_subnets, rows, dim, dtype=dtype, device=h.device)
    start(
        reduce_kernel, tile_grid(rows, dim, num_subnets, blocks), config,
        h, weight, bias, residual, work, out, scale, rows, dim, width, num_subnets, units,
        dim if bias is not None and bias.dim() == 2 else 0,
        FULL=width % blocks["BLOCK_K"] == dim % blocks["BLOCK_N"] == 0,
        PRECISION=precision or dot_precision(h),
    )  # fmt: skip
    return out


def weight_gradient(
    a: Tensor,
    x: Tensor,
    work: Tensor,
    num_units: int,
    *,
    scale: float = 1.0,
    precision: Precision | None = None,
) -> Tensor:
    """scale times the sum, over the subnets where a unit is open, of a[pair].T @ x[subnet].

    The order of summation is fixed, so the same inputs give the same bits.

    Args:
        a: (capacity, M, W), contiguous.
        x: (S, M, D), contiguous, in the dtype of a.
        work: Buffer of the work list.
        num_units: U.
        scale: Factor of the result.
        precision: Of products of float32; by default `dot_precision`.

    Returns:
        (U, W, D) in float32; zeros for a unit that is open nowhere.
    """
    _, rows, width = a.shape
    subnets, _, dim = x.shape
    config = launch_config("weight_gradient", a.device, a.dtype, width)
    blocks = config.blocks
    tiles = triton.cdiv(width, blocks["BLOCK_M"]) * triton.cdiv(dim, blocks["BLOCK_N"])
    splits = max(1, min(blocks["SPLITS"], triton.cdiv(rows, blocks["BLOCK_K"])))
    out = torch.empty(splits, num_units, width, dim, dtype=torch.float32, device=a.device)
    start(
        weight_gradient_kernel, (tiles, num_units, splits), config,
        a, x, work, out, scale, rows, dim, width, subnets, num_units,
        FULL=width % blocks["BLOCK_M"] == dim % blocks["BLOCK_N"] == 0,
        PRECISION=precision or dot_precision(a),
    )  # fmt: skip
    return out[0] if splits == 1 else out.sum(0)
