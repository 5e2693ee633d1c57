"""The gated modules of a block. One component is one contiguous slab of every weight."""

import math

import torch
from torch import Tensor, nn

from ortho_edge.conformer.architecture import Architecture
from ortho_kernels.gated_attention.op import gated_attention
from ortho_kernels.gated_conv.op import gated_conv
from ortho_kernels.gated_ffn.op import gated_ffn
from ortho_kernels.worklist import WorkList


def _uniform(*shape: int, fan_in: int) -> nn.Parameter:
    """A parameter drawn as `nn.Linear` draws its weights and biases."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


class GatedModule(nn.Module):
    """What the three kinds of module have in common: a residual branch whose units are gated."""

    residual_scale = 1.0

    def branch(
        self,
        x: Tensor,
        gates: Tensor,
        work: WorkList,
        lengths: Tensor,
        dropout: float,
        residual: Tensor | None = None,
        scale: float = 1.0,
    ) -> Tensor:
        """The branch of stacked subnets, times `scale` and added to `residual` if there is one.

        Args:
            x: (S, B, T, D).
            gates: (S, units) of this module.
            work: Its open units.
            lengths: (B,) real frames.
            dropout: Probability inside the module.
            residual: (S, B, T, D), what a subnet without open units gives; zeros if None.
            scale: Of the branch.
        """
        raise NotImplementedError

    def forward(
        self, x: Tensor, gates: Tensor, work: WorkList, lengths: Tensor, dropout: float
    ) -> Tensor:
        """`x + residual_scale * branch(x)`, in one operation."""
        return self.branch(x, gates, work, lengths, dropout, x, self.residual_scale)


class GatedFeedForward(GatedModule):
    """Half-step feed-forward module; the components are chunks of its hidden channels."""

    residual_scale = 0.5

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
        self,
        x: Tensor,
        gates: Tensor,
        work: WorkList,
        lengths: Tensor,
        dropout: float,
        residual: Tensor | None = None,
        scale: float = 1.0,
    ) -> Tensor:
        """See `GatedModule.branch`."""
        del lengths  # every frame stands alone
        return gated_ffn(
            self.norm(x), self.w1, self.b1, self.w2, self.b2, gates, work,
            dropout=dropout, residual=residual, scale=scale,
        )  # fmt: skip


class GatedAttention(GatedModule):
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
        self,
        x: Tensor,
        gates: Tensor,
        work: WorkList,
        lengths: Tensor,
        dropout: float,
        residual: Tensor | None = None,
        scale: float = 1.0,
    ) -> Tensor:
        """See `GatedModule.branch`."""
        return gated_attention(
            self.norm(x), self.w_qkv, self.b_qkv, self.w_out, self.b_out, gates, work, lengths,
            dropout=dropout, residual=residual, scale=scale,
        )  # fmt: skip


class GatedConvolution(GatedModule):
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
        self,
        x: Tensor,
        gates: Tensor,
        work: WorkList,
        lengths: Tensor,
        dropout: float,
        residual: Tensor | None = None,
        scale: float = 1.0,
    ) -> Tensor:
        """See `GatedModule.branch`."""
        del dropout  # the paper drops out in FFN and attention only
        return gated_conv(
            self.norm(x), self.w_in, self.b_in, self.w_depthwise, self.b_depthwise,
            self.inner_norm.weight, self.inner_norm.bias, self.w_out, self.b_out,
            gates, work, lengths, eps=self.inner_norm.eps, residual=residual, scale=scale,
        )  # fmt: skip
