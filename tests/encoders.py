"""Small supernets whose every parameter counts, and random subnets of them."""

import functools
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from hypothesis import strategies as st
from torch import Tensor

from ortho_edge.components import ComponentSpace, Granularity
from ortho_edge.conformer.architecture import Architecture, FeatureNormalization
from ortho_edge.subnet import Subnet
from ortho_edge.supernet import Block, Supernet

FRONT_ENDS = {"vgg": (3, 2, 4, 2), "strided": (3, 2)}
ELASTIC_FRONT_ENDS = {"elastic-vgg": (3, 2, 4, 6), "elastic-strided": (3, 6)}
"""Likewise, the channels of the last convolution in three chunks."""
ALL_FRONT_ENDS = {**FRONT_ENDS, **ELASTIC_FRONT_ENDS}
NUM_CTC_HEADS = 2


def small_architecture(front_end: str = "strided", **changes: Any) -> Architecture:
    """Odd sizes throughout, so that no two axes can be mistaken for each other."""
    sizes: dict[str, Any] = {
        "vocab_size": 6,
        "dim": 10,
        "num_blocks": 3,
        "num_heads": 3,
        "head_dim": 4,
        "ffn_dim": 21,
        "num_ffn_chunks": 3,
        "kernel_size": 5,
        "feature_dim": 7,
        "front_end": front_end.removeprefix("elastic-"),
        "front_end_channels": ALL_FRONT_ENDS.get(front_end, ()),
        "front_end_chunks": 3 if front_end in ELASTIC_FRONT_ENDS else 1,
    }
    return Architecture(**{**sizes, **changes})


def small_supernet(architecture: Architecture, dtype: torch.dtype = torch.float64) -> Supernet:
    """A seeded supernet, its LayerNorms moved away from the identity that they start as."""
    torch.manual_seed(0)
    supernet = Supernet(architecture, NUM_CTC_HEADS)
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            if "norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return supernet.to(dtype).eval()


@functools.cache
def network(front_end: str = "strided", normalization: FeatureNormalization = "none") -> Supernet:
    """One of those, made once; nobody may change it."""
    return small_supernet(small_architecture(front_end, feature_normalization=normalization))


def soft_gates(num_rows: int, num_components: int, seed: int = 0) -> Tensor:
    """Gates between 0.2 and 1.2 of which about a third is closed."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_rows, num_components)
    gates = 0.2 + torch.rand(shape, generator=generator, dtype=torch.float64)
    return gates * (torch.rand(shape, generator=generator) < 0.7)


def lengths_after(num_frames: Sequence[int]) -> list[int]:
    """Encoder frames of utterances of so many feature frames."""
    return [math.ceil(math.ceil(frames / 2) / 2) for frames in num_frames]


def block_of(supernet: Supernet, index: int) -> Block:
    """A block by its number, with its type."""
    return cast(Block, supernet.blocks[index])


def random_batch(
    lengths: Sequence[int], feature_dim: int = 7, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Features (B, T, bins) with rubbish in the padding, and lengths (B,)."""
    generator = torch.Generator().manual_seed(2)
    shape = (len(lengths), max(lengths), feature_dim)
    features = torch.randn(shape, generator=generator, dtype=torch.float64)
    for row, length in zip(features, lengths, strict=True):
        row[length:] = 50 + 9 * row[length:]
    return features.to(dtype), torch.tensor(lengths)


def draw_subnet(
    data: st.DataObject, space: ComponentSpace, granularity: Granularity | None = None
) -> Subnet:
    """A subnet from nothing to everything, whole modules and blocks dropped among them.

    A function and no strategy: shape checking draws random names, which strategies must not.
    """
    if granularity is None:
        granularity = data.draw(st.sampled_from(["component", "layer"]))
    groups = space.groups(granularity)
    flags = data.draw(st.lists(st.booleans(), min_size=len(groups), max_size=len(groups)))
    kept = {index for group, flag in zip(groups, flags, strict=True) if flag for index in group}
    for block in data.draw(st.sets(st.integers(0, space.architecture.num_blocks - 1), max_size=2)):
        kept -= {index for index in kept if space.components[index].block == block}
    return Subnet.of(len(space), kept)


def whole_and_empty(space: ComponentSpace) -> list[Subnet]:
    """The two ends of every range of subnets."""
    return [Subnet.of(len(space), ()), space.full()]
