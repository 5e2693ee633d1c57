"""Front ends: log-mel features to encoder frames, four feature frames to one.

Padded frames are set to zero before every convolution, exactly what a convolution sees beyond the
edge of an utterance, so a batched utterance equals the same utterance alone.
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
    """Convolutional subsampling by 4 and a linear layer to the model width."""

    def __init__(self, architecture: Architecture) -> None:
        """Builds the `vgg` or `strided` front end of `architecture`."""
        super().__init__()
        self.kind = architecture.front_end
        self.normalization = architecture.feature_normalization
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
        # (B, channels, T', bins) -> (B, T', channels * bins)
        return self.linear(x.permute(0, 2, 1, 3).flatten(2)), lengths


__all__ = ["FrontEnd", "frames_mask", "normalize_utterance", "subsampled_length"]
