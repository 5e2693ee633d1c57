"""Plain torch: y = sum over open heads h of g_h * attention_h(x) Wo_h, plus bo."""

import torch.nn.functional as F
from torch import Tensor

from ortho_kernels.stacking import OpenUnits, open_slabs, over_subnets


def gated_attention(
    x: Tensor,
    w_qkv: Tensor,
    b_qkv: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    gates: Tensor,
    open_heads: OpenUnits,
    valid: Tensor,
    dropout: float = 0.0,
) -> Tensor:
    """Gated multi-head self-attention of stacked subnets.

    Args:
        x: (S, B, T, D), already normalised.
        w_qkv: (H, 3, head_dim, D), head-major.
        b_qkv: (H, 3, head_dim).
        w_out: (H, head_dim, D), stored transposed so that a head is contiguous.
        b_out: (D,), added wherever a head is open.
        gates: (S, H).
        open_heads: Heads with a gate other than 0, per subnet.
        valid: (B, T), True at real frames; padded frames are never attended to.
        dropout: Probability on the attention weights.

    Returns:
        (S, B, T, D); zeros where no head is open.
    """
    batch, frames = valid.shape
    mask = valid[:, None, None, :]

    def run(subnet: int, units: list[int]) -> Tensor:
        qkv = F.linear(
            x[subnet], open_slabs(w_qkv, units).flatten(0, 2), open_slabs(b_qkv, units).flatten()
        )
        # (B, T, H*3*head_dim) -> three of (B, H, T, head_dim)
        q, k, v = qkv.view(batch, frames, len(units), 3, -1).permute(3, 0, 2, 1, 4)
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        heads = heads * gates[subnet, units].to(heads.dtype)[:, None, None]
        return heads.transpose(1, 2).flatten(-2) @ open_slabs(w_out, units).flatten(0, 1) + b_out

    return over_subnets(x, open_heads, run)
