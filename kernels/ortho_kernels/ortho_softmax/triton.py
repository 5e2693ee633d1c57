"""The soft choice in two kernels forward and one backward.

Rows stay in registers: a program owns BLOCK_I whole rows. Which rows lead is known only once all
expected costs are; every program of the second kernel then cumulates them itself, at no cost next
to the Gram matrix, so nothing waits for the host. Sums over programs are finished by torch.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ortho_kernels.launch import launch_config, start
from ortho_kernels.ortho_softmax.reference import PENALTY_EPSILON


@triton.jit
def load_rows(rows, first, limit, G, BLOCK: tl.constexpr, BLOCK_G: tl.constexpr):
    """Rows `first` and following of (G, G); 0 from row `limit` on."""
    row = first + tl.arange(0, BLOCK)
    column = tl.arange(0, BLOCK_G)
    inside = (row < limit)[:, None] & (column < G)[None, :]
    return tl.load(rows + row[:, None] * G + column[None, :], mask=inside, other=0.0)


@triton.jit
def ortho_softmax_rows_kernel(
    scores, costs, probabilities, expected, temperature, G,
    BLOCK_I: tl.constexpr, BLOCK_G: tl.constexpr,
):  # fmt: skip
    """Softmax of BLOCK_I rows, and the cost that each is expected to choose."""
    row = tl.program_id(0) * BLOCK_I + tl.arange(0, BLOCK_I)
    column = tl.arange(0, BLOCK_G)
    given = load_rows(scores, tl.program_id(0) * BLOCK_I, G, G, BLOCK_I, BLOCK_G)
    given = tl.where((column < G)[None, :], given / temperature, -float("inf"))
    powers = tl.exp(given - tl.max(given, 1, keep_dims=True))
    share = powers / tl.sum(powers, 1, keep_dims=True)
    cost = tl.load(costs + column, mask=column < G, other=0.0)
    inside = (row < G)[:, None] & (column < G)[None, :]
    tl.store(probabilities + row[:, None] * G + column[None, :], share, mask=inside)
    tl.store(expected + row, tl.sum(share * cost[None, :], 1), mask=row < G)


@triton.jit
def ortho_softmax_gram_kernel(
    probabilities, expected, gram, sums, num_rows, rest, target, G,
    BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_G: tl.constexpr,
):  # fmt: skip
    """BLOCK_I rows of the leading rows' Gram matrix, and their shares of the sums over rows.

    These are the gates and the square of the penalty, (programs, G + 1).
    """
    column = tl.arange(0, BLOCK_G)
    cost = tl.load(expected + column, mask=column < G, other=0.0)
    gap = tl.where(column < G, tl.abs(rest + tl.cumsum(cost, 0) - target), float("inf"))
    leading = tl.argmin(gap, 0) + 1

    first = tl.program_id(0) * BLOCK_I
    rows = load_rows(probabilities, first, leading, G, BLOCK_I, BLOCK_G)
    i = first + tl.arange(0, BLOCK_I)[:, None]
    squares = tl.zeros((BLOCK_I, BLOCK_J), tl.float32)
    for start_j in range(0, tl.where(first < leading, leading, 0), BLOCK_J):
        others = load_rows(probabilities, start_j, leading, G, BLOCK_J, BLOCK_G)
        product = tl.dot(rows, tl.trans(others), input_precision="ieee")
        j = start_j + tl.arange(0, BLOCK_J)[None, :]
        tl.store(gram + i * G + j, product, mask=(i < leading) & (j < leading))
        error = tl.where(i == j, product - 1, tl.where(i < j, product, 0.0))
        squares += tl.where(i < leading, error * error, 0.0)
    share = sums + tl.program_id(0) * (G + 1)
    tl.store(share + column, tl.sum(rows, 0), mask=column < G)
    tl.store(share + G, tl.sum(tl.sum(squares, 1), 0))
    tl.store(num_rows, leading.to(tl.int64), mask=tl.program_id(0) == 0)


@triton.jit
def ortho_softmax_backward_kernel(
    probabilities, gram, num_rows, penalty, d_gates, d_penalty, d_scores, temperature, G,
    BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_G: tl.constexpr,
):  # fmt: skip
    """One tile of the gradient of the scores; 0 for rows that do not lead.

    That of a leading row i is d_gates + d_penalty / penalty * (sum over j of V_ij row_j), where V
    is the Gram matrix with 2 (G_ii - 1) on its diagonal. The softmax takes from it its product with
    the row, which is known without the other tiles: row_j row_i is G_ij.
    """
    first = tl.program_id(0) * BLOCK_I
    leading = tl.load(num_rows).to(tl.int32)
    factor = tl.load(d_penalty) / tl.load(penalty)
    i = first + tl.arange(0, BLOCK_I)[:, None]
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]
    d_rows = tl.zeros((BLOCK_I, BLOCK_C), tl.float32)
    along = tl.zeros((BLOCK_I, BLOCK_J), tl.float32)
    for start_j in range(0, tl.where(first < leading, leading, 0), BLOCK_J):
        j = start_j + tl.arange(0, BLOCK_J)
        inside = (i < leading) & (j < leading)[None, :]
        product = tl.load(gram + i * G + j[None, :], mask=inside, other=0.0)
        weight = tl.where(i == j[None, :], 2 * (product - 1), product)
        along += weight * product
        others = tl.load(
            probabilities + j[:, None] * G + column,
            mask=(j < leading)[:, None] & (column < G), other=0.0,
        )  # fmt: skip
        d_rows = tl.dot(weight, others, d_rows, input_precision="ieee")
    everywhere = tl.arange(0, BLOCK_G)
    gates = tl.load(d_gates + everywhere, mask=everywhere < G, other=0.0)
    rows = load_rows(probabilities, first, leading, G, BLOCK_I, BLOCK_G)
    mean = factor * tl.sum(along, 1, keep_dims=True)
    mean += tl.sum(rows * gates[None, :], 1, keep_dims=True)
    d_rows = factor * d_rows + tl.load(d_gates + column, mask=column < G, other=0.0)
    inside = (i < leading) & (column < G)
    share = tl.load(probabilities + i * G + column, mask=inside, other=0.0)
    d_given = share * (d_rows - mean) / temperature
    tl.store(d_scores + i * G + column, d_given, mask=(i < G) & (column < G))


def select(
    scores: Tensor, costs: Tensor, temperature: float, rest: float, target: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gates (G,), number of leading rows (), penalty (), probabilities and Gram matrix (G, G).

    Args:
        scores: (G, G) in float32, contiguous.
        costs: (G,) in float32, contiguous.
        temperature: Of the softmaxes.
        rest: Cost that every subnet pays.
        target: Cost aimed at, in the unit of `costs`.
    """
    groups = scores.shape[0]
    width = max(triton.next_power_of_2(groups), 16)
    probabilities, expected = torch.empty_like(scores), torch.empty_like(costs)
    config = launch_config("ortho_softmax_rows", scores.device, scores.dtype, groups)
    programs = triton.cdiv(groups, config.blocks["BLOCK_I"])
    start(
        ortho_softmax_rows_kernel, (programs,), config,
        scores, costs, probabilities, expected, temperature, groups, BLOCK_G=width,
    )  # fmt: skip
    config = launch_config("ortho_softmax_gram", scores.device, scores.dtype, groups)
    programs = triton.cdiv(groups, config.blocks["BLOCK_I"])
    gram = torch.zeros_like(scores)  # only its leading part is written
    sums = scores.new_empty(programs, groups + 1)
    num_rows = torch.empty((), dtype=torch.int64, device=scores.device)
    start(
        ortho_softmax_gram_kernel, (programs,), config,
        probabilities, expected, gram, sums, num_rows, rest, target, groups, BLOCK_G=width,
    )  # fmt: skip
    total = sums.sum(0)
    penalty = torch.sqrt(total[groups] + PENALTY_EPSILON)
    return total[:groups].clone(), num_rows, penalty, probabilities, gram


def select_backward(
    probabilities: Tensor,
    gram: Tensor,
    num_rows: Tensor,
    penalty: Tensor,
    d_gates: Tensor,
    d_penalty: Tensor,
    temperature: float,
) -> Tensor:
    """Gradient of the scores (G, G).

    Args:
        probabilities: (G, G), as `select` gave them.
        gram: (G, G), likewise.
        num_rows: (), likewise.
        penalty: (), likewise.
        d_gates: (G,), contiguous.
        d_penalty: ().
        temperature: Of the softmaxes.
    """
    groups = probabilities.shape[0]
    config = launch_config("ortho_softmax_backward", d_gates.device, d_gates.dtype, groups)
    d_scores = torch.empty_like(probabilities)
    blocks = config.blocks
    start(
        ortho_softmax_backward_kernel,
        (triton.cdiv(groups, blocks["BLOCK_I"]), triton.cdiv(groups, blocks["BLOCK_C"])), config,
        probabilities, gram, num_rows, penalty, d_gates, d_penalty, d_scores, temperature, groups,
        BLOCK_G=max(triton.next_power_of_2(groups), 16),
    )  # fmt: skip
    return d_scores
