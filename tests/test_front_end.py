"""Front ends: masks, normalisation, subsampling, and chunks that may be closed."""

import pytest
import torch
from torch import Tensor

from ortho_edge.conformer.front_end import frames_mask, normalize_utterance
from ortho_edge.subnet import Subnet, stack_gates
from tests.encoders import (
    ELASTIC_FRONT_ENDS,
    FRONT_ENDS,
    lengths_after,
    network,
    random_batch,
    small_architecture,
    small_supernet,
)
from tests.tolerances import tolerance


def test_frames_mask_counts() -> None:
    assert frames_mask(torch.tensor([0, 1, 3]), 3).tolist() == [
        [False, False, False],
        [True, False, False],
        [True, True, True],
    ]


def test_normalization_ignores_level_and_channel() -> None:
    features, lengths = random_batch((22, 9))
    moved = features + torch.linspace(-3, 3, features.shape[-1], dtype=torch.float64)
    for b, length in enumerate(lengths):
        a, b_ = (normalize_utterance(given, lengths)[b, :length] for given in (features, moved))
        torch.testing.assert_close(a, b_, **tolerance("float64_reordered"))
        torch.testing.assert_close(
            a.mean(0), torch.zeros_like(a[0]), **tolerance("float64_reordered")
        )
        torch.testing.assert_close(
            a.std(0) if length > 1 else a, features[b, :length].std(0) / 4,
            **tolerance("float64_reordered"),
        )  # fmt: skip


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_subsamples_time_by_four(front_end: str) -> None:
    supernet = network(front_end)
    features, lengths = random_batch(range(1, 24))
    x, frames = supernet.front_end(features, lengths)
    assert frames.tolist() == lengths_after(range(1, 24))
    assert x.shape == (23, 6, 10)


@pytest.mark.parametrize("front_end", ELASTIC_FRONT_ENDS)
def test_a_closed_chunk_of_the_front_end_has_no_gradient_from_that_subnet(front_end: str) -> None:
    supernet = small_supernet(small_architecture(front_end))
    space, features, lengths = supernet.space, *random_batch((22, 9))
    second, third = range(len(space))[space.module_slice(None, "front_end")]
    # Neither keeps the third chunk, and only the first keeps the second.
    subnets = [Subnet.of(len(space), [0, 3, second]), Subnet.of(len(space), [1, 4])]
    convolution = supernet.front_end.convolutions[-1]
    weights = {
        "kernel": convolution.weight, "bias": convolution.bias,
        "columns": supernet.front_end.linear.weight,
    }  # fmt: skip

    def gradients(rows: list[int]) -> dict[str, tuple[Tensor, ...]]:
        """Of each weight, by chunks; and of the gates."""
        gates = stack_gates([subnets[row] for row in rows], torch.float64).requires_grad_()
        supernet.zero_grad()
        supernet(features, lengths, gates, rows)[0].square().sum().backward()
        assert gates.grad is not None
        found: dict[str, tuple[Tensor, ...]] = {"gates": (gates.grad,)}
        for name, weight in weights.items():
            assert isinstance(weight, torch.nn.Parameter)
            assert weight.grad is not None
            found[name] = weight.grad.clone().chunk(3, int(name == "columns"))
        return found

    both, first, other = gradients([0, 1]), gradients([0]), gradients([1])
    (of_gates,) = both["gates"]
    assert of_gates[:, [second, third]].ne(0).tolist() == [[True, False], [False, False]]
    for name in weights:
        assert [one.ne(0).any().item() for one in both[name]] == [True, True, False], name
        assert other[name][1].eq(0).all(), name
        torch.testing.assert_close(both[name][1], first[name][1], **tolerance("exact"))


def test_a_gate_scales_its_chunk_of_the_front_end_once() -> None:
    supernet = network("elastic-strided")
    features, lengths = random_batch((22, 9))
    gates = torch.tensor([[0, 0], [1, 0], [0.5, 0], [2, 0], [2, 1], [0, 1]], dtype=torch.float64)
    x, frames = supernet.front_end.gated(features, lengths, gates)
    assert frames.tolist() == [6, 3]
    none, one, half, twice, both, other = x
    for actual, expected in (
        (half - none, 0.5 * (one - none)),
        (twice - none, 2 * (one - none)),
        (both - none, 2 * (one - none) + (other - none)),
    ):
        assert actual.abs().max() > 0.1
        torch.testing.assert_close(actual, expected, **tolerance("float64_reordered"))
