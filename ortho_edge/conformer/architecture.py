"""The shape of an encoder: every number that fixes its tensors, and nothing about training."""

from dataclasses import dataclass, replace
from typing import Literal

FrontEndKind = Literal["vgg", "strided"]
FeatureNormalization = Literal["none", "utterance"]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A Conformer-CTC encoder (paper, section 2).

    Blocks run half-FFN, convolution, self-attention, half-FFN, LayerNorm.
    """

    vocab_size: int
    """Symbols of the CTC output, blank (0) included."""
    dim: int
    """Model width D."""
    num_blocks: int
    num_heads: int
    head_dim: int = 64
    ffn_dim: int
    """Hidden width F of a feed-forward module."""
    num_ffn_chunks: int = 4
    """Components per feed-forward module; each holds `ffn_dim / num_ffn_chunks` hidden channels."""
    kernel_size: int = 31
    """Depthwise kernel K of the convolution module."""
    feature_dim: int = 80
    front_end: FrontEndKind = "vgg"
    """`vgg`: four 3x3 convolutions and two poolings (paper); `strided`: two 3x3 convolutions of
    stride 2, a few per cent of the cost."""
    front_end_channels: tuple[int, ...] = (32, 64, 64, 32)
    front_end_chunks: int = 1
    """Chunks of the last convolution's channels. The first is always kept; each other one is a
    component. With 1 the front end is not elastic."""
    feature_normalization: FeatureNormalization = "none"
    """`utterance` subtracts each utterance's mean log-mel vector: robust to level and channel."""

    def __post_init__(self) -> None:
        """Raises ValueError naming the field, the value and the rule."""
        for name in (
            "dim", "num_blocks", "num_heads", "head_dim", "ffn_dim", "num_ffn_chunks",
            "kernel_size", "feature_dim", "front_end_chunks",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.vocab_size < 2:
            raise ValueError(f"vocab_size must hold blank and a symbol, not {self.vocab_size}")
        if self.ffn_dim % self.num_ffn_chunks:
            raise ValueError(
                f"ffn_dim {self.ffn_dim} does not divide into {self.num_ffn_chunks} chunks"
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, not {self.kernel_size}")
        if self.front_end not in ("vgg", "strided"):
            raise ValueError(f"unknown front_end {self.front_end!r}; known: vgg, strided")
        if self.feature_normalization not in ("none", "utterance"):
            raise ValueError(
                f"unknown feature_normalization {self.feature_normalization!r}; "
                "known: none, utterance"
            )
        expected = 4 if self.front_end == "vgg" else 2
        if len(self.front_end_channels) != expected:
            raise ValueError(
                f"front_end {self.front_end!r} takes {expected} channel counts, "
                f"not {self.front_end_channels}"
            )
        if min(self.front_end_channels) < 1:
            raise ValueError(
                f"front_end_channels must be at least 1, not {self.front_end_channels}"
            )
        if self.front_end_channels[-1] % self.front_end_chunks:
            raise ValueError(
                f"the {self.front_end_channels[-1]} channels of the front end's last convolution "
                f"do not divide into {self.front_end_chunks} chunks"
            )

    @property
    def chunk_dim(self) -> int:
        """Hidden channels of one FFN chunk."""
        return self.ffn_dim // self.num_ffn_chunks

    @property
    def front_end_chunk_dim(self) -> int:
        """Channels of the last convolution in one chunk."""
        return self.front_end_channels[-1] // self.front_end_chunks

    def with_front_end_of(self, chunks: int) -> "Architecture":
        """The same with so many chunks left of the front end, which is not elastic any more."""
        if chunks == self.front_end_chunks == 1:
            return self
        channels = (*self.front_end_channels[:-1], chunks * self.front_end_chunk_dim)
        return replace(self, front_end_channels=channels, front_end_chunks=1)

    @property
    def subsampled_feature_dim(self) -> int:
        """Mel bins left where the front end hands over to its linear layer."""
        if self.front_end == "vgg":
            return self.feature_dim
        return subsampled_length(self.feature_dim)


SUBSAMPLING_FACTOR = 4


def subsampled_length(num_frames):
    """Encoder frames for `num_frames` feature frames (an int or an integer tensor)."""
    return ((num_frames + 1) // 2 + 1) // 2
