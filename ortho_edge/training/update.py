"""One update: all its subnets forward at once, their losses, one backward, AdamW.

The batch of an update may be spread over processes, and each may take its share in parts. Losses
are divided by the frames of the whole batch, so their sum and its gradient do not depend on how it
is spread, but for rounding and for what dropout draws.
"""

import logging
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ortho_edge.data.dataset import Batch
from ortho_edge.supernet import Regularization
from ortho_edge.training.config import TrainingConfig
from ortho_edge.training.distributed import Ranks
from ortho_edge.training.losses import (
    ctc_losses,
    distillation_losses,
    frame_losses,
    subnet_weights,
)
from ortho_edge.training.optimization import SupernetTraining
from ortho_edge.training.parts import BatchCounts, silence, split
from ortho_edge.training.schedules import alignment_weight, learning_rate
from ortho_edge.training.subnet_sampling import Step

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Updater:
    """Does the updates of a run.

    Attributes:
        model: What `optimizer` changes.
        network: Its supernet, perhaps compiled and with gradients reduced over processes.
        optimizer: Its learning rates are set for every update.
        config: Hyperparameters.
        ranks: The processes that share every batch.
        accumulate: Parts in which each takes its share.
    """

    model: SupernetTraining
    network: nn.Module
    optimizer: torch.optim.Optimizer
    config: TrainingConfig
    ranks: Ranks
    accumulate: int

    def update(
        self, batch: Batch, counts: BatchCounts, chosen: Step, rates: Regularization, step: int
    ) -> dict[str, float]:
        """Does update `step` and returns what the log says of it.

        Args:
            batch: What this process has of the batch.
            counts: Of the whole batch.
            chosen: The subnets.
            rates: Dropout, drawn from (seed, step, process, part) alone.
            step: Updates done before.
        """
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = group["factor"] * learning_rate(config, step)
        self.optimizer.zero_grad(set_to_none=True)
        numbers = {"learning_rate": learning_rate(config, step), **chosen.numbers}
        numbers |= self._backward(batch, counts, chosen, rates, step)
        norm = nn.utils.clip_grad_norm_(self.model.supernet.parameters(), config.max_gradient_norm)
        numbers["gradient_norm"] = norm.item()
        if not math.isfinite(norm.item()):
            logger.warning("step %d: the gradient is not finite, update left out", step)
            return numbers
        self.optimizer.step()
        return numbers

    def _backward(
        self, batch: Batch, counts: BatchCounts, chosen: Step, rates: Regularization, step: int
    ) -> dict[str, float]:
        """Leaves the gradients of the whole batch's losses and returns these by name."""
        device = chosen.gates.device
        parts = [one.to(device) for one in split(batch, self.accumulate)]
        weights = self._weights_in_advance(parts, counts, chosen, rates, step)
        # A process without utterances takes part in the reduction all the same, with zeros.
        present = 1 if parts else 0
        parts = parts or [silence().to(device)]
        # The parts share the graph behind the gates, which is gone through once, at the end.
        gates = chosen.gates.detach().requires_grad_(chosen.gates.requires_grad)
        forward = replace(chosen, gates=gates)
        sums = torch.zeros(2, len(chosen.heads), device=device)
        for number, part in enumerate(parts):
            with self._reducing(number == len(parts) - 1):
                log_probs, lengths = self._forward(part, number, forward, rates, step)
                losses = present * self._ctc(log_probs, lengths, part, counts)
                if weights is None:
                    weights = subnet_weights(self.ranks.total(losses), self.config.loss_weighting)
                loss, divergence = self._sum(
                    losses, weights, log_probs, lengths, part, counts, step
                )
                # Reduction takes the mean over processes; the sum is wanted.
                (self.ranks.count * present * loss).backward()
            sums[0] += losses.detach()
            sums[1, 1:] += present * divergence
        self._backward_to_scores(chosen, gates)
        losses, divergence = self.ranks.total(sums)
        numbers = {f"loss/{name}": x.item() for name, x in zip(chosen.names, losses, strict=True)}
        if self.config.distill > 0:
            numbers["loss/distill"] = divergence[1:].mean().item()
        return numbers

    def _weights_in_advance(
        self,
        parts: Sequence[Batch],
        counts: BatchCounts,
        chosen: Step,
        rates: Regularization,
        step: int,
    ) -> Tensor | None:
        """The weights of the subnets, where the first part's backward comes before the last loss.

        They depend on the losses of the whole batch, so these are computed without a gradient
        first, by the subnets alone: the full network's weight is known.
        """
        if self.accumulate == 1:
            return None
        if self.config.loss_weighting == "constant":
            return torch.ones(len(chosen.heads), device=chosen.gates.device)
        losses = torch.zeros(len(chosen.heads), device=chosen.gates.device)
        if len(chosen.heads) > 1:
            subnets = replace(
                chosen,
                gates=chosen.gates[1:].detach(),
                heads=chosen.heads[1:],
                computed=chosen.computed[1:],
            )
            rates = replace(rates, droppable=rates.droppable[1:])
            with torch.no_grad():
                for number, part in enumerate(parts):
                    log_probs, lengths = self._forward(part, number, subnets, rates, step)
                    losses[1:] += self._ctc(log_probs, lengths, part, counts)
            losses = self.ranks.total(losses)
        return subnet_weights(losses, self.config.loss_weighting)

    def _forward(
        self, part: Batch, number: int, chosen: Step, rates: Regularization, step: int
    ) -> tuple[Tensor, Tensor]:
        # Of the first part of the first process: numpy takes what is missing for zeros.
        entropy = (self.config.seed, step, self.ranks.rank * self.accumulate + number)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        device = part.features.device
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return self.network(
                part.features,
                part.feature_lengths,
                chosen.gates,
                chosen.heads,
                rates,
                self.model.supernet.plan(chosen.computed, device),
            )

    def _ctc(self, log_probs: Tensor, lengths: Tensor, part: Batch, counts: BatchCounts) -> Tensor:
        return ctc_losses(log_probs, lengths, part.tokens, part.token_lengths, counts.frames)

    def _sum(
        self,
        losses: Tensor,
        weights: Tensor,
        log_probs: Tensor,
        lengths: Tensor,
        part: Batch,
        counts: BatchCounts,
        step: int,
    ) -> tuple[Tensor, Tensor]:
        """What a part adds to the sum of all losses, and the divergences (S - 1,) in it."""
        loss = (weights * losses).sum()
        if (weight := alignment_weight(self.config, step)) > 0:
            loss = loss + weight * frame_losses(log_probs, part.frame_targets, counts.known).sum()
        if self.config.distill == 0:
            return loss, losses.new_zeros(len(losses) - 1)
        divergence = distillation_losses(log_probs, lengths, counts.frames)
        return loss + self.config.distill * divergence.sum(), divergence.detach()

    def _backward_to_scores(self, chosen: Step, gates: Tensor) -> None:
        """From the gates' gradient, summed over parts and processes, and from the penalty."""
        ends, gradients = [], []
        if chosen.gates.requires_grad:
            assert gates.grad is not None
            ends.append(chosen.gates)
            gradients.append(self.ranks.total(gates.grad) / self.ranks.count)
        if chosen.penalty is not None:
            ends.append(chosen.penalty)
            gradients.append(torch.ones_like(chosen.penalty))
        if ends:
            torch.autograd.backward(ends, gradients)

    def _reducing(self, is_last: bool) -> AbstractContextManager[None]:
        """Gradients are reduced once an update, in the backward of the last part."""
        if isinstance(self.network, DistributedDataParallel) and not is_last:
            return self.network.no_sync()
        return nullcontext()
