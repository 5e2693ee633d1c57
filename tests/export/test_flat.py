"""The flat encoder computes what the dense encoder computes."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ortho_edge.compaction import compact
from ortho_edge.conformer.architecture import FrontEndKind
from ortho_edge.subnet import Subnet
from ortho_edge.supernet import Supernet
from ortho_export.flat import FlatEncoder
from tests.export.tiny import tiny_checkpoint
from tests.tolerances import tolerance


def like_trained(kind: FrontEndKind, front_end_chunks: int = 1) -> Supernet:
    """Two blocks, and norms and biases that do something: the flat form folds them."""
    tiny = tiny_checkpoint(kind, front_end_chunks=front_end_chunks).supernet.architecture
    architecture = replace(tiny, num_blocks=2)
    torch.manual_seed(3)
    supernet = Supernet(architecture, 2).eval()
    with torch.no_grad():
        for module in supernet.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
            elif isinstance(module, torch.nn.Linear) and module.bias is not None:
                module.bias.uniform_(-0.5, 0.5)
    return supernet


KINDS: tuple[FrontEndKind, ...] = ("strided", "vgg")
SUPERNETS = {kind: like_trained(kind) for kind in KINDS}
SUPERNETS_ELASTIC = {f"elastic-{kind}": like_trained(kind, 3) for kind in KINDS}
ALL_SUPERNETS: dict[str, Supernet] = {**SUPERNETS, **SUPERNETS_ELASTIC}
NUM_COMPONENTS = max(len(one.space) for one in ALL_SUPERNETS.values())


def assert_flat_equals_dense(
    kind: str, kept: list[int], frames: int, seed: int, dtype: torch.dtype, *, for_xnnpack: bool
) -> None:
    supernet = ALL_SUPERNETS[kind].to(dtype)
    subnet = Subnet.of(len(supernet.space), [index % len(supernet.space) for index in kept])
    dense = compact(supernet, subnet, seed % 2)
    features = 4 * torch.randn(1, frames, 80, generator=torch.Generator().manual_seed(seed)) - 8
    with torch.no_grad():
        expected, lengths = dense(features.to(dtype), torch.tensor([frames]))
        found = FlatEncoder(dense, for_xnnpack=for_xnnpack)(features.to(dtype))
    assert found.shape[1] == int(lengths)
    torch.testing.assert_close(found, expected, **tolerance(f"{str(dtype)[6:]}_reordered"))


@settings(deadline=None, max_examples=40)
@given(
    kind=st.sampled_from(sorted(ALL_SUPERNETS)),
    kept=st.lists(st.integers(0, NUM_COMPONENTS - 1)),
    frames=st.integers(9, 70),
    seed=st.integers(0, 99),
    for_xnnpack=st.booleans(),
)
def test_any_subnet_and_length_in_double_precision(
    kind: str, kept: list[int], frames: int, seed: int, for_xnnpack: bool
) -> None:
    assert_flat_equals_dense(kind, kept, frames, seed, torch.float64, for_xnnpack=for_xnnpack)


@pytest.mark.parametrize("for_xnnpack", [False, True])
@pytest.mark.parametrize("kind", ["strided", "vgg"])
@pytest.mark.parametrize("frames", [9, 10, 11, 12, 333])
def test_the_whole_network_in_single_precision(
    kind: FrontEndKind, frames: int, for_xnnpack: bool
) -> None:
    kept = list(range(NUM_COMPONENTS))
    assert_flat_equals_dense(kind, kept, frames, 0, torch.float32, for_xnnpack=for_xnnpack)


@pytest.mark.parametrize("for_xnnpack", [False, True])
def test_the_dense_encoder_is_left_alone(for_xnnpack: bool) -> None:
    supernet = SUPERNETS["strided"].to(torch.float32)
    dense = compact(supernet, supernet.space.full())
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    flat = FlatEncoder(dense, for_xnnpack=for_xnnpack)
    with torch.no_grad():
        for parameter in flat.parameters():
            parameter.zero_()
    for name, value in dense.state_dict().items():
        assert value.equal(before[name]), name
