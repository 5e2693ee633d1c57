"""The flat encoder: a dense encoder rewritten so that XNNPACK takes the network as one piece.

It computes what `DenseEncoder` computes for one utterance without padding. XNNPACK leaves out of
its delegate whatever it does not know, and each such operation cuts the delegate in two, so:

* frames are two-dimensional, (T', D): with a batch dimension of 1 in front, reshapes make
  `torch.export` guard on T' and it refuses a free T;
* every reshape has a single `-1`: a size that depends on T' in the target is refused;
* attention is `bmm` on (H, T', head_dim) with the scale folded into the query projection;
* the gated linear unit is two linear layers: slices of a dynamic tensor are refused;
* LayerNorm takes its means by a linear layer of one output: the native operation is refused. What
  it does besides standardising, the linear layers behind it take over. Every module writes frames
  whose mean is zero, which LayerNorm does not see, so that only what was not is centred;
* pooling rounds up by one appended row of zeros: nothing is below zero after a ReLU;
* the utterance's mean is that of a picture whose channels are the bins: XNNPACK has no other.

So the network is one delegate; outside stays the final log-softmax. `for_xnnpack` also writes it as
is cheapest there: weight and bias of a norm as one operation, a depthwise convolution of one frame,
for which `ortho_export.xnnpack_graph` makes pictures of all frames; the linear layer behind the
front end with its inputs as the convolution leaves them, channels last; the scale of the features
in the first convolution.

Letters: T frames of 10 ms, T' encoder frames, D model width, H heads, V vocabulary.
"""

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ortho_edge.compaction import (
    DenseAttention,
    DenseBlock,
    DenseConvolution,
    DenseEncoder,
    DenseFeedForward,
)
from ortho_edge.conformer.front_end import LOG_MEL_SCALE, FrontEnd


@torch.no_grad()
def _linear(
    source: nn.Linear,
    rows: slice = slice(None),
    scale: float = 1.0,
    norm: nn.LayerNorm | None = None,
) -> nn.Linear:
    """The given outputs of a linear layer, scaled, as a layer of its own.

    Args:
        source: The layer; it is left as it is.
        rows: Its outputs to keep.
        scale: Of the outputs.
        norm: In front of the layer; its weight and bias move into the layer.
    """
    weight, bias = source.weight[rows], source.bias[rows]
    if norm is not None:
        weight, bias = weight * norm.weight, bias + weight @ norm.bias
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    layer.weight.copy_(weight * scale)
    layer.bias.copy_(bias * scale)
    return layer


@torch.no_grad()
def _centred(layer: nn.Linear) -> nn.Linear:
    """The layer, changed so that the mean of its outputs is zero."""
    layer.weight.sub_(layer.weight.mean(0))
    layer.bias.sub_(layer.bias.mean())
    return layer


def _silu(x: Float[Tensor, "T width"]) -> Float[Tensor, "T width"]:
    """SiLU as XNNPACK has it; torch's own would be computed in fp32 where all else is fp16."""
    return x * torch.sigmoid(x)


class FlatNorm(nn.Module):
    """Standardises every frame: LayerNorm without weight and bias, by products with 1 / D."""

    average: Tensor
    mean: Tensor | None
    epsilon: Tensor

    def __init__(
        self, source: nn.LayerNorm, *, is_centred: bool, for_xnnpack: bool = False
    ) -> None:
        """Copies epsilon; frames that are centred already are not centred again."""
        super().__init__()
        self.is_centred = is_centred
        weight = source.weight.detach()
        self.register_buffer("average", torch.full_like(weight, 1 / len(weight))[None])
        # Of a constant that two layers need, a copy would stay outside the delegate.
        self.register_buffer("mean", self.average.clone() if for_xnnpack else None)
        self.register_buffer("epsilon", torch.full_like(weight[:1], source.eps))

    def forward(self, x: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        """To mean 0 and variance 1."""
        if not self.is_centred:
            x = x - F.linear(x, self.average if self.mean is None else self.mean)
        return x * torch.rsqrt(F.linear(x * x, self.average, self.epsilon))


class FlatScale(nn.Module):
    """Weight and bias of a LayerNorm that no linear layer follows."""

    average: Tensor

    def __init__(self, source: nn.LayerNorm, *, centres: bool, for_xnnpack: bool) -> None:
        """Copies both; `centres` leaves the mean of every frame out."""
        super().__init__()
        self.centres, self.for_xnnpack = centres, for_xnnpack
        weight, bias = source.weight.detach(), source.bias.detach()
        self.dim = len(weight)
        # In the shape that a convolution takes: reshaped in the graph it would be no constant.
        self.weight = nn.Parameter((weight[:, None, None] if for_xnnpack else weight).clone())
        self.bias = nn.Parameter(bias - bias.mean() if centres else bias.clone())
        # One vector for all norms is kept once.
        average = torch.ones_like(weight) if for_xnnpack else weight
        self.register_buffer("average", average[None] / len(weight))

    def forward(self, x: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        """Scales and shifts every channel."""
        if self.for_xnnpack:
            # (T', D) -> (1, D, T') and back
            y = x.transpose(0, 1).view(1, self.dim, -1)
            y = F.conv1d(y, self.weight, self.bias, groups=self.dim)
            x = y = y.view(self.dim, -1).transpose(0, 1).contiguous()
        else:
            y = x * self.weight + self.bias
        return y - F.linear(x, self.average) if self.centres else y


class FlatFeedForward(nn.Module):
    """Half-step feed-forward module; the half is folded into the weights, which is exact."""

    def __init__(self, source: DenseFeedForward) -> None:
        """Copies all weights."""
        super().__init__()
        self.norm = FlatNorm(source.norm, is_centred=True)
        self.up = _linear(source.up, norm=source.norm)
        self.down = _centred(_linear(source.down, scale=0.5))

    def forward(self, x: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        """Adds the residual."""
        return x + self.down(_silu(self.up(self.norm(x))))


class FlatAttention(nn.Module):
    """Self-attention over all frames."""

    def __init__(self, source: DenseAttention) -> None:
        """Copies all weights."""
        super().__init__()
        self.num_heads = source.num_heads
        self.head_dim = source.query.out_features // source.num_heads
        self.norm = FlatNorm(source.norm, is_centred=True)
        self.query = _linear(source.query, scale=self.head_dim**-0.5, norm=source.norm)
        self.key = _linear(source.key, norm=source.norm)
        self.value = _linear(source.value, norm=source.norm)
        self.out = _centred(_linear(source.out))

    def forward(self, x: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        """Adds the residual."""
        y = self.norm(x)
        # (T', H * head_dim) -> (T', H, head_dim)
        q, k, v = (
            part(y).view(-1, self.num_heads, self.head_dim)
            for part in (self.query, self.key, self.value)
        )
        # (H, T', head_dim) @ (H, head_dim, T')
        weights = torch.softmax(torch.bmm(q.permute(1, 0, 2), k.permute(1, 2, 0)), -1)
        y = torch.bmm(weights, v.permute(1, 0, 2))
        # (H, T', head_dim) -> (T', H * head_dim)
        y = y.permute(1, 0, 2).contiguous().view(-1, self.num_heads * self.head_dim)
        return x + self.out(y)


class FlatConvolution(nn.Module):
    """Convolution module."""

    def __init__(self, source: DenseConvolution, *, for_xnnpack: bool) -> None:
        """Copies all weights."""
        super().__init__()
        self.dim = dim = source.depthwise.in_channels
        self.norm = FlatNorm(source.norm, is_centred=True)
        self.value = _linear(source.pointwise_in, slice(None, dim), norm=source.norm)
        self.gate = _linear(source.pointwise_in, slice(dim, None), norm=source.norm)
        self.depthwise = copy.deepcopy(source.depthwise)
        self.inner_norm = nn.Sequential(
            FlatNorm(source.inner_norm, is_centred=False, for_xnnpack=for_xnnpack),
            FlatScale(source.inner_norm, centres=False, for_xnnpack=for_xnnpack),
        )
        self.out = _centred(_linear(source.pointwise_out))

    def forward(self, x: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        """Adds the residual."""
        y = self.norm(x)
        y = self.value(y) * torch.sigmoid(self.gate(y))
        # (T', D) -> (1, D, T') and back
        y = self.depthwise(y.transpose(0, 1).view(1, self.dim, -1))
        y = y.view(self.dim, -1).transpose(0, 1).contiguous()
        return x + self.out(_silu(self.inner_norm(y)))


def _without_mean(features: Float[Tensor, "1 T bins"]) -> Float[Tensor, "1 T bins"]:
    """Subtracts the utterance's mean; XNNPACK averages pictures only: bins are its channels."""
    bins = features.shape[2]
    picture = features.transpose(1, 2).contiguous().view(1, bins, -1, 1)
    return features - picture.mean((2, 3), keepdim=True).view(1, 1, bins)


class FlatFrontEnd(nn.Module):
    """Convolutional subsampling by 4."""

    def __init__(self, source: FrontEnd, *, for_xnnpack: bool) -> None:
        """Copies all weights."""
        super().__init__()
        self.kind = source.kind
        self.normalization = source.normalization
        self.for_xnnpack = for_xnnpack
        # Pairs, for whatever rounds their outputs does so behind the ReLU.
        self.convolutions = nn.ModuleList(
            nn.Sequential(copy.deepcopy(one), nn.ReLU()) for one in source.convolutions
        )
        self.linear = _centred(_linear(source.linear))
        self.in_features = source.linear.in_features
        if for_xnnpack:
            self._rearrange(source)

    @torch.no_grad()
    def _rearrange(self, source: FrontEnd) -> None:
        """Changes the weights for features that are not scaled, and channels last."""
        last = source.convolutions[-1]
        assert isinstance(last, nn.Conv2d)
        if self.normalization == "utterance":
            weight, _ = self.convolutions[0].parameters()
            weight.mul_(LOG_MEL_SCALE)
        assert isinstance(self.linear.weight, Tensor)
        weight = self.linear.weight.unflatten(1, (last.out_channels, -1))
        self.linear.weight.copy_(weight.transpose(1, 2).flatten(1))

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in once the means are gone."""
        bias = self.linear.bias
        assert isinstance(bias, Tensor)
        return bias.dtype

    def forward(self, features: Float[Tensor, "1 T bins"]) -> Float[Tensor, "T4 D"]:
        """Features of one utterance to encoder frames."""
        if self.normalization == "utterance":
            # Twice: in float32 the mean of half a minute loses digits, and that of what is centred
            # already loses none.
            features = _without_mean(_without_mean(features))
            if not self.for_xnnpack:
                features = features * LOG_MEL_SCALE
        if self.dtype != features.dtype:
            features = features.to(self.dtype)
        x = features.view(1, 1, -1, features.shape[2])
        for index, convolution in enumerate(self.convolutions):
            x = convolution(x)
            if self.kind == "vgg" and index % 2:
                x = F.max_pool2d(F.pad(x, (0, 0, 0, 1)), (2, 1))
        # (1, channels, T', bins) -> (channels, T', bins) -> (T', channels * bins) or the reverse
        x = x.view(x.shape[1], -1, x.shape[3]).permute((1, 2, 0) if self.for_xnnpack else (1, 0, 2))
        return self.linear(x.contiguous().view(-1, self.in_features))


def _flat_step(step: nn.Module, *, for_xnnpack: bool) -> nn.Module:
    if isinstance(step, DenseFeedForward):
        return FlatFeedForward(step)
    if isinstance(step, DenseAttention):
        return FlatAttention(step)
    assert isinstance(step, DenseConvolution)
    return FlatConvolution(step, for_xnnpack=for_xnnpack)


class FlatEncoder(nn.Module):
    """One utterance's features in, CTC log-probabilities out."""

    def __init__(self, source: DenseEncoder, *, for_xnnpack: bool = False) -> None:
        """Copies a compacted encoder.

        Args:
            source: The encoder.
            for_xnnpack: Write it as is cheapest there, instead of plainly.
        """
        super().__init__()
        self.front_end = FlatFrontEnd(source.front_end, for_xnnpack=for_xnnpack)
        steps: list[nn.Module] = []
        norm = None
        for block in source.blocks:
            assert isinstance(block, DenseBlock)
            if norm is not None:
                steps.append(FlatScale(norm, centres=True, for_xnnpack=for_xnnpack))
            norm = block.norm
            steps += [_flat_step(one, for_xnnpack=for_xnnpack) for one in block.steps]
            steps.append(FlatNorm(norm, is_centred=True))
        assert norm is not None, "an architecture has a block"
        self.steps = nn.Sequential(*steps)
        self.ctc_head = _linear(source.ctc_head, norm=norm)
        self.vocab_size = source.ctc_head.out_features
        self.eval()

    def forward(self, x: Float[Tensor, "1 T bins"]) -> Float[Tensor, "1 T4 V"]:
        """Log-probabilities of `x`, all of whose frames are real."""
        logits = self.ctc_head(self.steps(self.front_end(x)))
        if logits.dtype != x.dtype:
            logits = logits.to(x.dtype)
        return F.log_softmax(logits.view(1, -1, self.vocab_size), -1)
