"""Plain torch: y = sum over open chunks c of g_c * silu(x W1_c^T + b1_c) W2_c, plus b2.

The gate multiplies the chunk's output once (paper, equation 2); the reference implementation of the
paper multiplies W1, b1 and W2, so that a chunk there sees its gate squared.
"""

import torch.nn.functional as F
from torch import Tensor

from ortho_kernels.stacking import OpenUnits, open_slabs, over_subnets


def gated_ffn(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    gates: Tensor,
    open_chunks: OpenUnits,
    dropout: float = 0.0,
) -> Tensor:
    """Gated feed-forward of stacked subnets.

    Args:
        x: (S, B, T, D), already normalised.
        w1: (C, F/C, D), chunk-major.
        b1: (C, F/C).
        w2: (C, F/C, D), stored transposed so that a chunk is contiguous.
        b2: (D,), added wherever a chunk is open.
        gates: (S, C).
        open_chunks: Chunks with a gate other than 0, per subnet.
        dropout: Probability on the hidden units of a full module; scaled by the kept share of
            chunks in each subnet (adaptive dropout, paper section 3).

    Returns:
        (S, B, T, D); zeros where no chunk is open.
    """

    def run(subnet: int, units: list[int]) -> Tensor:
        hidden = F.silu(
            F.linear(
                x[subnet], open_slabs(w1, units).flatten(0, 1), open_slabs(b1, units).flatten()
            )
        )
        chunk_gates = gates[subnet, units].to(hidden.dtype)
        hidden = (hidden.unflatten(-1, (len(units), -1)) * chunk_gates[:, None]).flatten(-2)
        if dropout > 0:
            hidden = F.dropout(hidden, dropout * len(units) / w1.shape[0])
        return hidden @ open_slabs(w2, units).flatten(0, 1) + b2

    return over_subnets(x, open_chunks, run)
