"""The backward kernels of the convolution module, but for its products.

As in the forward pass, every program belongs to an open pair. Programs beyond the pairs write only
zeros, into partial sums, which torch finishes in a fixed order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ortho_kernels.gated_conv.triton import RUNTIME, open_pair, row_vector
from ortho_kernels.launch import launch_config, start


@triton.jit(do_not_specialize=RUNTIME, do_not_specialize_on_alignment=["work"])
def conv_norm_backward_kernel(
    d_out, d_hidden, normalized, inverse_deviation, w_norm, b_norm, gates, work,
    d_z, column_sums, gate_sums, M, D, S,
    BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """From d_hidden, the gradient of silu(...) before its gate, to that of the convolution, d_z.

    The grid is (programs, pairs). A program works through TILES tiles of rows and leaves its share
    of four sums over rows in column_sums (pairs, programs, 4, D), the gradients of w_norm, b_norm
    and b_depthwise and the sum of d_out, and its share of sum(d_hidden * silu(...)) in gate_sums
    (pairs, programs).
    """
    pair = tl.program_id(1)
    subnet, is_open = open_pair(work, S, pair)
    column = tl.arange(0, BLOCK_D)
    width = tl.where(is_open, D, 0)
    weight = row_vector(w_norm, column, width)
    bias = row_vector(b_norm, column, width)
    gate = tl.load(gates + subnet).to(tl.float32)
    d_weight = tl.zeros((BLOCK_D,), tl.float32)
    d_bias = tl.zeros((BLOCK_D,), tl.float32)
    d_offset = tl.zeros((BLOCK_D,), tl.float32)
    total = tl.zeros((BLOCK_D,), tl.float32)
    d_gate = tl.zeros((BLOCK_D,), tl.float32)
    for number in range(tl.where(is_open, TILES, 0)):
        first = (tl.program_id(0) * TILES + number) * BLOCK_T
        row = tl.arange(0, BLOCK_T)
        inside = (row < M - first)[:, None] & (column < D)[None, :]
        offset = row[:, None] * D + column[None, :]
        place = pair.to(tl.int64) * M + first
        unit = tl.load(normalized + place * D + offset, mask=inside, other=0.0).to(tl.float32)
        d_h = tl.load(d_hidden + place * D + offset, mask=inside, other=0.0).to(tl.float32)
        d_y = d_out + (subnet.to(tl.int64) * M + first) * D + offset
        total += tl.sum(tl.load(d_y, mask=inside, other=0.0).to(tl.float32), 0)
        inverse = tl.load(inverse_deviation + place + row, mask=row < M - first, other=0.0)
        y = unit * weight + bias
        sigmoid = tl.sigmoid(y)
        d_gate += tl.sum(d_h * y * sigmoid, 0)
        d_affine = gate * d_h * sigmoid * (1 + y * (1 - sigmoid))
        d_weight += tl.sum(d_affine * unit, 0)
        d_bias += tl.sum(d_affine, 0)
        d_unit = d_affine * weight
        mean = tl.sum(d_unit, 1) / D
        slope = tl.sum(d_unit * unit, 1) / D
        d_row = inverse[:, None] * (d_unit - mean[:, None] - unit * slope[:, None])
        d_offset += tl.sum(d_row, 0)
        tl.store(d_z + place * D + offset, d_row.to(d_z.dtype.element_ty), mask=inside)

    program = pair.to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    sums = column_sums + program * (4 * D) + column
    tl.store(sums, d_weight, mask=column < D)
    tl.store(sums + D, d_bias, mask=column < D)
    tl.store(sums + 2 * D, d_offset, mask=column < D)
    tl.store(sums + 3 * D, total, mask=column < D)
    tl.store(gate_sums + program, tl.sum(d_gate, 0))


@triton.jit(do_not_specialize=RUNTIME, do_not_specialize_on_alignment=["work", "lengths"])
def conv_depthwise_backward_kernel(
    d_z, glued, glu_gates, taps, lengths, work, d_in, tap_sums, bias_sums, T, D, S,
    K: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Back through the depthwise convolution and the GLU to the output of the first product.

    Each shifted tile of d_z is read once, for the transposed convolution and for the gradient of
    its tap. d_in is (pairs, B, T, 2 D). A program leaves its share of the gradients of the taps in
    tap_sums (pairs, B, tiles of frames, K, D) and of the first product's bias in bias_sums (pairs,
    B, tiles of frames, 2 D). The grid is (tiles of frames x tiles of channels, B, pairs).
    """
    utterance, pair = tl.program_id(1), tl.program_id(2)
    _, is_open = open_pair(work, S, pair)
    column_tiles = tl.cdiv(D, BLOCK_C)
    number = tl.program_id(0) // column_tiles
    frame = number * BLOCK_T + tl.arange(0, BLOCK_T)
    column = tl.program_id(0) % column_tiles * BLOCK_C + tl.arange(0, BLOCK_C)
    width = tl.where(is_open, D, 0)
    sequence = pair.to(tl.int64) * tl.num_programs(1) + utterance
    first = sequence * T
    program = sequence * tl.cdiv(T, BLOCK_T) + number
    before: tl.constexpr = (K - 1) // 2

    inside = (frame < T)[:, None] & (column < width)[None, :]
    tile = first * D + frame[:, None] * D + column[None, :]
    source = tl.load(glued + tile, mask=inside, other=0.0).to(tl.float32)
    d_source = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
    for tap in range(K):
        target = frame + (before - tap)
        reached = ((target >= 0) & (target < T))[:, None] & (column < width)[None, :]
        shifted = d_z + first * D + target[:, None] * D + column[None, :]
        d_target = tl.load(shifted, mask=reached, other=0.0).to(tl.float32)
        d_source += d_target * row_vector(taps + tap * D, column, width)
        sums = tap_sums + (program * K + tap) * D + column
        tl.store(sums, tl.sum(d_target * source, 0), mask=column < D)

    d_source = tl.where((frame < tl.load(lengths + utterance))[:, None], d_source, 0.0)
    sigmoid = tl.sigmoid(tl.load(glu_gates + tile, mask=inside, other=0.0).to(tl.float32))
    d_value = d_source * sigmoid
    d_gate = d_source * source * (1 - sigmoid)
    tile = first * (2 * D) + frame[:, None] * (2 * D) + column[None, :]
    tl.store(d_in + tile, d_value.to(d_in.dtype.element_ty), mask=inside)
    tl.store(d_in + tile + D, d_gate.to(d_in.dtype.element_ty), mask=inside)
    sums = bias_sums + program * (2 * D) + column
    tl.store(sums, tl.sum(d_value, 0), mask=column < D)
    tl.store(sums + D, tl.sum(d_gate, 0), mask=column < D)


def norm_backward(
    d_out: Tensor,
    d_hidden: Tensor,
    normalized: Tensor,
    inverse_deviation: Tensor,
    w_norm: Tensor,
    b_norm: Tensor,
    gates: Tensor,
    work: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Back through gate, SiLU and LayerNorm.

    Args:
        d_out: (S, B, T, D), contiguous, gradient of the output.
        d_hidden: (capacity, B, T, D), contiguous, gradient of the hidden rows once gated.
        normalized: (capacity, B, T, D), kept by the forward pass.
        inverse_deviation: (capacity, B, T), kept by the forward pass.
        w_norm: (D,).
        b_norm: (D,).
        gates: (S,), contiguous.
        work: Buffer of the work list.

    Returns:
        Gradient of what the LayerNorm took, (capacity, B, T, D); for each pair, in float32, the
        gradients of w_norm, b_norm and b_depthwise and the sum of d_out, (capacity, 4, D); and the
        sum of d_hidden times the hidden rows before their gate, (capacity,).
    """
    capacity, batch, frames, dim = d_hidden.shape
    rows = batch * frames
    config = launch_config("conv_norm_backward", d_out.device, d_out.dtype, dim)
    programs = triton.cdiv(rows, config.blocks["BLOCK_T"] * config.blocks["TILES"])
    d_z = torch.empty_like(d_hidden)
    column_sums = d_out.new_empty(capacity, programs, 4, dim, dtype=torch.float32)
    gate_sums = d_out.new_empty(capacity, programs, dtype=torch.float32)
    start(
        conv_norm_backward_kernel, (programs, capacity), config,
        d_out, d_hidden, normalized, inverse_deviation, w_norm, b_norm, gates, work,
        d_z, column_sums, gate_sums, rows, dim, d_out.shape[0],
        BLOCK_D=triton.next_power_of_2(dim),
    )  # fmt: skip
    return d_z, column_sums.sum(1), gate_sums.sum(1)


def depthwise_backward(
    d_z: Tensor,
    glued: Tensor,
    glu_gates: Tensor,
    taps: Tensor,
    lengths: Tensor,
    work: Tensor,
    num_subnets: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Back through the depthwise convolution and the GLU.

    Args:
        d_z: (capacity, B, T, D), contiguous, gradient of the convolution's output.
        glued: (capacity, B, T, D), contiguous, its input.
        glu_gates: (capacity, B, T, D), kept by the forward pass.
        taps: (K, D), contiguous.
        lengths: (B,) int32, real frames.
        work: Buffer of the work list.
        num_subnets: S.

    Returns:
        Gradients of the first product's output (capacity, B, T, 2 D), of `taps`, and of the first
        product's bias (2 D,), the latter two in float32.
    """
    capacity, batch, frames, dim = d_z.shape
    config = launch_config("conv_depthwise_backward", d_z.device, d_z.dtype, dim)
    tiles = triton.cdiv(frames, config.blocks["BLOCK_T"])
    d_in = d_z.new_empty(capacity, batch, frames, 2 * dim)
    parts = (capacity, batch, tiles)
    tap_sums = d_z.new_empty(*parts, *taps.shape, dtype=torch.float32)
    bias_sums = d_z.new_empty(*parts, 2 * dim, dtype=torch.float32)
    start(
        conv_depthwise_backward_kernel,
        (tiles * triton.cdiv(dim, config.blocks["BLOCK_C"]), batch, capacity), config,
        d_z, glued, glu_gates, taps, lengths, work, d_in, tap_sums, bias_sums, frames, dim,
        num_subnets, K=taps.shape[0],
    )  # fmt: skip
    return d_in, tap_sums.sum((0, 1, 2)), bias_sums.sum((0, 1, 2))
