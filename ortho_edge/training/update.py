"""One update: all its subnets forward at once, their losses, one backward, AdamW."""

import logging
import math

import numpy as np
import torch
from torch import nn

from ortho_edge.data.dataset import Batch
from ortho_edge.supernet import Regularization
from ortho_edge.training.config import TrainingConfig
from ortho_edge.training.losses import combine, ctc_losses, distillation_losses, frame_losses
from ortho_edge.training.optimization import SupernetTraining
from ortho_edge.training.schedules import alignment_weight, learning_rate
from ortho_edge.training.subnet_sampling import Step

logger = logging.getLogger(__name__)


def update(
    model: SupernetTraining,
    optimizer: torch.optim.Optimizer,
    config: TrainingConfig,
    batch: Batch,
    chosen: Step,
    regularization: Regularization,
    step: int,
) -> dict[str, float]:
    """Does update `step` and returns what the log says of it.

    Args:
        model: What `optimizer` changes.
        optimizer: Its learning rates are set for the update.
        config: Hyperparameters.
        batch: On the model's device.
        chosen: The subnets.
        regularization: Dropout, drawn from (seed, step) alone.
        step: Updates done before.
    """
    torch.manual_seed(int(np.random.SeedSequence((config.seed, step)).generate_state(1)[0]))
    for group in optimizer.param_groups:
        group["lr"] = group["factor"] * learning_rate(config, step)
    device = batch.features.device
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        log_probs, lengths = model.supernet(
            batch.features,
            batch.feature_lengths,
            chosen.gates,
            chosen.heads,
            regularization,
            model.supernet.plan(chosen.computed, device),
        )
    losses = ctc_losses(log_probs, lengths, batch.tokens, batch.token_lengths)
    loss = combine(losses)
    if (weight := alignment_weight(config, step)) > 0:
        loss = loss + weight * frame_losses(log_probs, batch.frame_targets).sum()
    numbers = {"learning_rate": learning_rate(config, step), **chosen.numbers}
    numbers |= {f"loss/{name}": one.item() for name, one in zip(chosen.names, losses, strict=True)}
    if config.distill > 0:
        divergence = distillation_losses(log_probs, lengths)
        loss = loss + config.distill * divergence.sum()
        numbers["loss/distill"] = divergence.mean().item()
    if chosen.penalty is not None:
        loss = loss + chosen.penalty
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.supernet.parameters(), config.max_gradient_norm)
    numbers["gradient_norm"] = norm.item()
    if not math.isfinite(norm.item()):
        logger.warning("step %d: the gradient is not finite, update left out", step)
        return numbers
    optimizer.step()
    return numbers
