"""The two kernels of the gated FFN that `grouped_gemm` does not have: products with a SiLU.

Everything behind a product is done on blocks of its columns, one after the other: a whole tile of
pre-activations, gradients and random numbers beside the accumulator would not fit in registers. A
block is `BLOCK` columns of a hidden chunk, counted from its first one, whatever the tiles are:
four blocks share one draw of four random numbers, and the backward draws the same ones again.
"""

# Triton compiles the kernels from their text: its language is not quite what its stubs say.
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportPossiblyUnboundVariable=false

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.random import philox, uint_to_uniform_float

from ortho_kernels.grouped_gemm.triton import RUNTIME, pair_product, tile_grid, tile_indices
from ortho_kernels.launch import dot_precision, launch_config, start

BLOCK = tl.constexpr(32)


@triton.jit
def halves(tile):
    """The left and the right half of a tile's columns; registers only."""
    split = tl.reshape(tile, (tile.shape[0], 2, tile.shape[1] // 2))
    return tl.split(tl.permute(split, (0, 2, 1)))


@triton.jit
def column_blocks(tile):
    """The four blocks of a tile's columns."""
    left, right = halves(tile)
    first, second = halves(left)
    third, fourth = halves(right)
    return first, second, third, fourth


@triton.jit
def dropped_units(work, seed, dropout, S, U, pair, m, n, BLOCK_M: tl.constexpr):
    """Which hidden units of tile (m, n) dropout zeroes: bit i is that of the tile's block i.

    The counter is the place in (subnet, unit, row, column), not in the work list, whose numbers
    change with the masks.

    Returns:
        The bits (BLOCK_M, BLOCK), and the rate: that of a full module, scaled by the share of
        chunks that are open in the subnet.
    """
    subnet = tl.load(work + S + 1 + pair)
    unit = tl.load(work + S + 1 + S * U + pair)
    chunks = tl.load(work + subnet + 1) - tl.load(work + subnet)
    rate = dropout * chunks.to(tl.float32) / U
    zeros = tl.zeros((BLOCK_M, BLOCK), tl.int32)
    row = m * BLOCK_M + tl.arange(0, BLOCK_M)[:, None] + zeros
    column = n * BLOCK + tl.arange(0, BLOCK)[None, :] + zeros
    draws = philox(tl.load(seed), row, column, zeros + subnet * U + unit, zeros)
    bits = zeros
    for block in tl.static_range(4):
        bits |= (uint_to_uniform_float(draws[block]) < rate).to(tl.int32) << block
    return bits, rate


@triton.jit(do_not_specialize=RUNTIME, do_not_specialize_on_alignment=["work", "gates"])
def expand_silu_kernel(
    x, weight, bias, gates, work, seed, a, h, dropout, M, D, W, S, U,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    FULL_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of one pair: a = x @ w1.T + b1, and h = gate silu(a) with dropout."""
    tl.static_assert(BLOCK_N == 4 * BLOCK)
    m, n = tile_indices(W, BLOCK_N)
    pair = tl.program_id(1)
    if seed is not None:
        # Before the product: its accumulator and these draws at once would not fit in registers.
        dropped, rate = dropped_units(work, seed, dropout, S, U, pair, m, n, BLOCK_M)
    product, subnet, unit, rows = pair_product(
        x, weight, work, M, D, W, S, U, pair, m, n, BLOCK_M, BLOCK_N, BLOCK_K, FULL_K, PRECISION
    )
    gate = tl.load(gates + subnet * U + unit).to(tl.float32)
    blocks = column_blocks(product)
    row = tl.arange(0, BLOCK_M)[:, None]
    tile = (pair.to(tl.int64) * M + m * BLOCK_M) * W + row * W
    for block in tl.static_range(4):
        column = n * BLOCK_N + block * BLOCK + tl.arange(0, BLOCK)[None, :]
        inside = (row < rows) & (column < W)
        shift = tl.load(bias + unit * W + column, mask=column < W, other=0.0).to(tl.float32)
        # The backward knows the rounded value only.
        linear = (blocks[block] + shift).to(h.dtype.element_ty)
        if a is not None:
            tl.store(a + tile + column, linear, mask=inside)
        linear = linear.to(tl.float32)
        hidden = gate * linear * tl.sigmoid(linear)
        if seed is not None:
            hidden = tl.where((dropped >> block) & 1 == 1, 0.0, hidden / (1 - rate))
        tl.store(h + tile + column, hidden.to(h.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=RUNTIME, do_not_specialize_on_alignment=["work", "gates"])
def expand_silu_backward_kernel(
    dy, weight, a, gates, work, seed, da, dbias, dgate, dropout, scale, M, D, W, S, U,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    FULL_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of one pair: da for dh = scale dy @ w2.T, and the tile's share of db1 and dgate."""
    tl.static_assert(BLOCK_N == 4 * BLOCK)
    m, n = tile_indices(W, BLOCK_N)
    pair = tl.program_id(1)
    if seed is not None:
        # Before the product: its accumulator and these draws at once would not fit in registers.
        dropped, rate = dropped_units(work, seed, dropout, S, U, pair, m, n, BLOCK_M)
    product, subnet, unit, rows = pair_product(
        dy, weight, work, M, D, W, S, U, pair, m, n, BLOCK_M, BLOCK_N, BLOCK_K, FULL_K, PRECISION
    )
    gate = tl.load(gates + subnet * U + unit).to(tl.float32)
    blocks = column_blocks(product)
    row = tl.arange(0, BLOCK_M)[:, None]
    tile = (pair.to(tl.int64) * M + m * BLOCK_M) * W + row * W
    row_tile = pair.to(tl.int64) * tl.cdiv(M, BLOCK_M) + m
    total = tl.zeros((BLOCK_M,), tl.float32)
    for block in tl.static_range(4):
        column = n * BLOCK_N + block * BLOCK + tl.arange(0, BLOCK)
        inside = (row < rows) & (column[None, :] < W)
        position = tile + column[None, :]
        linear = tl.load(a + position, mask=inside, other=0.0).to(tl.float32)
        # Rows and columns that a tile reads twice do not count twice.
        gradient = tl.where(inside, blocks[block] * scale, 0.0)
        sigmoid = tl.sigmoid(linear)
        hidden = linear * sigmoid
        if seed is not None:
            gradient = tl.where((dropped >> block) & 1 == 1, 0.0, gradient / (1 - rate))
        total += tl.sum(gradient * hidden, 1)
        gradient *= gate * (sigmoid + hidden * (1 - sigmoid))
        tl.store(da + position, gradient.to(da.dtype.element_ty), mask=inside)
        seen = column < tl.where(rows > 0, W, 0)
        tl.store(dbias + row_tile * W + column, tl.sum(gradient, 0), mask=seen)
    # The gate's gradient comes from the hidden units before the gate: tiny gates divide nothing.
    one = tl.arange(0, 1)
    share = dgate + row_tile * tl.cdiv(W, BLOCK_N) + n + one
    tl.store(share, tl.sum(total)[None], mask=one < rows)


def expand_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    gates: Tensor,
    work: Tensor,
    capacity: int,
    *,
    dropout: float,
    seed: Tensor | None,
    save: bool,
) -> tuple[Tensor | None, Tensor]:
    """Pre-activations and gated hidden units of every open pair.

    Args:
        x: (S, M, D), contiguous.
        weight: (C, W, D), contiguous, in the dtype of x.
        bias: (C, W), contiguous.
        gates: (S, C), contiguous.
        work: Buffer of the work list.
        capacity: Rows of the results.
        dropout: Rate of a full module.
        seed: int64 (1,), or None for no dropout.
        save: Whether pre-activations are wanted.

    Returns:
        a or None, and h = gate silu(a) with dropout; (capacity, M, W) in the dtype of x.
    """
    subnets, rows, dim = x.shape
    units, width, _ = weight.shape
    config = launch_config("expand_silu", x.device, x.dtype, width)
    h = torch.empty(capacity, rows, width, dtype=x.dtype, device=x.device)
    a = torch.empty_like(h) if save else None
    start(
        expand_silu_kernel, tile_grid(rows, width, capacity, config.blocks), config,
        x, weight, bias, gates, work, seed, a, h, dropout, rows, dim, width, subnets, units,
        FULL_K=dim % config.blocks["BLOCK_K"] == 0, PRECISION=dot_precision(x),
    )  # fmt: skip
    return a, h


def expand_silu_backward(
    dy: Tensor,
    weight: Tensor,
    a: Tensor,
    gates: Tensor,
    work: Tensor,
    *,
    dropout: float,
    seed: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of pre-activations, biases and gates of every open pair.

    Args:
        dy: (S, M, D), contiguous, in the dtype of a.
        weight: w2 (C, W, D), contiguous, in the dtype of a.
        a: (capacity, M, W), the pre-activations.
        gates: (S, C), contiguous.
        work: Buffer of the work list.
        dropout: Rate of a full module.
        seed: That of the forward, or None for no dropout.
        scale: Factor of the module's output.

    Returns:
        da (capacity, M, W) in the dtype of a, db1 (capacity, W) and dgate (capacity,) in float32.
    """
    subnets, rows, dim = dy.shape
    units, width, _ = weight.shape
    capacity = a.shape[0]
    config = launch_config("expand_silu_backward", dy.device, dy.dtype, width)
    tiles_m = triton.cdiv(rows, config.blocks["BLOCK_M"])
    tiles_n = triton.cdiv(width, config.blocks["BLOCK_N"])
    da = torch.empty_like(a)
    dbias = torch.empty(capacity, tiles_m, width, dtype=torch.float32, device=a.device)
    dgate = torch.empty(capacity, tiles_m * tiles_n, dtype=torch.float32, device=a.device)
    start(
        expand_silu_backward_kernel, tile_grid(rows, width, capacity, config.blocks), config,
        dy, weight, a, gates, work, seed, da, dbias, dgate, dropout, scale,
        rows, dim, width, subnets, units,
        FULL_K=dim % config.blocks["BLOCK_K"] == 0, PRECISION=dot_precision(dy),
    )  # fmt: skip
    return da, dbias.sum(1), dgate.sum(1)
