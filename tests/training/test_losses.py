"""CTC losses against a sum over all paths, and how they are combined."""

import itertools
import math

import torch

from ortho_edge.training.losses import combine, ctc_losses, frame_losses


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


def test_focal_weights_are_constants_and_spare_the_full_network() -> None:
    losses = torch.tensor([0.7, 0.2, 1.5], requires_grad=True)
    combine(losses).backward()
    expected = torch.tensor([1.0, 1 - math.exp(-0.2), 1 - math.exp(-1.5)])
    assert losses.grad is not None
    torch.testing.assert_close(losses.grad, expected)


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
