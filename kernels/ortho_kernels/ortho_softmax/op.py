"""The soft choice of components that training calls: Triton kernels or plain torch.

No GPU has measured these kernels against `torch.compile` yet, so `auto` takes plain torch: no table
of a GPU says otherwise. `ORTHO_KERNELS=triton` takes the kernels, for scores in float32.
"""

import torch
from torch import Tensor

from ortho_kernels import dispatch
from ortho_kernels.ortho_softmax import reference

MAXIMUM_GROUPS = 1024
"""Whole rows of wider scores do not fit into registers."""


def ortho_softmax(
    scores: Tensor, costs: Tensor, temperature: float, rest: float, target: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The soft gates of one target (paper, section 3).

    Args:
        scores: (G, G), a row for each slot.
        costs: (G,), cast to the dtype of the scores; it gets no gradient.
        temperature: Of the softmaxes.
        rest: Cost that every subnet pays.
        target: Cost aimed at, in the unit of `costs`.

    Returns:
        Gates (G,), the sum of the leading rows; how many these are, a scalar of int64 on the
        device; their orthogonality penalty, a scalar.
    """
    fits = scores.dtype == torch.float32 and scores.shape[0] <= MAXIMUM_GROUPS
    if not fits or dispatch.backend("ortho_softmax", scores.device) == "reference":
        return reference.ortho_softmax(scores, costs, temperature, rest, target)
    costs = costs.detach().to(scores)
    return forward(scores, costs, temperature, rest, target)[:3]


def launch_forward(
    scores: Tensor, costs: Tensor, temperature: float, rest: float, target: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gates, number of leading rows and penalty; what the backward pass needs besides."""
    from ortho_kernels.ortho_softmax.triton import select

    return select(scores.contiguous(), costs.contiguous(), temperature, rest, target)


forward = torch.library.custom_op("ortho::ortho_softmax", launch_forward, mutates_args=())


@forward.register_fake
def _(scores, costs, temperature, rest, target):
    num_rows, penalty = scores.new_empty((), dtype=torch.int64), scores.new_empty(())
    square = scores.shape
    return (
        scores.new_empty(costs.shape), num_rows, penalty, scores.new_empty(square),
        scores.new_empty(square),
    )  # fmt: skip


def launch_backward(
    probabilities: Tensor,
    gram: Tensor,
    num_rows: Tensor,
    penalty: Tensor,
    d_gates: Tensor,
    d_penalty: Tensor,
    temperature: float,
) -> Tensor:
    """Gradient of the scores."""
    from ortho_kernels.ortho_softmax.triton import select_backward

    return select_backward(
        probabilities, gram, num_rows, penalty, d_gates.contiguous(), d_penalty, temperature
    )


backward = torch.library.custom_op(
    "ortho::ortho_softmax_backward", launch_backward, mutates_args=()
)


@backward.register_fake
def _(probabilities, gram, num_rows, penalty, d_gates, d_penalty, temperature):
    return torch.empty_like(probabilities)


def _setup_context(ctx, inputs, output) -> None:
    ctx.set_materialize_grads(False)  # that of the probabilities is never used
    ctx.temperature = inputs[2]
    _, num_rows, penalty, probabilities, gram = output
    ctx.save_for_backward(probabilities, gram, num_rows, penalty)


def _backward(
    ctx, d_gates: Tensor | None, _rows: None, d_penalty: Tensor | None, *_: None
) -> tuple[Tensor | None, ...]:
    probabilities, gram, num_rows, penalty = ctx.saved_tensors
    if d_gates is None:
        d_gates = probabilities.new_zeros(probabilities.shape[0])
    if d_penalty is None:
        d_penalty = torch.zeros_like(penalty)
    d_scores = backward(probabilities, gram, num_rows, penalty, d_gates, d_penalty, ctx.temperature)
    return d_scores, None, None, None, None


forward.register_autograd(_backward, setup_context=_setup_context)
