"""Front ends: log-mel features to encoder frames, four feature frames to one.

Padded frames are set to zero before every convolution, exactly what a convolution sees beyond the
edge of an utterance, so a batched utterance equals the same utterance alone.

Elastic front ends divide the channels of the last convolution into chunks. Features reach the
linear layer channel by channel, so a chunk is one contiguous slab of the convolution's weight and
bias and of the linear layer's columns, and what it adds to the frames is a sum of its own.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ortho_edge.conformer.architecture import Architecture, subsampled_length

LOG_MEL_SCALE = 0.25
"""Log-mel energies deviate by about 4 from their mean; the scale brings them near 1."""


def frames_mask(lengths: Tensor, num_frames: int) -> Tensor:
    """(B, T), True at the real frames of utterances of `lengths` (B,)."""
    return torch.arange(num_frames, device=lengths.device)[None, :] < lengths[:, None]


def normalize_utterance(features: Tensor, lengths: Tensor) -> Tensor:
    """Subtracts the mean log-mel vector over the real frames of each utterance, then scales.

    Args:
        features: (B, T, bins).
        lengths: (B,).
    """
    valid = frames_mask(lengths, features.shape[1])[:, :, None].to(features.dtype)
    mean = (features * valid).sum(1, keepdim=True) / lengths[:, None, None].to(features.dtype)
    return (features - mean) * LOG_MEL_SCALE


class FrontEnd(nn.Module):
    """Convolutional subsampling by 4 and a linear layer to the model width.

    S subnets, B batch, T frames, T' encoder frames, D model width, C chunks besides the first.
    """

    def __init__(self, architecture: Architecture) -> None:
        """Builds the `vgg` or `strided` front end of `architecture`."""
        super().__init__()
        self.kind = architecture.front_end
        self.normalization = architecture.feature_normalization
        self.num_chunks = architecture.front_end_chunks
        channels = (1, *architecture.front_end_channels)
        stride = 2 if self.kind == "strided" else 1
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
            for inputs, outputs in itertools.pairwise(channels)
        )
        self.linear = nn.Linear(
            channels[-1] * architecture.subsampled_feature_dim, architecture.dim
        )
        # torch's default shrinks the signal at every layer, until frames differ from one another
        # by less than the biases that they share.
        for convolution in self.convolutions:
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")  # pyright: ignore[reportArgumentType]
            nn.init.zeros_(convolution.bias)  # pyright: ignore[reportArgumentType]
        nn.init.kaiming_normal_(self.linear.weight, nonlinearity="linear")
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Maps features (B, T, bins) and lengths (B,) to frames (B, T', D) and lengths (B,)."""
        x, lengths = self.maps(features, lengths)
        return self.linear(_frames(x)), lengths

    def gated(self, features: Tensor, lengths: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (S, B, T', D) of subnets by their gates (S, C), and lengths (B,).

        All chunks are computed once for all subnets. A gate of 0 adds nothing and sends no
        gradient, neither to the chunk nor to the gate.
        """
        x, lengths = self.maps(features, lengths)
        chunks = x.chunk(self.num_chunks, 1)
        weights = self.linear.weight.chunk(self.num_chunks, 1)
        y = F.linear(_frames(chunks[0]), weights[0], self.linear.bias)
        y = y.expand(len(gates), -1, -1, -1)
        gates = (gates * (gates != 0)).to(y.dtype)
        for index in range(1, self.num_chunks):
            part = F.linear(_frames(chunks[index]), weights[index])
            y = torch.addcmul(y, gates[:, index - 1, None, None, None], part)
        return y, lengths

    def maps(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Feature maps (B, channels, T', bins) of the last convolution, and lengths (B,)."""
        if self.normalization == "utterance":
            features = normalize_utterance(features, lengths)
        x = features[:, None]
        for index, convolution in enumerate(self.convolutions):
            x = x * frames_mask(lengths, x.shape[2])[:, None, :, None].to(x.dtype)
            x = F.relu(convolution(x))
            if self.kind == "strided":
                lengths = (lengths + 1) // 2
            elif index % 2:
                # After a ReLU nothing is below zero, so zeroed padding never wins a maximum.
                x = x * frames_mask(lengths, x.shape[2])[:, None, :, None].to(x.dtype)
                x = F.max_pool2d(x, (2, 1), ceil_mode=True)
                lengths = (lengths + 1) // 2
        return x, lengths

    @torch.no_grad()
    def compacted(self, architecture: Architecture, chunks: tuple[int, ...]) -> "FrontEnd":
        """A front end of its own that holds copies of the given chunks.

        Args:
            architecture: This one's.
            chunks: Ascending, the first (0) among them.
        """
        dense = architecture.with_front_end_of(len(chunks))
        copy = FrontEnd(dense).to(self.linear.weight.dtype)
        kept, state = list(chunks), self.state_dict()
        name = f"convolutions.{len(self.convolutions) - 1}"
        for one in (f"{name}.weight", f"{name}.bias"):
            state[one] = state[one].unflatten(0, (self.num_chunks, -1))[kept].flatten(0, 1)
        columns = state["linear.weight"].unflatten(1, (self.num_chunks, -1))
        state["linear.weight"] = columns[:, kept].flatten(1)
        copy.load_state_dict(state)
        return copy


def _frames(maps: Tensor) -> Tensor:
    """(B, channels, T', bins) -> (B, T', channels * bins)."""
    return maps.permute(0, 2, 1, 3).flatten(2)


__all__ = ["FrontEnd", "frames_mask", "normalize_utterance", "subsampled_length"]
