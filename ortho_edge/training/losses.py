"""CTC losses of stacked subnets and how they are weighed against each other."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def ctc_losses(
    log_probs: Tensor,
    lengths: Tensor,
    tokens: Tensor,
    token_lengths: Tensor,
    num_frames: int | None = None,
) -> Tensor:
    """CTC loss per encoder frame of each subnet.

    Args:
        log_probs: (S, B, T', V).
        lengths: (B,) encoder frames.
        tokens: (sum of token_lengths,) labels of the batch, one utterance after the other.
        token_lengths: (B,).
        num_frames: To divide by, where these utterances are a part of a batch; by default theirs.

    Returns:
        (S,): the summed loss over the summed frames.
    """
    num_subnets = log_probs.shape[0]
    losses = F.ctc_loss(
        log_probs.flatten(0, 1).transpose(0, 1).float(),
        tokens.repeat(num_subnets),
        lengths.repeat(num_subnets),
        token_lengths.repeat(num_subnets),
        blank=0,
        reduction="none",
    )
    return losses.view(num_subnets, -1).sum(1) / (num_frames or lengths.sum())


def frame_losses(log_probs: Tensor, frame_targets: Tensor, num_known: int | None = None) -> Tensor:
    """Cross-entropy of the frames whose symbol is known, averaged over them.

    CTC alone may stay for thousands of updates where every frame says blank; a few words whose
    place is known lead out of there.

    Args:
        log_probs: (S, B, T', V).
        frame_targets: (B, T'); negative where unknown.
        num_known: To divide by, where these utterances are a part of a batch; by default theirs.

    Returns:
        (S,); 0 where no frame is known.
    """
    known = frame_targets >= 0
    if not bool(known.any()):
        return log_probs.new_zeros(log_probs.shape[0])
    picked = log_probs[:, known].float()  # (S, known frames, V)
    picked = picked.gather(-1, frame_targets[known].expand(len(picked), -1)[..., None])
    return -picked.sum((1, 2)) / (num_known or picked.shape[1])


def distillation_losses(
    log_probs: Tensor, lengths: Tensor, num_frames: int | None = None
) -> Tensor:
    """Divergence per frame of each subnet from the full network, its teacher (first).

    Every frame counts, those where the teacher says blank too. The gradient at a frame is the
    difference of the two posteriors, so where both are sure of blank there is none, and the rest
    tells the subnet where its spikes must not stand. Leaving out blank frames pays, if at all,
    where teacher and student disagree on when to spike; those that share layers and learn at
    the same time agree (arXiv 2406.07909, and 2506.01503 on how fragile leaving out is). The mean
    is over the same frames as CTC's, whose gradient has the same form, so weights compare.

    Args:
        log_probs: (S, B, T', V); nothing flows back into the first row.
        lengths: (B,) encoder frames.
        num_frames: To divide by, where these utterances are a part of a batch; by default theirs.

    Returns:
        (S - 1,): KL(teacher || subnet) summed over an utterance's frames, over the summed frames.
    """
    teacher = log_probs[:1].detach()
    divergence = (teacher.exp() * (teacher - log_probs[1:])).sum(-1)  # (S - 1, B, T')
    beyond = torch.arange(log_probs.shape[2], device=lengths.device) >= lengths[:, None]
    return divergence.masked_fill(beyond, 0).sum((1, 2)) / (num_frames or lengths.sum())


LossWeighting = Literal["focal", "detached", "constant"]
"""How a subnet's CTC loss L is weighed against the full network's, whose weight is 1.

`focal` is what was released with the paper: L is multiplied by 1 - exp(-L) and the gradient goes
through that factor too. `detached` leaves the factor out of the gradient, so that late in training,
at losses of 0.05, subnets hardly learn. `constant` is 1.
"""


def subnet_weights(losses: Tensor, weighting: LossWeighting) -> Tensor:
    """What the gradient of each loss counts, as constants: 1 for the full network (first).

    The gradient of (1 - exp(-L)) L is 1 - exp(-L) + L exp(-L) times that of L, so the factor's own
    gradient needs no graph, and a batch may be computed in parts.

    Args:
        losses: (S,), of the whole batch.
        weighting: Of the subnets.
    """
    losses = losses.detach()
    weights = torch.ones_like(losses) if weighting == "constant" else -torch.expm1(-losses)
    if weighting == "focal":
        weights = weights + losses * torch.exp(-losses)
    weights[0] = 1.0
    return weights
