"""Plain torch: softmax rows, the leading ones for a target, their gates and their penalty."""

import torch
from torch import Tensor

PENALTY_EPSILON = 1e-12
"""Inside the penalty's square root, whose gradient is infinite at the orthogonality it aims for."""


def row_probabilities(scores: Tensor, temperature: float) -> Tensor:
    """P (G, G): the softmax of each row of scores over the columns."""
    return torch.softmax(scores / temperature, dim=-1)


def leading_rows(probabilities: Tensor, costs: Tensor, rest: float, target: float) -> Tensor:
    """Number of leading rows whose cumulated expected cost plus `rest` is nearest to `target`.

    Args:
        probabilities: (G, G).
        costs: (G,) in the unit of `rest` and `target`.
        rest: Cost that every subnet pays.
        target: Cost aimed at.

    Returns:
        Scalar of int64 on the device.
    """
    expected = rest + (probabilities.detach() @ costs.to(probabilities)).cumsum(0)
    return (expected - target).abs().argmin() + 1


def orthogonality_penalty(rows: Tensor) -> Tensor:
    """sqrt(sum_{i<j} G_ij^2 + sum_i (G_ii - 1)^2) with G = rows rows^T, for rows (k, G)."""
    gram = rows @ rows.T
    off_diagonal = gram.triu(diagonal=1).square().sum()
    diagonal = (gram.diagonal() - 1).square().sum()
    return torch.sqrt(off_diagonal + diagonal + PENALTY_EPSILON)


def ortho_softmax(
    scores: Tensor, costs: Tensor, temperature: float, rest: float, target: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The soft gates of one target.

    Args:
        scores: (G, G), a row for each slot.
        costs: (G,).
        temperature: Of the softmaxes.
        rest: Cost that every subnet pays.
        target: Cost aimed at, in the unit of `costs`.

    Returns:
        Gates (G,), the sum of the leading rows; how many these are; their penalty.
    """
    probabilities = row_probabilities(scores, temperature)
    num_rows = leading_rows(probabilities, costs, rest, target)
    rows = probabilities[: int(num_rows)]
    return rows.sum(0), num_rows, orthogonality_penalty(rows)
