"""Plain torch: y = g * (silu(LayerNorm(depthwise(glu(x W1^T + b1)))) W2^T + b2)."""

import torch.nn.functional as F
from torch import Tensor

from ortho_kernels.stacking import OpenUnits, over_subnets


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
    open_modules: OpenUnits,
    valid: Tensor,
    eps: float = 1e-5,
) -> Tensor:
    """Gated convolution module of stacked subnets.

    Args:
        x: (S, B, T, D), already normalised.
        w_in: (2 D, D), values first, GLU gates second.
        b_in: (2 D,).
        w_depthwise: (D, 1, K).
        b_depthwise: (D,).
        w_norm: (D,), LayerNorm after the depthwise convolution.
        b_norm: (D,).
        w_out: (D, D).
        b_out: (D,).
        gates: (S, 1).
        open_modules: [0] where the gate is not 0, else [], per subnet.
        valid: (B, T), True at real frames; padded frames count as zeros, as beyond the edges.
        eps: Of the LayerNorm.

    Returns:
        (S, B, T, D); zeros where the module is closed.
    """
    dim = x.shape[-1]

    def run(subnet: int, _: list[int]) -> Tensor:
        y = F.glu(F.linear(x[subnet], w_in, b_in), dim=-1) * valid[:, :, None].to(x.dtype)
        # (B, T, D) -> (B, D, T) -> (B, T, D)
        y = F.conv1d(
            y.transpose(1, 2), w_depthwise, b_depthwise, padding="same", groups=dim
        ).transpose(1, 2)
        y = F.silu(F.layer_norm(y, (dim,), w_norm, b_norm, eps))
        return F.linear(y, w_out, b_out) * gates[subnet].to(y.dtype)

    return over_subnets(x, open_modules, run)
