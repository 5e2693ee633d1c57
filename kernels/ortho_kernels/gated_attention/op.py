"""Gated self-attention as an operation, by kernels or by plain torch.

Between the projections the heads are compact, one row per open (subnet, head) pair:

    qkv = expand(x, Wqkv, bqkv)
    o = g softmax(c q k^T) v
    y = residual + scale reduce(o, Wo, bo)

Backward, e = expand(dy, Wo) is the gradient of o up to the scale. The gradients of the gate, q, k
and v follow from e as `triton.py` says; the rest are products over the same work list.
"""

import functools
import logging

import torch
from torch import Tensor

from ortho_kernels.dispatch import backend
from ortho_kernels.gated_attention import reference
from ortho_kernels.worklist import WorkList, open_subnets

MAXIMUM_HEAD_DIM = 128
"""A block of wider heads does not fit into registers."""

logger = logging.getLogger(__name__)


def gated_attention(
    x: Tensor,
    w_qkv: Tensor,
    b_qkv: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    gates: Tensor,
    work: WorkList,
    lengths: Tensor,
    *,
    dropout: float = 0.0,
    residual: Tensor | None = None,
    scale: float = 1.0,
) -> Tensor:
    """residual + scale (sum over open heads h of g_h attention_h(x) Wo_h + bo).

    Padded frames are no keys, so the real frames do not depend on them. As queries they attend to
    the real frames in plain torch, while the kernels take their heads as 0; nothing may be read
    from the output there, nor a gradient come from there.

    Args:
        x: (S, B, T, D), already normalised; finite at padded frames, too.
        w_qkv: (H, 3, head_dim, D), head-major.
        b_qkv: (H, 3, head_dim).
        w_out: (H, head_dim, D), stored transposed so that a head is contiguous.
        b_out: (D,), added wherever a head is open.
        gates: (S, H).
        work: The open heads. A subnet without any gives its residual, or zeros.
        lengths: (B,) real frames of each utterance, on the device; at least 1.
        dropout: Probability on the attention weights. Only plain torch has it, and runs when it is
            not 0; that is logged.
        residual: (S, B, T, D), what the module is added to.
        scale: Of the module.

    Returns:
        (S, B, T, D) in the dtype of the residual, if there is one, else of the branch.
    """
    weights = (w_qkv, b_qkv, w_out, b_out)
    if not _runs_as_kernel(x.device, w_out.shape[1], dropout > 0):
        valid = torch.arange(x.shape[2], device=x.device) < lengths[:, None]
        y = reference.gated_attention(x, *weights, gates, work.open_units, valid, dropout)
        y = y if scale == 1 else y * scale
        return y if residual is None else residual + y.to(residual.dtype)
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *weights, gates))
    return _forward(x, *weights, gates, lengths, work.buffer, work.capacity, residual, scale, keep)[
        0
    ]


def _runs_as_kernel(device: torch.device, head_dim: int, has_dropout: bool) -> bool:
    if backend("gated_attention", device) == "reference":
        return False
    if has_dropout:
        _log_obstacle("no kernel has dropout on the attention weights")
    elif head_dim > MAXIMUM_HEAD_DIM:
        _log_obstacle(f"no kernel has heads wider than {MAXIMUM_HEAD_DIM}: {head_dim}")
    return not has_dropout and head_dim <= MAXIMUM_HEAD_DIM


@functools.cache
def _log_obstacle(obstacle: str) -> None:
    """Says once why a call falls back to plain torch."""
    logger.warning("gated_attention: reference (%s)", obstacle)


@torch.library.custom_op("ortho_kernels::gated_attention", mutates_args=())
def _forward(
    x: Tensor,
    w_qkv: Tensor,
    b_qkv: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    gates: Tensor,
    lengths: Tensor,
    work: Tensor,
    capacity: int,
    residual: Tensor | None,
    scale: float,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output; then what the backward pass needs, or empty tensors."""
    from ortho_kernels.gated_attention.triton import attention_forward
    from ortho_kernels.grouped_gemm.triton import expand, reduce

    subnets, batch, frames, _ = x.shape
    qkv = expand(
        _rows(x), _matrices(w_qkv, x.dtype), work, capacity, b_qkv.flatten(1).contiguous()
    ).view(capacity, batch, frames, *b_qkv.shape[1:])  # fmt: skip
    gated, ungated, logsumexp = attention_forward(
        qkv, gates.contiguous(), lengths.contiguous(), work, keep=keep
    )
    out = reduce(
        gated.flatten(1, 2), _matrices(w_out, x.dtype), work, subnets, b_out.contiguous(),
        None if residual is None else _rows(residual), scale=scale,
    )  # fmt: skip
    return out.view(x.shape), qkv if keep else qkv.new_empty(0), ungated, logsumexp


def _matrices(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """(H, ..., D) as (H, rows, D) in `dtype`."""
    return weight.to(dtype).flatten(1, -2).contiguous()


def _rows(x: Tensor) -> Tensor:
    """(S, B, T, D) as (S, B T, D)."""
    return x.flatten(1, 2).contiguous()


@_forward.register_fake
def _(
    x, w_qkv, b_qkv, w_out, b_out, gates, lengths, work, capacity, residual, scale, keep
):  # fmt: skip
    del w_qkv, w_out, b_out, gates, lengths, work, scale
    out = x.new_empty(x.shape, dtype=x.dtype if residual is None else residual.dtype)
    shapes = [(0,)] * 3
    if keep:
        rows, head = (capacity, *x.shape[1:3]), b_qkv.shape[1:]
        shapes = [(*rows, *head), (*rows, head[1]), rows]
    qkv, ungated = (x.new_empty(shape) for shape in shapes[:2])
    return out, qkv, ungated, x.new_empty(shapes[2], dtype=torch.float32)


@torch.library.custom_op("ortho_kernels::gated_attention_backward", mutates_args=())
def _backward(
    d_out: Tensor,
    x: Tensor,
    w_qkv: Tensor,
    w_out: Tensor,
    gates: Tensor,
    lengths: Tensor,
    work: Tensor,
    scale: float,
    qkv: Tensor,
    ungated: Tensor,
    logsumexp: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, w_qkv, b_qkv, w_out, b_out and the gates; all but x's in float32."""
    from ortho_kernels.gated_attention.triton import attention_backward
    from ortho_kernels.grouped_gemm.triton import expand, reduce, weight_gradient

    subnets, capacity, heads = x.shape[0], qkv.shape[0], w_out.shape[0]
    d_rows = _rows(d_out.to(x.dtype))
    upstream = expand(d_rows, _matrices(w_out, x.dtype), work, capacity).view(ungated.shape)
    d_qkv, d_b_qkv, d_gates, gated = attention_backward(
        upstream, qkv, ungated, logsumexp, gates.contiguous(), lengths.contiguous(), work,
        scale=scale,
    )  # fmt: skip
    d_qkv = d_qkv.flatten(3).flatten(1, 2)
    d_x = reduce(d_qkv, _matrices(w_qkv, x.dtype), work, subnets)
    d_w_qkv = weight_gradient(d_qkv, _rows(x), work, heads)
    d_w_out = weight_gradient(gated.flatten(1, 2), d_rows, work, heads, scale=scale)
    is_open = open_subnets(work, subnets).to(torch.float32)
    d_b_out = scale * is_open @ d_rows.sum(1, dtype=torch.float32)
    return d_x.view(x.shape), d_w_qkv.view(w_qkv.shape), d_b_qkv, d_w_out, d_b_out, d_gates


@_backward.register_fake
def _(
    d_out, x, w_qkv, w_out, gates, lengths, work, scale, qkv, ungated, logsumexp
):  # fmt: skip
    del d_out, lengths, work, scale, qkv, ungated, logsumexp
    shapes = (w_qkv.shape, w_qkv.shape[:-1], w_out.shape, w_out.shape[-1:], gates.shape)
    rest = [x.new_empty(shape, dtype=torch.float32) for shape in shapes]
    return x.new_empty(x.shape), *rest


def _setup_context(ctx, inputs, output) -> None:
    x, w_qkv, _, w_out, _, gates, lengths, work, _, residual, ctx.scale, _ = inputs
    ctx.has_residual = residual is not None
    ctx.save_for_backward(x, w_qkv, w_out, gates, lengths, work, *output[1:])


def _differentiate(ctx, d_out: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, qkv, ungated, logsumexp = ctx.saved_tensors
    gradients = _backward(d_out, *inputs, ctx.scale, qkv, ungated, logsumexp)
    d_residual = d_out if ctx.has_residual else None
    return *gradients, None, None, None, d_residual, None, None


_forward.register_autograd(_differentiate, setup_context=_setup_context)
