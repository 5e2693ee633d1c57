"""The gated FFN that networks call: Triton kernels or plain torch, whichever `dispatch` names."""

import torch
from torch import Tensor

from ortho_kernels import dispatch
from ortho_kernels.gated_ffn import reference
from ortho_kernels.worklist import WorkList, by_unit, open_subnets


def gated_ffn(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    gates: Tensor,
    work: WorkList,
    *,
    dropout: float = 0.0,
    residual: Tensor | None = None,
    scale: float = 1.0,
) -> Tensor:
    """residual + scale (sum over open chunks c of g_c silu(x W1_c^T + b1_c) W2_c + b2).

    Args:
        x: (S, B, T, D), already normalised; cast to the autocast dtype where there is one.
        w1: (C, F/C, D), chunk-major.
        b1: (C, F/C).
        w2: (C, F/C, D), stored transposed so that a chunk is contiguous.
        b2: (D,), added wherever a chunk is open.
        gates: (S, C).
        work: The open chunks.
        dropout: Probability on the hidden units of a full module, at least 0 and below 1; scaled
            by the kept share of chunks in each subnet (adaptive dropout, paper section 3).
        residual: (S, B, T, D), or None for zeros.
        scale: Of everything but the residual.

    Returns:
        (S, B, T, D) in the dtype of the residual, if there is one; the residual, or zeros, where
        no chunk is open. Where nothing can ever be open it is the residual itself.
    """
    if work.capacity == 0:
        return torch.zeros_like(x) if residual is None else residual
    if dispatch.backend("gated_ffn", x.device) == "reference":
        y = reference.gated_ffn(x, w1, b1, w2, b2, gates, work.open_units, dropout)
        return scaled_residual(y, residual, scale)
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    seed = torch.randint(2**62, (1,), device=x.device) if dropout > 0 else None
    arguments = (x, w1, b1, w2, b2, gates, residual)
    trains = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in arguments)
    return forward(*arguments, work.buffer, work.capacity, seed, dropout, scale, trains)[0]


def scaled_residual(y: Tensor, residual: Tensor | None, scale: float) -> Tensor:
    """residual + scale y in the dtype of the residual; scale y without one."""
    if residual is None:
        return y if scale == 1 else scale * y
    return torch.add(residual, y, alpha=scale).to(residual.dtype)


def launch_forward(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    gates: Tensor,
    residual: Tensor | None,
    work: Tensor,
    capacity: int,
    seed: Tensor | None,
    dropout: float,
    scale: float,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, pre-activations and hidden units; the latter two are empty unless `save`."""
    from ortho_kernels.gated_ffn.triton import expand_silu
    from ortho_kernels.grouped_gemm.triton import reduce

    rows = x.reshape(x.shape[0], -1, x.shape[-1]).contiguous()
    a, h = expand_silu(
        rows, weight(w1, x), b1.contiguous(), gates.contiguous(), work, capacity,
        dropout=dropout, seed=seed, save=save,
    )  # fmt: skip
    skip = None if residual is None else residual.contiguous().view(rows.shape)
    y = reduce(h, weight(w2, x), work, x.shape[0], b2.contiguous(), skip, scale=scale)
    if a is None:
        return y.view(x.shape), x.new_empty(0), x.new_empty(0)
    return y.view(x.shape), a, h


forward = torch.library.custom_op("ortho::gated_ffn", launch_forward, mutates_args=())


@forward.register_fake
def _(x, w1, b1, w2, b2, gates, residual, work, capacity, seed, dropout, scale, save):
    compact = (capacity, x.shape[1] * x.shape[2], w1.shape[1])
    y = torch.empty(x.shape, dtype=(x if residual is None else residual).dtype, device=x.device)
    a, h = (x.new_empty(compact if save else (0,)) for _ in range(2))
    return y, a, h


def launch_backward(
    dy: Tensor,
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    gates: Tensor,
    a: Tensor,
    h: Tensor,
    work: Tensor,
    seed: Tensor | None,
    dropout: float,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, in its dtype, and of w1, b1, w2, b2 and gates, in float32."""
    from ortho_kernels.gated_ffn.triton import expand_silu_backward
    from ortho_kernels.grouped_gemm.triton import reduce, weight_gradient

    subnets, units = gates.shape
    rows = x.reshape(subnets, -1, x.shape[-1]).contiguous()
    gradient = dy.to(x.dtype).contiguous().view(rows.shape)
    da, db1, dgates = expand_silu_backward(
        gradient, weight(w2, x), a, gates.contiguous(), work,
        dropout=dropout, seed=seed, scale=scale,
    )  # fmt: skip
    dw2 = weight_gradient(h, gradient, work, units, scale=scale)
    dw1 = weight_gradient(da, rows, work, units)
    dx = reduce(da, weight(w1, x), work, subnets)
    opened = open_subnets(work, subnets)[:, None]
    db2 = dy.flatten(1, 2).sum(1, dtype=torch.float32).masked_fill(~opened, 0).sum(0) * scale
    return (
        dx.view(x.shape), dw1, by_unit(db1, work, subnets, units).sum(0), dw2, db2,
        by_unit(dgates, work, subnets, units),
    )  # fmt: skip


backward = torch.library.custom_op("ortho::gated_ffn_backward", launch_backward, mutates_args=())


@backward.register_fake
def _(dy, x, w1, w2, gates, a, h, work, seed, dropout, scale):
    def float32(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=x.device)

    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    biases = float32(*w1.shape[:2]), float32(w1.shape[2])
    return dx, float32(*w1.shape), biases[0], float32(*w2.shape), biases[1], float32(*gates.shape)


def weight(parameter: Tensor, x: Tensor) -> Tensor:
    """A weight in the dtype of the activations, contiguous."""
    return parameter.to(x.dtype).contiguous()


def _setup_context(ctx, inputs, output) -> None:
    x, w1, b1, w2, b2, gates, residual, work, _, seed, ctx.dropout, ctx.scale, _ = inputs
    ctx.has_residual = residual is not None
    ctx.set_materialize_grads(False)  # those of a and h would be large, and are never used
    ctx.dtypes = [tensor.dtype for tensor in (x, w1, b1, w2, b2, gates)]
    ctx.save_for_backward(x, w1, w2, gates, *output[1:], work, seed)


def _backward(ctx, dy, _a, _h):
    if dy is None:
        return (None,) * 13
    gradients = backward(dy, *ctx.saved_tensors, ctx.dropout, ctx.scale)
    inputs = (gradient.to(dtype) for gradient, dtype in zip(gradients, ctx.dtypes, strict=True))
    return *inputs, dy if ctx.has_residual else None, *(None,) * 6


forward.register_autograd(_backward, setup_context=_setup_context)
