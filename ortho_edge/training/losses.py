"""CTC losses of stacked subnets and how they are weighed against each other."""

import torch
import torch.nn.functional as F
from torch import Tensor


def ctc_losses(log_probs: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> Tensor:
    """CTC loss per encoder frame of each subnet.

    Args:
        log_probs: (S, B, T', V).
        lengths: (B,) encoder frames.
        tokens: (sum of token_lengths,) labels of the batch, one utterance after the other.
        token_lengths: (B,).

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
    return losses.view(num_subnets, -1).sum(1) / lengths.sum()


def frame_losses(log_probs: Tensor, frame_targets: Tensor) -> Tensor:
    """Cross-entropy of the frames whose symbol is known, averaged over them.

    CTC alone may stay for thousands of updates where every frame says blank; a few words whose
    place is known lead out of there.

    Args:
        log_probs: (S, B, T', V).
        frame_targets: (B, T'); negative where unknown.

    Returns:
        (S,); 0 where no frame is known.
    """
    known = frame_targets >= 0
    if not bool(known.any()):
        return log_probs.new_zeros(log_probs.shape[0])
    picked = log_probs[:, known].float()  # (S, known frames, V)
    return -picked.gather(-1, frame_targets[known].expand(len(picked), -1)[..., None]).mean((1, 2))


def combine(losses: Tensor) -> Tensor:
    """Weight 1 for the full network (first), `1 - exp(-loss)` for each subnet (section 4).

    The weights are constants to the gradient: a subnet that is already good pulls less.
    """
    weights = -torch.expm1(-losses.detach())
    weights[0] = 1.0
    return (weights * losses).sum()
