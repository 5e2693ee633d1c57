"""The kernels of gated attention, between its two projections, and how they are launched.

Activations are compact: row `pair` of qkv (capacity, B, T, 3, head_dim) is an open head of one
subnet, and closed heads have no memory at all. From u = softmax(c q k^T) v, with c = head_dim^-1/2,
the module needs the gated output o = g u. Backward, from the gradient e of o:

    delta_t = sum_d e_td u_td         d_g = sum_t delta_t         d_s = p (e v^T - delta)
    d_v = g p^T e                     d_k = g c d_s^T q           d_q = g c d_s k

The gate stands outside every sum. It multiplies once, in float32, at the end, and nothing is
divided by it, so a tiny gate costs no precision.

Frames beyond an utterance's length are no keys; as queries they give 0 and receive 0. A program
without a pair or without real frames runs a loop of length 0, which compiles smaller than an early
return.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ortho_kernels.launch import LaunchConfig, Precision, dot_precision, launch_config, start
from ortho_kernels.worklist import by_unit

LOG2_E = tl.constexpr(1.4426950408889634)
RUNTIME = ("T", "S", "U")
"""Arguments that a kernel is not compiled anew for."""


@triton.jit
def pair_gate(gates, work, pair, S, U):
    """Gate of a pair in float32."""
    subnet = tl.load(work + S + 1 + pair)
    unit = tl.load(work + S + 1 + S * U + pair)
    return tl.load(gates + subnet * U + unit).to(tl.float32)


@triton.jit
def frame_bounds(lengths, work, pair, utterance, first, T, S):
    """Frames to compute with, 0 where the block from `first` on has none, and frames to write."""
    live = pair < tl.load(work + S)
    length = tl.minimum(tl.load(lengths + utterance), T).to(tl.int32)
    return tl.where(live & (first < length), length, 0), tl.where(live, T, 0)


@triton.jit
def last_again(rows, limit):
    """The rows, and the last one below `limit` again for those beyond: no bound, no mask."""
    return tl.maximum(tl.minimum(rows, limit - 1), 0)


@triton.jit
def load_rows(pointer, rows, limit, STRIDE: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """(rows, BLOCK_D) from rows of STRIDE numbers; beyond `limit` the last row again."""
    columns = tl.arange(0, BLOCK_D)
    places = pointer + last_again(rows, limit)[:, None] * STRIDE + columns[None, :]
    if DIM < BLOCK_D:
        values = tl.load(places, mask=(columns < DIM)[None, :], other=0.0)
    else:
        values = tl.load(places)
    return values


@triton.jit
def store_rows(
    pointer, values, rows, limit, STRIDE: tl.constexpr, DIM: tl.constexpr, BLOCK_D: tl.constexpr
):
    """Stores (rows, BLOCK_D) below row `limit`."""
    columns = tl.arange(0, BLOCK_D)
    mask = (rows < limit)[:, None]
    if DIM < BLOCK_D:
        mask = mask & (columns < DIM)[None, :]
    places = pointer + rows[:, None] * STRIDE + columns[None, :]
    tl.store(places, values.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def store_sum(pointer, values, limit, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Stores the sum over the rows of (rows, BLOCK_D), unless `limit` is 0."""
    columns = tl.arange(0, BLOCK_D)
    tl.store(pointer + columns, tl.sum(values, 0), mask=columns < tl.where(limit > 0, DIM, 0))


@triton.jit(do_not_specialize=RUNTIME, do_not_specialize_on_alignment=["work"])
def attention_forward_kernel(
    qkv, gates, lengths, work, gated, ungated, logsumexp, T, S, U,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """A block of queries against all keys: o, u, and the denominator of each softmax as log2."""
    first, utterance, pair = tl.program_id(0) * BLOCK_M, tl.program_id(1), tl.program_id(2)
    length, written = frame_bounds(lengths, work, pair, utterance, first, T, S)
    frame = (pair.to(tl.int64) * tl.num_programs(1) + utterance) * T
    qkv += frame * (3 * DIM)
    rows = first + tl.arange(0, BLOCK_M)
    q = load_rows(qkv, rows, length, 3 * DIM, DIM, BLOCK_D)
    largest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    u = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for key in range(0, length, BLOCK_N):
        keys = key + tl.arange(0, BLOCK_N)
        k = load_rows(qkv + DIM, keys, length, 3 * DIM, DIM, BLOCK_D)
        v = load_rows(qkv + 2 * DIM, keys, length, 3 * DIM, DIM, BLOCK_D)
        # An addend masks the tail: it costs nothing beside the multiplication by the scale.
        tail = tl.where(keys < length, 0.0, float("-inf"))
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        scores = scores * (SCALE * LOG2_E) + tail[None, :]
        larger = tl.maximum(largest, tl.max(scores, 1))
        p = tl.exp2(scores - larger[:, None])
        shrink = tl.exp2(largest - larger)
        total = total * shrink + tl.sum(p, 1)
        u = tl.dot(p.to(v.dtype), v, u * shrink[:, None], input_precision=PRECISION)
        largest = larger
    real = rows < length
    total = tl.where(real, total, 1.0)
    u = tl.where(real[:, None], u / total[:, None], 0.0)
    o = u * pair_gate(gates, work, pair, S, U)
    store_rows(gated + frame * DIM, o, rows, written, DIM, DIM, BLOCK_D)
    if ungated is not None:
        store_rows(ungated + frame * DIM, u, rows, written, DIM, DIM, BLOCK_D)
        lse = tl.where(real, largest + tl.log2(total), 0.0)
        tl.store(logsumexp + frame + rows, lse, mask=rows < written)


@triton.jit(do_not_specialize=RUNTIME, do_not_specialize_on_alignment=["work"])
def attention_delta_kernel(
    ungated, upstream, gates, lengths, work, gated, delta, sums, T, S, U,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """A block of delta, its sum for the gate's gradient, and o again for the weights'."""
    block, utterance, pair = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first = block * BLOCK_M
    length, written = frame_bounds(lengths, work, pair, utterance, first, T, S)
    item = pair.to(tl.int64) * tl.num_programs(1) + utterance
    rows = first + tl.arange(0, BLOCK_M)
    u = load_rows(ungated + item * T * DIM, rows, length, DIM, DIM, BLOCK_D)
    u = tl.where((rows < length)[:, None], u.to(tl.float32), 0.0)
    e = load_rows(upstream + item * T * DIM, rows, length, DIM, DIM, BLOCK_D)
    e = tl.where((rows < length)[:, None], e.to(tl.float32), 0.0)
    products = tl.sum(u * e, 1)
    tl.store(delta + item * T + rows, products, mask=rows < written)
    tl.store(sums + item * tl.num_programs(0) + block, tl.sum(products, 0), mask=written > 0)
    o = u * pair_gate(gates, work, pair, S, U)
    store_rows(gated + item * T * DIM, o, rows, written, DIM, DIM, BLOCK_D)


@triton.jit(do_not_specialize=RUNTIME, do_not_specialize_on_alignment=["work"])
def attention_keys_kernel(
    qkv, upstream, logsumexp, delta, gates, lengths, work, d_qkv, sums, factor, T, S, U,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Gradients of a block of keys and values from all queries, and their sums for the bias."""
    block, utterance, pair = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first = block * BLOCK_N
    length, written = frame_bounds(lengths, work, pair, utterance, first, T, S)
    item = pair.to(tl.int64) * tl.num_programs(1) + utterance
    qkv += item * T * (3 * DIM)
    upstream += item * T * DIM
    keys = first + tl.arange(0, BLOCK_N)
    k = load_rows(qkv + DIM, keys, length, 3 * DIM, DIM, BLOCK_D)
    v = load_rows(qkv + 2 * DIM, keys, length, 3 * DIM, DIM, BLOCK_D)
    d_k = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    d_v = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    for row in range(0, length, BLOCK_M):
        rows = row + tl.arange(0, BLOCK_M)
        q = load_rows(qkv, rows, length, 3 * DIM, DIM, BLOCK_D)
        e = load_rows(upstream, rows, length, DIM, DIM, BLOCK_D)
        lse = tl.load(logsumexp + item * T + last_again(rows, length))
        # An infinite denominator makes the weights of a row that does not exist 0.
        lse = tl.where(rows < length, lse, float("inf"))
        shift = tl.load(delta + item * T + last_again(rows, length))
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION)
        p = tl.exp2(scores * (SCALE * LOG2_E) - lse[None, :])
        d_v = tl.dot(p.to(e.dtype), e, d_v, input_precision=PRECISION)
        d_p = tl.dot(v, tl.trans(e), input_precision=PRECISION)
        d_s = p * (d_p - shift[None, :])
        d_k = tl.dot(d_s.to(q.dtype), q, d_k, input_precision=PRECISION)
    gate = pair_gate(gates, work, pair, S, U) * factor
    # Rows of padded keys hold anything: no other row depends on them.
    real = (keys < length)[:, None]
    d_k = tl.where(real, d_k * (gate * SCALE), 0.0)
    d_v = tl.where(real, d_v * gate, 0.0)
    d_qkv += item * T * (3 * DIM)
    store_rows(d_qkv + DIM, d_k, keys, written, 3 * DIM, DIM, BLOCK_D)
    store_rows(d_qkv + 2 * DIM, d_v, keys, written, 3 * DIM, DIM, BLOCK_D)
    sums += (item * tl.num_programs(0) + block) * (2 * DIM)
    store_sum(sums, d_k, written, DIM, BLOCK_D)
    store_sum(sums + DIM, d_v, written, DIM, BLOCK_D)


@triton.jit(do_not_specialize=RUNTIME, do_not_specialize_on_alignment=["work"])
def attention_queries_kernel(
    qkv, upstream, logsumexp, delta, gates, lengths, work, d_qkv, sums, factor, T, S, U,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Gradient of a block of queries from all keys and values, and its sum for the bias."""
    block, utterance, pair = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first = block * BLOCK_M
    length, written = frame_bounds(lengths, work, pair, utterance, first, T, S)
    item = pair.to(tl.int64) * tl.num_programs(1) + utterance
    qkv += item * T * (3 * DIM)
    rows = first + tl.arange(0, BLOCK_M)
    q = load_rows(qkv, rows, length, 3 * DIM, DIM, BLOCK_D)
    e = load_rows(upstream + item * T * DIM, rows, length, DIM, DIM, BLOCK_D)
    lse = tl.load(logsumexp + item * T + last_again(rows, length))
    shift = tl.load(delta + item * T + last_again(rows, length))
    d_q = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for key in range(0, length, BLOCK_N):
        keys = key + tl.arange(0, BLOCK_N)
        k = load_rows(qkv + DIM, keys, length, 3 * DIM, DIM, BLOCK_D)
        v = load_rows(qkv + 2 * DIM, keys, length, 3 * DIM, DIM, BLOCK_D)
        tail = tl.where(keys < length, 0.0, float("-inf"))
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        scores = scores * (SCALE * LOG2_E) + tail[None, :]
        p = tl.exp2(scores - lse[:, None])
        d_p = tl.dot(e, tl.trans(v), input_precision=PRECISION)
        d_s = p * (d_p - shift[:, None])
        d_q = tl.dot(d_s.to(k.dtype), k, d_q, input_precision=PRECISION)
    gate = pair_gate(gates, work, pair, S, U) * factor
    d_q = tl.where((rows < length)[:, None], d_q * (gate * SCALE), 0.0)
    store_rows(d_qkv + item * T * (3 * DIM), d_q, rows, written, 3 * DIM, DIM, BLOCK_D)
    sums += (item * tl.num_programs(0) + block) * DIM
    store_sum(sums, d_q, written, DIM, BLOCK_D)


def configuration(kernel: str, qkv: Tensor) -> tuple[LaunchConfig, dict[str, int]]:
    """Tiles of a kernel, and the constants of a head, whose columns are padded to a power of 2."""
    dim = qkv.shape[-1]
    padded = max(16, triton.next_power_of_2(dim))
    return launch_config(kernel, qkv.device, qkv.dtype, padded), {"DIM": dim, "BLOCK_D": padded}


def attention_forward(
    qkv: Tensor,
    gates: Tensor,
    lengths: Tensor,
    work: Tensor,
    *,
    keep: bool = True,
    precision: Precision | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The heads of all open pairs.

    Args:
        qkv: (capacity, B, T, 3, head_dim), contiguous; rows beyond the pairs are not read, nor are
            frames beyond the lengths.
        gates: (S, H), contiguous.
        lengths: (B,) integers on the device.
        work: Buffer of the work list.
        keep: Return what the backward needs.
        precision: Of products of float32; by default `dot_precision`.

    Returns:
        o and u (capacity, B, T, head_dim), 0 in padded frames, and the base-2 logarithms of the
        softmax denominators (capacity, B, T) in float32. Rows beyond the pairs are not written.
        The last two are empty unless `keep`.
    """
    capacity, batch, frames, _, dim = qkv.shape
    gated = torch.empty(capacity, batch, frames, dim, dtype=qkv.dtype, device=qkv.device)
    ungated = torch.empty_like(gated) if keep else gated.new_empty(0)
    shape = (capacity, batch, frames) if keep else (0,)
    logsumexp = torch.empty(shape, dtype=torch.float32, device=qkv.device)
    config, head = configuration("attention_forward", qkv)
    start(
        attention_forward_kernel,
        (triton.cdiv(frames, config.blocks["BLOCK_M"]), batch, capacity), config,
        qkv, gates, lengths, work, gated, *((ungated, logsumexp) if keep else (None, None)),
        frames, *gates.shape,
        **head, SCALE=dim**-0.5, PRECISION=precision or dot_precision(qkv),
    )  # fmt: skip
    return gated, ungated, logsumexp


def attention_backward(
    upstream: Tensor,
    qkv: Tensor,
    ungated: Tensor,
    logsumexp: Tensor,
    gates: Tensor,
    lengths: Tensor,
    work: Tensor,
    *,
    scale: float = 1.0,
    precision: Precision | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `attention_forward`, `scale` times.

    No sum is taken in an order that changes: the same inputs give the same bits.

    Args:
        upstream: Gradient of o, (capacity, B, T, head_dim), contiguous, in the dtype of qkv.
        qkv: As given forward.
        ungated: u, as returned forward.
        logsumexp: As returned forward.
        gates: As given forward.
        lengths: As given forward.
        work: As given forward.
        scale: Factor of all gradients.
        precision: Of products of float32; by default `dot_precision`.

    Returns:
        The gradient of qkv, 0 in padded frames; its sum over pairs and frames, (H, 3, head_dim) in
        float32; the gradient of the gates (S, H) in float32; and o again.
    """
    capacity, batch, frames, _, dim = qkv.shape
    float32 = {"dtype": torch.float32, "device": qkv.device}
    gated, d_qkv = torch.empty_like(ungated), torch.empty_like(qkv)
    delta = torch.empty_like(logsumexp)

    config, head = configuration("attention_delta", qkv)
    blocks = triton.cdiv(frames, config.blocks["BLOCK_M"])
    gate_sums = torch.empty(capacity, batch, blocks, **float32)
    start(
        attention_delta_kernel, (blocks, batch, capacity), config,
        ungated, upstream, gates, lengths, work, gated, delta, gate_sums, frames, *gates.shape,
        **head,
    )  # fmt: skip

    sums = []
    for name, kernel, tile, outputs in (
        ("attention_queries", attention_queries_kernel, "BLOCK_M", 1),
        ("attention_keys", attention_keys_kernel, "BLOCK_N", 2),
    ):
        config, head = configuration(name, qkv)
        blocks = triton.cdiv(frames, config.blocks[tile])
        partial = torch.empty(capacity, batch, blocks, outputs, dim, **float32)
        start(
            kernel, (blocks, batch, capacity), config,
            qkv, upstream, logsumexp, delta, gates, lengths, work, d_qkv, partial, scale, frames,
            *gates.shape,
            **head, SCALE=dim**-0.5, PRECISION=precision or dot_precision(qkv),
        )  # fmt: skip
        sums.append(partial.sum((1, 2)))
    d_bias = by_unit(torch.cat(sums, 1), work, *gates.shape).sum(0)
    d_gates = by_unit(gate_sums.sum((1, 2)) * scale, work, *gates.shape)
    return d_qkv, d_bias, d_gates, gated
