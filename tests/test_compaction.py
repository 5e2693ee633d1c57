"""The compacted encoder computes what the gated supernet computes."""

import copy
import functools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ortho_edge.compaction import DenseEncoder, compact
from ortho_edge.components import Granularity
from ortho_edge.conformer.architecture import Architecture, FeatureNormalization
from ortho_edge.subnet import Subnet
from ortho_edge.supernet import Supernet
from tests.encoders import (
    ALL_FRONT_ENDS,
    ELASTIC_FRONT_ENDS,
    block_of,
    draw_subnet,
    random_batch,
    small_architecture,
    small_supernet,
    whole_and_empty,
)
from tests.tolerances import tolerance

LENGTHS = (41, 17, 1)
PRECISIONS = {torch.float64: "float64_reordered", torch.float32: "compaction_float32"}


@functools.cache
def network(front_end: str, normalization: FeatureNormalization, dtype: torch.dtype) -> Supernet:
    architecture = small_architecture(front_end, feature_normalization=normalization)
    return small_supernet(architecture, dtype)


def check(supernet: Supernet, subnet: Subnet, head: int = 0) -> None:
    """Compares all real frames of a padded batch."""
    dtype = supernet.front_end.linear.weight.dtype
    features, lengths = random_batch(LENGTHS, supernet.architecture.feature_dim, dtype)
    with torch.no_grad():
        gated, gated_lengths = supernet(features, lengths, subnet.gates(dtype)[None], [head])
        dense, dense_lengths = compact(supernet, subnet, head)(features, lengths)
    assert dense_lengths.tolist() == gated_lengths.tolist() == [11, 5, 1]
    for b, length in enumerate(gated_lengths):
        torch.testing.assert_close(
            dense[b, :length], gated[0, b, :length], **tolerance(PRECISIONS[dtype])
        )


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("normalization", ["none", "utterance"])
@pytest.mark.parametrize("front_end", ALL_FRONT_ENDS)
@pytest.mark.parametrize("granularity", ["component", "layer"])
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_equals_the_gated_supernet(
    data: st.DataObject,
    granularity: Granularity,
    front_end: str,
    normalization: FeatureNormalization,
    dtype: torch.dtype,
) -> None:
    supernet = network(front_end, normalization, dtype)
    check(supernet, draw_subnet(data, supernet.space, granularity))


@pytest.mark.parametrize("front_end", ALL_FRONT_ENDS)
def test_equals_the_gated_supernet_at_both_ends(front_end: str) -> None:
    supernet = network(front_end, "utterance", torch.float64)
    for subnet in whole_and_empty(supernet.space):
        check(supernet, subnet)


@pytest.mark.parametrize("front_end", ["strided", "elastic-strided"])
def test_every_single_component_equals_the_gated_supernet(front_end: str) -> None:
    supernet = network(front_end, "none", torch.float64)
    for index in range(len(supernet.space)):
        check(supernet, Subnet.of(len(supernet.space), [index]))


@pytest.mark.parametrize("front_end_chunks", [1, 4])
def test_float32_holds_at_the_size_of_a_real_encoder(front_end_chunks: int) -> None:
    architecture = Architecture(
        vocab_size=40, dim=128, num_blocks=6, num_heads=4, head_dim=32, ffn_dim=512,
        kernel_size=15, front_end="strided", front_end_channels=(16, 32),
        front_end_chunks=front_end_chunks, feature_normalization="utterance",
    )  # fmt: skip
    supernet = small_supernet(architecture, torch.float32)
    size = len(supernet.space)
    generator = torch.Generator().manual_seed(0)
    for share in (0.2, 0.4, 0.6, 0.8, 1.0):
        kept = torch.rand(size, generator=generator) < share
        check(supernet, Subnet.of(size, kept.nonzero().flatten().tolist()))


def test_takes_the_ctc_head_that_is_asked_for() -> None:
    supernet = network("strided", "none", torch.float64)
    check(supernet, supernet.space.full(), head=1)


def test_drops_modules_altogether() -> None:
    supernet = network("vgg", "none", torch.float64)
    kept = [*range(10, 13)]  # the second block's first FFN
    encoder = compact(supernet, Subnet.of(len(supernet.space), kept))
    names = [name for name, _ in encoder.named_parameters() if name.startswith("blocks")]
    assert {name.removeprefix("blocks.").split(".")[0] for name in names} == {"0", "1", "2"}
    assert [name for name in names if ".steps." in name] == [
        f"blocks.1.steps.0.{name}"
        for name in ("norm.weight", "norm.bias", "up.weight", "up.bias", "down.weight", "down.bias")
    ]
    assert not encoder.training


def test_dropped_weights_do_not_enter() -> None:
    supernet = copy.deepcopy(network("strided", "none", torch.float64))
    subnet = Subnet.of(len(supernet.space), [0, 2, 4])  # two chunks, and the first head
    with torch.no_grad():
        for block in supernet.blocks[1:]:
            for name, parameter in block.named_parameters():
                if not name.startswith("norm."):
                    parameter.fill_(math.nan)
        first = block_of(supernet, 0)
        for module in (first.conv, first.ffn2):
            for parameter in module.parameters():
                parameter.fill_(math.nan)
        first.ffn1.w1[1] = math.nan
        first.mhsa.w_qkv[1:] = math.nan
    encoder = compact(supernet, subnet)
    assert all(parameter.isfinite().all() for parameter in encoder.parameters())
    check(supernet, subnet)


@pytest.mark.parametrize("front_end", ELASTIC_FRONT_ENDS)
def test_a_front_end_keeps_the_slabs_of_its_chunks(front_end: str) -> None:
    """A chunk is two channels of the last convolution, and their columns of the linear layer."""
    supernet = network(front_end, "none", torch.float64)
    space, whole = supernet.space, supernet.front_end
    last = space.module_slice(None, "front_end").stop - 1
    small = compact(supernet, Subnet.of(len(space), [last])).front_end
    kept, bins = [0, 1, 4, 5], space.architecture.subsampled_feature_dim
    for actual, expected in (
        (small.convolutions[-1].weight, whole.convolutions[-1].weight[kept]),  # pyright: ignore
        (small.convolutions[-1].bias, whole.convolutions[-1].bias[kept]),  # pyright: ignore
        (small.linear.weight, whole.linear.weight.view(10, 6, bins)[:, kept].flatten(1)),
        (small.linear.bias, whole.linear.bias),
    ):
        torch.testing.assert_close(actual, expected, **tolerance("exact"))


def test_owns_its_weights() -> None:
    supernet = small_supernet(small_architecture())
    features, lengths = random_batch(LENGTHS)
    encoder = compact(supernet, supernet.space.full())
    before = encoder(features, lengths)[0]
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.zero_()
    torch.testing.assert_close(encoder(features, lengths)[0], before, **tolerance("exact"))


def test_an_utterance_alone_equals_itself_in_a_batch() -> None:
    supernet = network("vgg", "utterance", torch.float64)
    encoder: DenseEncoder = compact(supernet, Subnet.of(len(supernet.space), [0, 3, 5, 11, 15, 29]))
    features, lengths = random_batch(range(1, 14))
    together, frames = encoder(features, lengths)
    for b, length in enumerate(lengths):
        alone, _ = encoder(features[b : b + 1, :length], lengths[b : b + 1])
        torch.testing.assert_close(
            together[b, : frames[b]], alone[0], **tolerance("float64_reordered")
        )


def test_a_subnet_of_another_space_is_refused() -> None:
    supernet = network("strided", "none", torch.float64)
    with pytest.raises(ValueError, match="subnet of 5 components for a supernet of 30"):
        compact(supernet, Subnet.full(5))


@pytest.mark.parametrize("head", [-1, 2])
def test_an_unknown_head_is_refused(head: int) -> None:
    supernet = network("strided", "none", torch.float64)
    with pytest.raises(ValueError, match=f"no CTC head {head}; the supernet has 2"):
        compact(supernet, supernet.space.full(), head)
