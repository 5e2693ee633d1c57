"""The batched encoder: a dense encoder rewritten for ONNX Runtime, which pays for every operation.

It computes what `DenseEncoder` computes for a padded batch. What is different is how:

* between modules frames are rows, (B T', D): a product and its bias become one operation;
* the gated linear unit is two products, for slices are copies;
* the depthwise convolution is two-dimensional over (1, T'), channels last in memory: its fast
  kernels exist for images only, and take the transpositions around them over;
* attention adds one mask of zeros and minus infinity. Every utterance has a frame, so no row of
  scores is masked as a whole and nothing needs to look for what is not a number;
* the means over an utterance are products with its mask. Taken twice: ONNX Runtime adds frame by
  frame, which in float32 loses three digits of the mean of half a minute, and none of a mean of
  what is centred already.

Letters: B batch, T frames of 10 ms, T' encoder frames, D model width, H heads, V vocabulary.
"""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ortho_edge.compaction import (
    DenseAttention,
    DenseBlock,
    DenseConvolution,
    DenseEncoder,
    DenseFeedForward,
)
from ortho_edge.conformer.architecture import subsampled_length
from ortho_edge.conformer.front_end import LOG_MEL_SCALE, FrontEnd, frames_mask


@dataclass(frozen=True, kw_only=True)
class Padding:
    """Which frames of a batch are real.

    Attributes:
        batch: B.
        frames: T'; -1 stands for as many as there are.
        valid: (B T', 1), 1 at real frames, else 0; None where all are.
        scores: (B, 1, 1, T'), 0 at real frames, else minus infinity; None where all are.
    """

    batch: int = 1
    frames: int = -1
    valid: Tensor | None = None
    scores: Tensor | None = None

    @classmethod
    def of(cls, valid: Float[Tensor, "B T4"]) -> "Padding":
        """The padding of a batch, from 1 where frames are real."""
        return cls(
            batch=valid.shape[0],
            frames=valid.shape[1],
            valid=valid.reshape(-1, 1),
            scores=torch.log(valid)[:, None, None, :],
        )


class Product(nn.Linear):
    """A linear layer as a product and a sum.

    ONNX Runtime makes one operation of the two; quantisation must find the product by itself.
    """

    @classmethod
    @torch.no_grad()
    def of(cls, source: nn.Linear, rows: slice = slice(None), scale: float = 1.0) -> "Product":
        """The given outputs of a linear layer, scaled."""
        weight, bias = source.weight[rows] * scale, source.bias[rows] * scale
        layer = cls(weight.shape[1], weight.shape[0], dtype=weight.dtype)
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
        return layer

    def forward(self, input: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        """The layer's outputs."""
        return torch.matmul(input, self.weight.T) + self.bias


class BatchedFeedForward(nn.Module):
    """Half-step feed-forward module; the half is folded into the weights, which is exact."""

    def __init__(self, source: DenseFeedForward) -> None:
        """Copies all weights."""
        super().__init__()
        self.norm = copy.deepcopy(source.norm)
        self.up = Product.of(source.up)
        self.down = Product.of(source.down, scale=0.5)

    def forward(self, x: Float[Tensor, "rows D"], padding: Padding) -> Float[Tensor, "rows D"]:
        """Adds the residual."""
        return x + self.down(F.silu(self.up(self.norm(x))))


class BatchedAttention(nn.Module):
    """Self-attention over the real frames of each utterance."""

    def __init__(self, source: DenseAttention) -> None:
        """Copies all weights."""
        super().__init__()
        self.num_heads = source.num_heads
        self.head_dim = source.query.out_features // source.num_heads
        self.norm = copy.deepcopy(source.norm)
        self.query = Product.of(source.query, scale=self.head_dim**-0.5)
        self.key = Product.of(source.key)
        self.value = Product.of(source.value)
        self.out = Product.of(source.out)

    def forward(self, x: Float[Tensor, "rows D"], padding: Padding) -> Float[Tensor, "rows D"]:
        """Adds the residual."""
        y = self.norm(x)
        shape = padding.batch, padding.frames, self.num_heads, self.head_dim
        q, k, v = (part(y).view(shape) for part in (self.query, self.key, self.value))
        # (B, H, T', head_dim) @ (B, H, head_dim, T')
        scores = q.permute(0, 2, 1, 3) @ k.permute(0, 2, 3, 1)
        if padding.scores is not None:
            scores = scores + padding.scores
        y = torch.softmax(scores, -1) @ v.permute(0, 2, 1, 3)
        # (B, H, T', head_dim) -> (B T', H * head_dim)
        return x + self.out(y.permute(0, 2, 1, 3).reshape(-1, self.num_heads * self.head_dim))


class BatchedConvolution(nn.Module):
    """Convolution module."""

    def __init__(self, source: DenseConvolution) -> None:
        """Copies all weights."""
        super().__init__()
        self.dim = dim = source.depthwise.in_channels
        self.norm = copy.deepcopy(source.norm)
        self.value = Product.of(source.pointwise_in, slice(None, dim))
        self.gate = Product.of(source.pointwise_in, slice(dim, None))
        kernel = source.depthwise.kernel_size[0]
        self.depthwise = nn.Conv2d(
            dim, dim, (1, kernel), padding=(0, kernel // 2), groups=dim,
            dtype=source.depthwise.weight.dtype,
        )  # fmt: skip
        weights = source.depthwise.state_dict()
        self.depthwise.load_state_dict({**weights, "weight": weights["weight"][:, :, None]})
        self.inner_norm = copy.deepcopy(source.inner_norm)
        self.out = Product.of(source.pointwise_out)

    def forward(self, x: Float[Tensor, "rows D"], padding: Padding) -> Float[Tensor, "rows D"]:
        """Adds the residual."""
        y = self.norm(x)
        y = self.value(y) * torch.sigmoid(self.gate(y))
        if padding.valid is not None:
            y = y * padding.valid
        # (B T', D) -> (B, D, 1, T') and back
        y = y.view(padding.batch, 1, padding.frames, self.dim).permute(0, 3, 1, 2)
        y = self.depthwise(y).permute(0, 2, 3, 1).reshape(-1, self.dim)
        return x + self.out(F.silu(self.inner_norm(y)))


class BatchedFrontEnd(nn.Module):
    """Convolutional subsampling by 4."""

    def __init__(self, source: FrontEnd) -> None:
        """Copies all weights; the linear layer gets its inputs in the order (bin, channel)."""
        super().__init__()
        self.kind = source.kind
        self.normalization = source.normalization
        self.convolutions = copy.deepcopy(source.convolutions)
        self.linear = Product.of(source.linear)
        last = source.convolutions[-1]
        assert isinstance(last, nn.Conv2d)
        with torch.no_grad():
            weight = source.linear.weight.unflatten(1, (last.out_channels, -1))
            self.linear.weight.copy_(weight.transpose(1, 2).flatten(1))

    def forward(
        self, features: Float[Tensor, "B T bins"], lengths: Int64[Tensor, " B"]
    ) -> tuple[Float[Tensor, "rows D"], Float[Tensor, "B T4"]]:
        """Encoder frames as rows, and 1 where they are real."""
        valid = frames_mask(lengths, features.shape[1]).to(features.dtype)
        scaled = valid[:, :, None]
        if self.normalization == "utterance":
            average = (valid / lengths[:, None])[:, None]
            features = features - average @ features
            features = features - average @ features
            scaled = scaled * LOG_MEL_SCALE
        x = (features * scaled)[:, None]
        for index, convolution in enumerate(self.convolutions):
            if index:
                # (B, 1, T, bins): a factor for every row of bins would be looked up row by row.
                x = x * valid[:, None, :, None].expand(-1, -1, -1, x.shape[3])
            x = F.relu(convolution(x))
            if self.kind == "strided":
                valid = valid[:, ::2]
            elif index % 2:
                # After a ReLU nothing is below zero, so zeroed padding never wins a maximum.
                x = F.max_pool2d(x * valid[:, None, :, None], (2, 1), ceil_mode=True)
                valid = valid[:, ::2]
        return self._rows(x), valid

    def whole(self, features: Float[Tensor, "1 T bins"]) -> Float[Tensor, "T4 D"]:
        """The same for one utterance without padding."""
        if self.normalization == "utterance":
            features = features - features.mean(1, keepdim=True)
            features = (features - features.mean(1, keepdim=True)) * LOG_MEL_SCALE
        x = features[:, None]
        for index, convolution in enumerate(self.convolutions):
            x = F.relu(convolution(x))
            if self.kind != "strided" and index % 2:
                x = F.max_pool2d(x, (2, 1), ceil_mode=True)
        return self._rows(x)

    def _rows(self, x: Float[Tensor, "B channels T4 bands"]) -> Float[Tensor, "rows D"]:
        # (B, channels, T', bands) -> (B T', bands * channels)
        return self.linear(x.permute(0, 2, 3, 1).reshape(-1, self.linear.in_features))


def _batched_step(step: nn.Module) -> nn.Module:
    if isinstance(step, DenseFeedForward):
        return BatchedFeedForward(step)
    if isinstance(step, DenseAttention):
        return BatchedAttention(step)
    assert isinstance(step, DenseConvolution)
    return BatchedConvolution(step)


class BatchedEncoder(nn.Module):
    """Padded features in, CTC log-probabilities out."""

    def __init__(self, source: DenseEncoder) -> None:
        """Copies a compacted encoder."""
        super().__init__()
        self.front_end = BatchedFrontEnd(source.front_end)
        self.steps = nn.ModuleList()
        for block in source.blocks:
            assert isinstance(block, DenseBlock)
            self.steps.extend([*map(_batched_step, block.steps), copy.deepcopy(block.norm)])
        self.ctc_head = Product.of(source.ctc_head)
        self.eval()

    def forward(
        self, features: Float[Tensor, "B T bins"], lengths: Int64[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B T4 V"], Int64[Tensor, " B"]]:
        """Log-probabilities and their lengths."""
        x, valid = self.front_end(features, lengths)
        return self._log_probs(x, Padding.of(valid)), valid.sum(1).long()

    def _log_probs(self, x: Float[Tensor, "rows D"], padding: Padding) -> Float[Tensor, "B T4 V"]:
        for step in self.steps:
            x = step(x) if isinstance(step, nn.LayerNorm) else step(x, padding)
        shape = padding.batch, padding.frames, self.ctc_head.out_features
        logits = self.ctc_head(x).view(shape)
        return F.log_softmax(logits, -1)


class UtteranceEncoder(BatchedEncoder):
    """The same for one utterance without padding, which needs no masks."""

    def forward(
        self, features: Float[Tensor, "1 T bins"], lengths: Int64[Tensor, " 1"]
    ) -> tuple[Float[Tensor, "1 T4 V"], Int64[Tensor, " 1"]]:
        """Log-probabilities and how many; the length is that of the features."""
        log_probs = self._log_probs(self.front_end.whole(features), Padding())
        return log_probs, subsampled_length(lengths)
