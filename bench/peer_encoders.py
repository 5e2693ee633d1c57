"""Encoders to compare ours with: public architectures with random weights, from `transformers`.

Nothing is downloaded: configurations are written here, at a published shape or scaled to the
parameters of one of ours. Scaled ones keep the number of layers of ours and a feed-forward width
of about four times the model width. Whisper's encoder, which pads everything to 30 s, gets the
utterance alone; positions of others that depend on the length are constants of the exported
graph. All of that is in their favour.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from ortho_edge.checkpoint import load_checkpoint, shipped_checkpoint
from ortho_edge.cli import UserError
from ortho_edge.compaction import DenseEncoder, compact
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.supernet import Supernet

SIZES = {"2.4 M": 2_387_431, "10 M": 10_000_000}
"""Parameters that encoders are scaled to: those of the shipped checkpoint, and about four times."""
FEATURES, AUDIO = "features", "audio"
FRAMES, SAMPLES = 100, 16000
"""Per second."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """An encoder of the comparison.

    Attributes:
        name: Such as `whisper`.
        group: Encoders of one group are compared: `2.4 M`, `10 M` or `published`.
        input: `features` where filter banks are made outside, `audio` where the encoder begins
            with samples.
        make: Builds it for so many feature frames or samples; deterministic.
    """

    name: str
    group: str
    input: str
    make: Callable[[int], nn.Module]

    def length(self, seconds: float) -> int:
        """Feature frames or samples of so much audio."""
        return example(self.input, seconds).shape[1]


def example(takes: str, seconds: float) -> Tensor:
    """Noise of that length: features (1, T, 80) or audio (1, N)."""
    shape = (1, round(seconds * FRAMES), 80) if takes == FEATURES else (1, round(seconds * SAMPLES))
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class _Hidden(nn.Module):
    """An encoder of `transformers` as a module from one tensor to one tensor."""

    def __init__(self, encoder: nn.Module, transposed: bool = False) -> None:
        super().__init__()
        self.encoder, self.transposed = encoder, transposed

    def forward(self, x: Tensor) -> Tensor:
        """Hidden states (1, T', D)."""
        return self.encoder(x.transpose(1, 2) if self.transposed else x).last_hidden_state


def ours(group: str) -> DenseEncoder:
    """Our full network: the shipped checkpoint's, or a wider one of the same kind, untrained."""
    if group == "2.4 M":
        checkpoint = load_checkpoint(shipped_checkpoint())
        return compact(checkpoint.supernet, checkpoint.supernet.space.full())
    torch.manual_seed(0)
    architecture = Architecture(
        vocab_size=39, dim=256, num_blocks=6, num_heads=4, head_dim=64, ffn_dim=1152,
        kernel_size=15, front_end="strided", front_end_channels=(16, 32),
        feature_normalization="utterance",
    )  # fmt: skip
    supernet = Supernet(architecture, 1).eval()
    return compact(supernet, supernet.space.full())


@cache
def peers() -> tuple[Peer, ...]:
    """All of them, those scaled to ours first."""
    return tuple(_peers())


def _peers() -> Iterator[Peer]:
    scaled = {
        "wav2vec2-conformer": (_wav2vec2_conformer, AUDIO, 16),
        "parakeet": (_parakeet, FEATURES, 16),
        "parakeet, every 40 ms": (partial(_parakeet, subsampling=4), FEATURES, 16),
        "whisper": (_whisper, FEATURES, 16),
        "moonshine": (_moonshine, AUDIO, 32),
    }
    for group, params in SIZES.items():
        for name, (make, takes, step) in scaled.items():
            width, inner = scaled_to(params, lambda *shape, make=make: make(100_000, *shape), step)
            yield Peer(
                name=name,
                group=group,
                input=takes,
                make=lambda length, make=make, width=width, inner=inner: make(length, width, inner),
            )
    yield Peer(
        name="whisper-tiny",
        group="published",
        input=FEATURES,
        make=lambda length: _whisper(length, 384, 1536, heads=6, layers=4),
    )
    yield Peer(
        name="moonshine-tiny",
        group="published",
        input=AUDIO,
        make=lambda length: _moonshine(length, 288, 1152, heads=8, layers=6),
    )


def scaled_to(params: int, make: Callable[[int, int], nn.Module], step: int) -> tuple[int, int]:
    """Model and feed-forward widths with about that many parameters.

    Args:
        params: The aim.
        make: Builds an encoder of two widths; called on the meta device.
        step: Of the model width.
    """

    def count(width: int, inner: int) -> int:
        with torch.device("meta"):
            return num_parameters(make(width, inner))

    width = step
    while count(width + step, 4 * (width + step)) <= params:
        width += step
    # Parameters are linear in the feed-forward width.
    base, more = count(width, 4 * width), count(width, 4 * width + 8)
    return width, 4 * width + 8 * round((params - base) / (more - base))


def num_parameters(module: nn.Module) -> int:
    """Parameters of a module; constant positions do not count."""
    return sum(one.numel() for one in module.parameters() if one.requires_grad)


def _heads(width: int) -> int:
    """Four, as ours; the width must divide by twice as many for rotated pairs."""
    assert width % 8 == 0
    return 4


def _library(name: str = "transformers") -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError("other encoders need transformers: pip install -e '.[bench]'") from error


def _seeded(build: Callable[[], nn.Module], transposed: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return _Hidden(build(), transposed).eval()


def _wav2vec2_conformer(length: int, width: int, inner: int) -> nn.Module:
    settings = _library().Wav2Vec2ConformerConfig(
        hidden_size=width, intermediate_size=inner, num_hidden_layers=6,
        num_attention_heads=_heads(width), conv_dim=(width // 2,) * 7, mask_time_prob=0.0,
        layerdrop=0.0, attn_implementation="eager",
    )  # fmt: skip
    return _seeded(lambda: _library().Wav2Vec2ConformerModel(settings))


def _parakeet(length: int, width: int, inner: int, subsampling: int = 8) -> nn.Module:
    settings = _library().ParakeetEncoderConfig(
        hidden_size=width, intermediate_size=inner, num_hidden_layers=6,
        num_attention_heads=_heads(width), subsampling_conv_channels=width,
        subsampling_factor=subsampling, layerdrop=0.0, attn_implementation="eager",
    )  # fmt: skip
    return _seeded(lambda: _library().ParakeetEncoder(settings))


def _whisper(length: int, width: int, inner: int, heads: int = 4, layers: int = 6) -> nn.Module:
    settings = _library().WhisperConfig(
        d_model=width, encoder_ffn_dim=inner, encoder_layers=layers, encoder_attention_heads=heads,
        num_mel_bins=80, max_source_positions=length // 2, attn_implementation="eager",
    )  # fmt: skip
    module = _library("transformers.models.whisper.modeling_whisper")
    return _seeded(lambda: module.WhisperEncoder(settings), transposed=True)


def _moonshine(length: int, width: int, inner: int, heads: int = 4, layers: int = 6) -> nn.Module:
    settings = _library().MoonshineConfig(
        hidden_size=width, intermediate_size=inner, encoder_num_hidden_layers=layers,
        encoder_num_attention_heads=heads, max_position_embeddings=length // 384 + 1,
        attn_implementation="eager",
    )  # fmt: skip
    module = _library("transformers.models.moonshine.modeling_moonshine")
    return _seeded(lambda: module.MoonshineEncoder(settings))
