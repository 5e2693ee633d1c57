"""The forward kernels of the convolution module, but for its last product.

Every program belongs to one pair of the work list, that is, to one subnet whose module is open.
Compact activations are (capacity, M, ...) with M = B T; where capacity exceeds the pairs, the other
programs read nothing of the activations and write only zeros, into partial sums. All sums over
programs are finished by torch, so results do not depend on the order in which programs run.

What the forward pass keeps for the backward pass, per open frame: the output of the GLU, what its
sigmoid took, the normalised row, and the gated hidden row. To compute the sigmoid's argument again
would be half of the first product (2 D^2 operations per frame; D = 512 on an H200: 8.5 us per 12800
frames), to write and read it is 4 D bytes (6 us). The values of the GLU are not kept: their
gradient's factor, value * sigmoid', is the output times (1 - sigmoid).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ortho_kernels.launch import Precision, dot_precision, launch_config, start

RUNTIME = ("M", "T", "S")
"""Arguments that a kernel is not compiled anew for."""


@triton.jit
def open_pair(work, S, pair):
    """The subnet of a pair, and whether there is such a pair."""
    return tl.load(work + S + 1 + pair), pair < tl.load(work + S)


@triton.jit
def row_vector(pointer, column, width):
    """float32 (1, columns) of a vector; 0 beyond `width`."""
    return tl.load(pointer + column, mask=column < width, other=0.0).to(tl.float32)[None, :]


@triton.jit(do_not_specialize=RUNTIME, do_not_specialize_on_alignment=["work", "lengths"])
def conv_glu_kernel(
    x, weight, bias, lengths, work, glued, glu_gates, M, T, D, S,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    FULL_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """glued = (x Wv^T + bv) sigmoid(x Wg^T + bg), 0 at padded frames; one tile of one pair.

    A program owns the same columns of both halves of the weight (2 D, D), values first. The
    sigmoid's argument is kept in `glu_gates`, if given. The grid is (row tiles x column tiles,
    pairs).
    """
    pair = tl.program_id(1)
    subnet, is_open = open_pair(work, S, pair)
    column_tiles = tl.cdiv(D, BLOCK_N)
    m, n = tl.program_id(0) // column_tiles, tl.program_id(0) % column_tiles
    rows = tl.where(is_open, tl.minimum(M - m * BLOCK_M, BLOCK_M), 0)
    # Reading the last row or column again keeps bounds out of the loop; it is never stored.
    row = tl.minimum(tl.arange(0, BLOCK_M), rows - 1)
    column = tl.minimum(n * BLOCK_N + tl.arange(0, BLOCK_N), D - 1)
    k = tl.arange(0, BLOCK_K)
    x_tile = x + (subnet.to(tl.int64) * M + m * BLOCK_M) * D + row[:, None] * D + k[None, :]
    value_tile = weight + column[None, :] * D + k[:, None]
    gate_tile = value_tile + D * D
    value = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    gate = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for first in range(0, tl.where(is_open, D, 0), BLOCK_K):
        if FULL_K:
            a = tl.load(x_tile + first)
            b = tl.load(value_tile + first)
            c = tl.load(gate_tile + first)
        else:
            left = D - first
            a = tl.load(x_tile + first, mask=k[None, :] < left, other=0.0)
            b = tl.load(value_tile + first, mask=k[:, None] < left, other=0.0)
            c = tl.load(gate_tile + first, mask=k[:, None] < left, other=0.0)
        value = tl.dot(a, b, value, input_precision=PRECISION)
        gate = tl.dot(a, c, gate, input_precision=PRECISION)

    row = tl.arange(0, BLOCK_M)
    column = n * BLOCK_N + tl.arange(0, BLOCK_N)
    value += row_vector(bias, column, D)
    gate += row_vector(bias + D, column, D)
    frame = m * BLOCK_M + row
    length = tl.load(lengths + frame // T, mask=row < rows, other=0)
    glu = tl.where((frame % T < length)[:, None], value * tl.sigmoid(gate), 0.0)
    inside = (row < rows)[:, None] & (column < D)[None, :]
    tile = (pair.to(tl.int64) * M + m * BLOCK_M) * D + row[:, None] * D + column[None, :]
    tl.store(glued + tile, glu.to(glued.dtype.element_ty), mask=inside)
    if glu_gates is not None:
        tl.store(glu_gates + tile, gate.to(glu_gates.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=RUNTIME, do_not_specialize_on_alignment=["work", "lengths"])
def conv_depthwise_norm_kernel(
    glued, taps, b_depthwise, w_norm, b_norm, gates, lengths, work,
    hidden, normalized, inverse_deviation, eps, T, D, S,
    K: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """hidden = gate * silu(LayerNorm(depthwise(glued))) of whole rows, in one pass.

    `taps` is (K, D). The normalised rows before weight and bias, and one over their deviation, are
    kept if given. The grid is (tiles of frames, B, pairs).
    """
    utterance, pair = tl.program_id(1), tl.program_id(2)
    subnet, is_open = open_pair(work, S, pair)
    frame = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    column = tl.arange(0, BLOCK_D)
    width = tl.where(is_open, D, 0)
    first = (pair.to(tl.int64) * tl.num_programs(1) + utterance) * T
    before: tl.constexpr = (K - 1) // 2

    z = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
    # Taps that reach padded frames only meet zeros.
    padded = tl.program_id(0) * BLOCK_T - before >= tl.load(lengths + utterance)
    for tap in range(tl.where(padded, 0, tl.where(is_open, K, 0))):
        source = frame + (tap - before)
        inside = ((source >= 0) & (source < T))[:, None] & (column < width)[None, :]
        tile = glued + first * D + source[:, None] * D + column[None, :]
        z += tl.load(tile, mask=inside, other=0.0).to(tl.float32) * row_vector(
            taps + tap * D, column, width
        )
    z += row_vector(b_depthwise, column, width)

    # Columns that only fill up D to a power of two are 0 in z, and must be 0 in the variance.
    centered = tl.where((column < D)[None, :], z - (tl.sum(z, 1) / D)[:, None], 0.0)
    inverse = tl.rsqrt(tl.sum(centered * centered, 1) / D + eps)
    unit = centered * inverse[:, None]
    y = unit * row_vector(w_norm, column, width) + row_vector(b_norm, column, width)
    gate = tl.load(gates + subnet).to(tl.float32)

    rows = tl.where(is_open, T, 0)
    inside = (frame < rows)[:, None] & (column < D)[None, :]
    tile = first * D + frame[:, None] * D + column[None, :]
    tl.store(hidden + tile, (gate * y * tl.sigmoid(y)).to(hidden.dtype.element_ty), mask=inside)
    if normalized is not None:
        tl.store(normalized + tile, unit.to(normalized.dtype.element_ty), mask=inside)
        tl.store(inverse_deviation + first + frame, inverse, mask=frame < rows)


def glu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    lengths: Tensor,
    work: Tensor,
    capacity: int,
    *,
    keep: bool,
    precision: Precision | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The gated linear unit of every open pair, 0 at padded frames.

    Args:
        x: (S, B, T, D), contiguous.
        weight: (2 D, D), contiguous, in the dtype of x; values first.
        bias: (2 D,), contiguous.
        lengths: (B,) int32, real frames.
        work: Buffer of the work list.
        capacity: Rows of the results.
        keep: Whether a backward pass follows.
        precision: Of products of float32; by default `dot_precision`.

    Returns:
        (capacity, B, T, D), and what the sigmoid took, for the backward pass.
    """
    subnets, batch, frames, dim = x.shape
    config = launch_config("conv_glu", x.device, x.dtype, dim)
    glued = x.new_empty(capacity, batch, frames, dim)
    glu_gates = torch.empty_like(glued) if keep else None
    tiles = triton.cdiv(batch * frames, config.blocks["BLOCK_M"])
    start(
        conv_glu_kernel, (tiles * triton.cdiv(dim, config.blocks["BLOCK_N"]), capacity), config,
        x, weight, bias, lengths, work, glued, glu_gates, batch * frames, frames, dim, subnets,
        FULL_K=dim % config.blocks["BLOCK_K"] == 0, PRECISION=precision or dot_precision(x),
    )  # fmt: skip
    return glued, glu_gates


def depthwise_norm(
    glued: Tensor,
    taps: Tensor,
    b_depthwise: Tensor,
    w_norm: Tensor,
    b_norm: Tensor,
    gates: Tensor,
    lengths: Tensor,
    work: Tensor,
    eps: float,
    *,
    keep: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """gate * silu(LayerNorm(depthwise convolution)) of every open pair.

    Args:
        glued: (capacity, B, T, D), contiguous.
        taps: (K, D), contiguous.
        b_depthwise: (D,).
        w_norm: (D,).
        b_norm: (D,).
        gates: (S,), contiguous.
        lengths: (B,) int32, real frames.
        work: Buffer of the work list.
        eps: Of the LayerNorm.
        keep: Whether a backward pass follows.

    Returns:
        (capacity, B, T, D); for the backward pass the normalised rows, of the same shape, and one
        over their deviation, (capacity, B, T) in float32.
    """
    capacity, batch, frames, dim = glued.shape
    config = launch_config("conv_depthwise_norm", glued.device, glued.dtype, dim)
    hidden = torch.empty_like(glued)
    normalized = torch.empty_like(glued) if keep else None
    inverse = glued.new_empty(capacity, batch, frames, dtype=torch.float32) if keep else None
    start(
        conv_depthwise_norm_kernel,
        (triton.cdiv(frames, config.blocks["BLOCK_T"]), batch, capacity), config,
        glued, taps, b_depthwise, w_norm, b_norm, gates, lengths, work,
        hidden, normalized, inverse, eps, frames, dim, gates.shape[0],
        K=taps.shape[0], BLOCK_D=triton.next_power_of_2(dim),
    )  # fmt: skip
    return hidden, normalized, inverse
