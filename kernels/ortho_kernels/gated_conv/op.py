"""The gated convolution module as an operation, by kernels or by plain torch.

With the gate g of a subnet, times the scale of the residual branch, the hidden rows are gated
before the last product, y = (g h) W2^T + g b2, so that the gradient of W2 takes the rows as they
are kept. From e = dy W2, the gradient of g h, the gate's is sum(e h) + sum(dy) b2.
"""

import torch
from torch import Tensor

from ortho_kernels import dispatch
from ortho_kernels.gated_conv import reference
from ortho_kernels.worklist import WorkList, by_unit, open_subnets


def gated_conv(
    x: Tensor,
    w_in: Tensor,
    b_in: Tensor,
    w_depthwise: Tensor,
    b_depthwise: Tensor,
    w_norm: Tensor,
    b_norm: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    gates: Tensor,
    work: WorkList,
    lengths: Tensor,
    *,
    eps: float = 1e-5,
    residual: Tensor | None = None,
    scale: float = 1.0,
) -> Tensor:
    """residual + scale g (silu(LayerNorm(depthwise(glu(x W1^T + b1)))) W2^T + b2).

    Args:
        x: (S, B, T, D), already normalised; finite at padded frames, too; cast to the autocast
            dtype where there is one.
        w_in: (2 D, D), values first, GLU gates second.
        b_in: (2 D,).
        w_depthwise: (D, 1, K).
        b_depthwise: (D,).
        w_norm: (D,), LayerNorm after the depthwise convolution.
        b_norm: (D,).
        w_out: (D, D).
        b_out: (D,).
        gates: (S, 1).
        work: The subnets whose module is open; the others give their residual, or zeros, and get
            no gradient.
        lengths: (B,) real frames; the others count as zeros, as do those beyond the edges.
        eps: Of the LayerNorm.
        residual: (S, B, T, D), what the module is added to.
        scale: Of the module.

    Returns:
        (S, B, T, D) in the dtype of the residual, if there is one. Where nothing can ever be open
        it is the residual itself.
    """
    if work.capacity == 0:
        return torch.zeros_like(x) if residual is None else residual
    weights = (w_in, b_in, w_depthwise, b_depthwise, w_norm, b_norm, w_out, b_out)
    if dispatch.backend("gated_conv", x.device) == "reference":
        valid = torch.arange(x.shape[2], device=x.device) < lengths[:, None]
        y = reference.gated_conv(x, *weights, gates, work.open_units, valid, eps)
        if residual is None:
            return y if scale == 1 else scale * y
        return torch.add(residual, y, alpha=scale).to(residual.dtype)
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    arguments = (x, *weights, gates, residual)
    trains = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in arguments)
    return forward(*arguments, lengths, work.buffer, work.capacity, eps, scale, trains)[0]


def launch_forward(
    x: Tensor,
    w_in: Tensor,
    b_in: Tensor,
    w_depthwise: Tensor,
    b_depthwise: Tensor,
    w_norm: Tensor,
    b_norm: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    gates: Tensor,
    residual: Tensor | None,
    lengths: Tensor,
    work: Tensor,
    capacity: int,
    eps: float,
    scale: float,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Output; then what the backward pass needs, or empty tensors."""
    from ortho_kernels.gated_conv.triton import depthwise_norm, glu
    from ortho_kernels.grouped_gemm.triton import reduce

    subnets, batch, frames, dim = x.shape
    rows = batch * frames
    lengths, scaled = lengths.to(torch.int32), scaled_gates(gates, scale)
    glued, glu_gates = glu(
        x.contiguous(), w_in.to(x.dtype).contiguous(), b_in.contiguous(), lengths, work, capacity,
        keep=keep,
    )  # fmt: skip
    hidden, normalized, inverse = depthwise_norm(
        glued, by_tap(w_depthwise), b_depthwise.contiguous(), w_norm.contiguous(),
        b_norm.contiguous(), scaled, lengths, work, eps, keep=keep,
    )  # fmt: skip
    skip = None if residual is None else residual.contiguous().view(subnets, rows, dim)
    y = reduce(
        hidden.view(capacity, rows, dim), transposed(w_out, x.dtype), work, subnets,
        scaled[:, None] * b_out.float(), skip,
    ).view(x.shape)  # fmt: skip
    if glu_gates is None or normalized is None or inverse is None:
        a, b, c, d, e = (x.new_empty(0) for _ in range(5))
        return y, a, b, c, d, e
    return y, glued, glu_gates, normalized, inverse, hidden


forward = torch.library.custom_op("ortho::gated_conv", launch_forward, mutates_args=())


def scaled_gates(gates: Tensor, scale: float) -> Tensor:
    """(S,) gates of the whole residual branch, in float32."""
    return gates.flatten().float() * scale


def by_tap(w_depthwise: Tensor) -> Tensor:
    """(K, D): channels next to each other are next to each other in memory."""
    return w_depthwise[:, 0].t().contiguous()


def transposed(w_out: Tensor, dtype: torch.dtype) -> Tensor:
    """(1, D, D) with a row for each hidden channel, as products over work lists take it."""
    return w_out.t()[None].to(dtype, memory_format=torch.contiguous_format, copy=True)


@forward.register_fake
def _(
    x, w_in, b_in, w_depthwise, b_depthwise, w_norm, b_norm, w_out, b_out, gates, residual,
    lengths, work, capacity, eps, scale, keep,
):  # fmt: skip
    y = torch.empty(x.shape, dtype=(x if residual is None else residual).dtype, device=x.device)
    shape = (capacity, *x.shape[1:]) if keep else (0,)
    glued, glu_gates, normalized, hidden = (x.new_empty(shape) for _ in range(4))
    inverse = x.new_empty(shape[:-1], dtype=torch.float32) if keep else x.new_empty(0)
    return y, glued, glu_gates, normalized, inverse, hidden


def launch_backward(
    dy: Tensor,
    x: Tensor,
    w_in: Tensor,
    w_depthwise: Tensor,
    w_norm: Tensor,
    b_norm: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    gates: Tensor,
    lengths: Tensor,
    work: Tensor,
    glued: Tensor,
    glu_gates: Tensor,
    normalized: Tensor,
    inverse: Tensor,
    hidden: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, w_in, b_in, the taps (K, D), the inner vectors, W2^T, b2 and the gates.

    The inner vectors are w_norm, b_norm and b_depthwise, in one tensor (3, D). All but the
    gradient of x are float32.
    """
    from ortho_kernels.gated_conv.triton_backward import depthwise_backward, norm_backward
    from ortho_kernels.grouped_gemm.triton import expand, reduce, weight_gradient

    subnets, batch, frames, dim = x.shape
    capacity, rows = glued.shape[0], batch * frames
    lengths, scaled = lengths.to(torch.int32), scaled_gates(gates, scale)
    x_rows, dy = x.reshape(subnets, rows, dim), dy.to(x.dtype).contiguous()
    dy_rows = dy.view(subnets, rows, dim)
    d_hidden = expand(dy_rows, transposed(w_out, x.dtype), work, capacity)
    d_z, column_sums, hidden_sums = norm_backward(
        dy, d_hidden.view(glued.shape), normalized, inverse, w_norm.contiguous(),
        b_norm.contiguous(), scaled, work,
    )  # fmt: skip
    d_in, d_taps, d_b_in = depthwise_backward(
        d_z, glued, glu_gates, by_tap(w_depthwise), lengths, work, subnets
    )
    d_in = d_in.view(capacity, rows, 2 * dim)
    d_x = reduce(d_in, w_in.to(x.dtype).contiguous()[None], work, subnets)
    d_w_in = weight_gradient(d_in, x_rows, work, 1)
    d_w_out = weight_gradient(hidden.view(capacity, rows, dim), dy_rows, work, 1)
    dy_sums = by_unit(column_sums[:, 3], work, subnets, 1).squeeze(1)
    d_gates = by_unit(hidden_sums, work, subnets, 1).squeeze(1) + dy_sums @ b_out.float()
    # The bias may hold anything where no module is open.
    d_gates = d_gates.where(open_subnets(work, subnets), 0) * scale
    return (
        d_x.view(x.shape), d_w_in.view(w_in.shape), d_b_in, d_taps, column_sums[:, :3].sum(0),
        d_w_out.view(w_out.shape), scaled @ dy_sums, d_gates[:, None],
    )  # fmt: skip


backward = torch.library.custom_op("ortho::gated_conv_backward", launch_backward, mutates_args=())


@backward.register_fake
def _(
    dy, x, w_in, w_depthwise, w_norm, b_norm, w_out, b_out, gates, lengths, work, glued, glu_gates,
    normalized, inverse, hidden, scale,
):  # fmt: skip
    dim, _, taps = w_depthwise.shape
    shapes = (w_in.shape, w_in.shape[:1], (taps, dim), (3, dim), w_out.shape, b_out.shape)
    rest = [x.new_empty(shape, dtype=torch.float32) for shape in (*shapes, gates.shape)]
    return torch.empty(x.shape, dtype=x.dtype, device=x.device), *rest


def _setup_context(ctx, inputs, output) -> None:
    x, w_in, _, w_depthwise, _, w_norm, b_norm, w_out, b_out, gates, _, *rest = inputs
    lengths, work, _, _, ctx.scale, _ = rest
    ctx.set_materialize_grads(False)  # those of what is kept would be large, and are never used
    ctx.dtypes = [tensor.dtype for tensor in inputs[:10]]
    ctx.save_for_backward(
        x, w_in, w_depthwise, w_norm, b_norm, w_out, b_out, gates, lengths, work, *output[1:]
    )


def _backward(ctx, dy: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return (None,) * 17
    d_x, d_w_in, d_b_in, d_taps, inner, d_w_out, d_b_out, d_gates = backward(
        dy, *ctx.saved_tensors, ctx.scale
    )
    d_w_norm, d_b_norm, d_b_depthwise = inner.unbind(0)
    gradients = (
        d_x, d_w_in, d_b_in, d_taps.t()[:, None], d_b_depthwise, d_w_norm, d_b_norm, d_w_out.t(),
        d_b_out, d_gates,
    )  # fmt: skip
    inputs = (gradient.to(dtype) for gradient, dtype in zip(gradients, ctx.dtypes, strict=True))
    return *inputs, dy if ctx.needs_input_grad[10] else None, *(None,) * 6


forward.register_autograd(_backward, setup_context=_setup_context)
