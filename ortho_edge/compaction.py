"""Compaction: the small dense encoder that computes exactly what the gated supernet computes.

A module without open units vanishes together with its LayerNorm and residual addition; the front
end has its first chunk and those that are open. The dense encoder is plain torch without gates, the
thing that is evaluated, exported and shipped.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ortho_edge.conformer.front_end import FrontEnd, frames_mask
from ortho_edge.conformer.modules import GatedAttention, GatedConvolution, GatedFeedForward
from ortho_edge.subnet import Subnet
from ortho_edge.supernet import Supernet


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer that owns copies of `weight` (outputs, inputs) and `bias`."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def _copy_norm(norm: nn.LayerNorm) -> nn.LayerNorm:
    copy = nn.LayerNorm(list(norm.normalized_shape), eps=norm.eps, dtype=norm.weight.dtype)
    copy.load_state_dict(norm.state_dict())
    return copy


class DenseFeedForward(nn.Module):
    """Feed-forward module of the kept chunks."""

    def __init__(self, source: GatedFeedForward, chunks: tuple[int, ...]) -> None:
        """Copies the slabs of `chunks`."""
        super().__init__()
        kept = list(chunks)
        self.norm = _copy_norm(source.norm)
        self.up = _linear(source.w1[kept].flatten(0, 1), source.b1[kept].flatten())
        self.down = _linear(source.w2[kept].flatten(0, 1).T, source.b2)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """X (B, T, D) with the half-step residual added."""
        return x + 0.5 * self.down(F.silu(self.up(self.norm(x))))


class DenseAttention(nn.Module):
    """Self-attention of the kept heads, with separate projections (one delegate call each)."""

    def __init__(self, source: GatedAttention, heads: tuple[int, ...]) -> None:
        """Copies the slabs of `heads`."""
        super().__init__()
        kept = list(heads)
        self.num_heads = len(kept)
        self.norm = _copy_norm(source.norm)
        weights, biases = source.w_qkv[kept], source.b_qkv[kept]
        self.query, self.key, self.value = (
            _linear(weights[:, part].flatten(0, 1), biases[:, part].flatten()) for part in range(3)
        )
        self.out = _linear(source.w_out[kept].flatten(0, 1).T, source.b_out)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """X (B, T, D) with the residual added; frames that are not `valid` (B, T) are ignored."""
        y = self.norm(x)
        # (B, T, H * head_dim) -> (B, H, T, head_dim)
        q, k, v = (
            part(y).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=valid[:, None, None, :])
        return x + self.out(y.transpose(1, 2).flatten(2))


class DenseConvolution(nn.Module):
    """Convolution module."""

    def __init__(self, source: GatedConvolution) -> None:
        """Copies all weights."""
        super().__init__()
        self.norm = _copy_norm(source.norm)
        self.pointwise_in = _linear(source.w_in, source.b_in)
        dim, _, kernel = source.w_depthwise.shape
        self.depthwise = nn.Conv1d(
            dim, dim, kernel, padding=kernel // 2, groups=dim, dtype=source.w_depthwise.dtype
        )
        with torch.no_grad():
            self.depthwise.weight.copy_(source.w_depthwise)
            self.depthwise.bias.copy_(source.b_depthwise)  # pyright: ignore[reportOptionalMemberAccess]
        self.inner_norm = _copy_norm(source.inner_norm)
        self.pointwise_out = _linear(source.w_out, source.b_out)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """X (B, T, D) with the residual added; frames not `valid` (B, T) count as zeros."""
        y = F.glu(self.pointwise_in(self.norm(x)), dim=-1) * valid[:, :, None].to(x.dtype)
        y = self.depthwise(y.transpose(1, 2)).transpose(1, 2)
        return x + self.pointwise_out(F.silu(self.inner_norm(y)))


class DenseBlock(nn.Module):
    """The modules of a block that are left, and its LayerNorm."""

    def __init__(self, modules: list[nn.Module], norm: nn.LayerNorm) -> None:
        """Takes the modules in the order in which they run."""
        super().__init__()
        self.steps = nn.ModuleList(modules)
        self.norm = _copy_norm(norm)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        for step in self.steps:
            x = step(x, valid)
        return self.norm(x)


class DenseEncoder(nn.Module):
    """A compacted subnet: features in, CTC log-probabilities out."""

    def __init__(self, front_end: FrontEnd, blocks: list[DenseBlock], ctc_head: nn.Linear) -> None:
        """Takes the parts over; use `compact` to make one."""
        super().__init__()
        self.front_end = front_end
        self.blocks = nn.ModuleList(blocks)
        self.ctc_head = ctc_head

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities (B, T', V) and lengths (B,) for features (B, T, 80), lengths (B,)."""
        x, lengths = self.front_end(features, lengths)
        valid = frames_mask(lengths, x.shape[1])
        for block in self.blocks:
            x = block(x, valid)
        return F.log_softmax(self.ctc_head(x), dim=-1), lengths


@torch.no_grad()
def compact(supernet: Supernet, subnet: Subnet, head: int = 0) -> DenseEncoder:
    """The dense encoder of `subnet` with the CTC head of that index, as independent copies.

    Raises:
        ValueError: The subnet belongs to a component space of another size, or there is no such
            head.
    """
    if subnet.num_components != len(supernet.space):
        raise ValueError(
            f"subnet of {subnet.num_components} components for a supernet of {len(supernet.space)}"
        )
    if not 0 <= head < len(supernet.ctc_heads):
        raise ValueError(f"no CTC head {head}; the supernet has {len(supernet.ctc_heads)}")
    left: list[list[nn.Module]] = [[] for _ in supernet.blocks]
    for module in supernet.space.modules(subnet):
        if module.block is None or not module.units:
            continue
        source = getattr(supernet.blocks[module.block], module.module)
        if isinstance(source, GatedFeedForward):
            left[module.block].append(DenseFeedForward(source, module.units))
        elif isinstance(source, GatedAttention):
            left[module.block].append(DenseAttention(source, module.units))
        else:
            left[module.block].append(DenseConvolution(source))
    blocks = [
        DenseBlock(steps, block.norm)  # pyright: ignore[reportArgumentType]
        for steps, block in zip(left, supernet.blocks, strict=True)
    ]
    chunks = supernet.space.front_end_chunks(subnet)
    ctc_head = supernet.ctc_heads[head]
    return DenseEncoder(
        supernet.front_end.compacted(supernet.architecture, chunks),
        blocks,
        _linear(ctc_head.weight, ctc_head.bias),  # pyright: ignore[reportArgumentType]
    ).eval()
