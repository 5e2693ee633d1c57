"""CTC losses against a sum over all paths, and how they are combined."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ortho_edge.training.losses import (
    LossWeighting,
    ctc_losses,
    distillation_losses,
    frame_losses,
    subnet_weights,
)
from tests.tolerances import tolerance


def ctc_by_enumeration(probabilities: torch.Tensor, labels: list[int]) -> float:
    """Minus log of the summed probability of every path (T', V) that collapses to `labels`."""
    frames, symbols = probabilities.shape
    total = 0.0
    for path in itertools.product(range(symbols), repeat=frames):
        merged = [symbol for symbol, _ in itertools.groupby(path)]
        if [symbol for symbol in merged if symbol] == labels:
            total += math.prod(float(probabilities[t, symbol]) for t, symbol in enumerate(path))
    return -math.log(total)


def test_losses_equal_the_sum_over_all_paths_per_frame() -> None:
    torch.manual_seed(0)
    log_probs = torch.randn(2, 2, 5, 3).log_softmax(-1)
    lengths, labels = torch.tensor([5, 3]), [[1, 1], [2]]
    losses = ctc_losses(log_probs, lengths, torch.tensor([1, 1, 2]), torch.tensor([2, 1]))
    for subnet in range(2):
        expected = sum(
            ctc_by_enumeration(log_probs[subnet, row, : lengths[row]].exp(), labels[row])
            for row in range(2)
        )
        torch.testing.assert_close(losses[subnet], torch.tensor(expected / 8), rtol=1e-5, atol=1e-6)


def test_no_words_cost_what_their_blanks_cost() -> None:
    log_probs = torch.randn(2, 2, 5, 3).log_softmax(-1)
    nothing, lengths = torch.tensor([], dtype=torch.int64), torch.tensor([5, 3])
    losses = ctc_losses(log_probs, lengths, nothing, torch.tensor([0, 0]))
    blank = log_probs[..., 0]
    expected = -(blank[:, 0].sum(-1) + blank[:, 1, :3].sum(-1)) / 8
    torch.testing.assert_close(losses, expected, **tolerance("float32_reordered"))


LOSSES = (0.7, 0.2, 1.5, 1e-4)


@pytest.mark.parametrize(
    ("weighting", "weighed"),
    [
        ("focal", lambda loss: (1 - torch.exp(-loss)) * loss),
        ("detached", lambda loss: (1 - torch.exp(-loss.detach())) * loss),
        ("constant", lambda loss: loss),
    ],
)
def test_weights_give_the_gradient_of_weighed_subnets_and_spare_the_full_network(
    weighting: LossWeighting, weighed: Callable[[Tensor], Tensor]
) -> None:
    losses = torch.tensor(LOSSES, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(losses[0] + weighed(losses[1:]).sum(), losses)
    weights = subnet_weights(losses, weighting)
    assert not weights.requires_grad
    torch.testing.assert_close(weights, expected, **tolerance("float64_reordered"))


def test_frame_losses_average_the_known_frames_alone() -> None:
    torch.manual_seed(0)
    log_probs = torch.randn(2, 2, 4, 3).log_softmax(-1)
    targets = torch.tensor([[0, 2, -1, -1], [-1, 1, 0, -1]])
    known = [(0, 0, 0), (0, 1, 2), (1, 1, 1), (1, 2, 0)]
    expected = [-sum(log_probs[s, b, t, v] for b, t, v in known) / 4 for s in range(2)]
    torch.testing.assert_close(frame_losses(log_probs, targets), torch.stack(expected))  # pyright: ignore[reportArgumentType]


def test_frame_losses_of_unaligned_batches_are_zero() -> None:
    log_probs = torch.randn(2, 1, 4, 3).log_softmax(-1)
    assert frame_losses(log_probs, torch.full((1, 4), -1)).tolist() == [0.0, 0.0]


def test_distillation_is_the_divergence_from_the_full_network_over_real_frames() -> None:
    torch.manual_seed(0)
    log_probs = torch.randn(3, 2, 5, 4).log_softmax(-1).requires_grad_()
    lengths = torch.tensor([5, 3])
    losses = distillation_losses(log_probs, lengths)
    frames = [(row, t) for row in range(2) for t in range(lengths[row])]
    expected = [
        sum(
            p * math.log(p / q)
            for row, t in frames
            for p, q in zip(
                log_probs[0, row, t].exp().tolist(), log_probs[s, row, t].exp().tolist(),
                strict=True,
            )
        )
        / 8
        for s in (1, 2)
    ]  # fmt: skip
    torch.testing.assert_close(losses, torch.tensor(expected), **tolerance("float32_reordered"))
    losses.sum().backward()
    assert log_probs.grad is not None
    assert not log_probs.grad[0].any(), "the teacher learns from its pupils"
    assert not log_probs.grad[:, 1, 3:].any()
    # Through the softmax the gradient of a frame is the difference of the posteriors.
    logits = log_probs.detach().clone().requires_grad_()
    distillation_losses(logits.log_softmax(-1), lengths).sum().backward()
    assert logits.grad is not None
    difference = (log_probs[1, 0, 0].exp() - log_probs[0, 0, 0].exp()) / 8
    torch.testing.assert_close(
        logits.grad[1, 0, 0], difference.detach(), **tolerance("float32_reordered")
    )


def test_distillation_of_a_network_alone_is_nothing() -> None:
    log_probs = torch.randn(1, 2, 5, 4).log_softmax(-1)
    assert distillation_losses(log_probs, torch.tensor([5, 3])).shape == (0,)
