"""The gated modules of a block. One component is one contiguous slab of every weight."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ortho_edge.conformer.architecture import Architecture
from ortho_kernels.gated_attention.reference import gated_attention
from ortho_kernels.gated_conv.reference import gated_conv
from ortho_kernels.gated_ffn.reference import gated_ffn
from ortho_kernels.stacking import OpenUnits


def _uniform(*shape: int, fan_in: int) -> nn.Parameter:
    """A parameter drawn as `nn.Linear` draws its weights and biases."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def add_residual(
    x: Tensor,
    gates: Tensor,
    open_units: OpenUnits,
    branch: Callable[[Tensor, Tensor, OpenUnits], Tensor],
    scale: float = 1.0,
) -> Tensor:
    """`x + scale * branch(x)`, computed only for the subnets in which the module is open.

    Args:
        x: (S, B, T, D).
        gates: (S, units) of this module.
        open_units: Open units per subnet.
        branch: The module, for the given subnets' rows, gates and open units.
        scale: Of the residual branch.
    """
    live = [index for index, units in enumerate(open_units) if units]
    if len(live) == len(open_units):
        return torch.add(x, branch(x, gates, open_units), alpha=scale)
    if not live:
        return x
    rows = torch.tensor(live, device=x.device)
    update = branch(x[rows], gates[rows], [open_units[index] for index in live])
    return x.index_add(0, rows, update.to(x.dtype), alpha=scale)


class GatedFeedForward(nn.Module):
    """Half-step feed-forward module; the components are chunks of its hidden channels."""

    def __init__(self, architecture: Architecture) -> None:
        """Draws weights for `num_ffn_chunks` chunks."""
        super().__init__()
        dim, hidden = architecture.dim, architecture.ffn_dim
        chunks, width = architecture.num_ffn_chunks, architecture.chunk_dim
        self.norm = nn.LayerNorm(dim)
        self.w1 = _uniform(chunks, width, dim, fan_in=dim)
        self.b1 = _uniform(chunks, width, fan_in=dim)
        self.w2 = _uniform(chunks, width, dim, fan_in=hidden)
        self.b2 = _uniform(dim, fan_in=hidden)

    def branch(
        self, x: Tensor, gates: Tensor, open_units: OpenUnits, valid: Tensor, dropout: float
    ) -> Tensor:
        """The residual branch (S, B, T, D), before the factor one half."""
        del valid  # every frame stands alone
        return gated_ffn(
            self.norm(x), self.w1, self.b1, self.w2, self.b2, gates, open_units, dropout
        )


class GatedAttention(nn.Module):
    """Multi-head self-attention without positions; the components are its heads."""

    def __init__(self, architecture: Architecture) -> None:
        """Draws weights for `num_heads` heads."""
        super().__init__()
        dim, heads, width = architecture.dim, architecture.num_heads, architecture.head_dim
        self.norm = nn.LayerNorm(dim)
        self.w_qkv = _uniform(heads, 3, width, dim, fan_in=dim)
        self.b_qkv = _uniform(heads, 3, width, fan_in=dim)
        self.w_out = _uniform(heads, width, dim, fan_in=heads * width)
        self.b_out = _uniform(dim, fan_in=heads * width)

    def branch(
        self, x: Tensor, gates: Tensor, open_units: OpenUnits, valid: Tensor, dropout: float
    ) -> Tensor:
        """The residual branch (S, B, T, D)."""
        return gated_attention(
            self.norm(x), self.w_qkv, self.b_qkv, self.w_out, self.b_out, gates, open_units, valid,
            dropout,
        )  # fmt: skip


class GatedConvolution(nn.Module):
    """Convolution module with LayerNorm; it is one component."""

    def __init__(self, architecture: Architecture) -> None:
        """Draws weights for a depthwise kernel of `kernel_size`."""
        super().__init__()
        dim, kernel = architecture.dim, architecture.kernel_size
        self.norm = nn.LayerNorm(dim)
        self.w_in = _uniform(2 * dim, dim, fan_in=dim)
        self.b_in = _uniform(2 * dim, fan_in=dim)
        self.w_depthwise = _uniform(dim, 1, kernel, fan_in=kernel)
        self.b_depthwise = _uniform(dim, fan_in=kernel)
        self.inner_norm = nn.LayerNorm(dim)
        self.w_out = _uniform(dim, dim, fan_in=dim)
        self.b_out = _uniform(dim, fan_in=dim)

    def branch(
        self, x: Tensor, gates: Tensor, open_units: OpenUnits, valid: Tensor, dropout: float
    ) -> Tensor:
        """The residual branch (S, B, T, D)."""
        del dropout  # the paper drops out in FFN and attention only
        return gated_conv(
            self.norm(x), self.w_in, self.b_in, self.w_depthwise, self.b_depthwise,
            self.inner_norm.weight, self.inner_norm.bias, self.w_out, self.b_out,
            gates, open_units, valid, self.inner_norm.eps,
        )  # fmt: skip
