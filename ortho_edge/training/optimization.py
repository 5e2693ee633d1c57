"""What is optimised and how: the supernet, the scores of its selection, AdamW."""

import torch
from torch import nn

from ortho_edge.supernet import Supernet
from ortho_edge.training.config import TrainingConfig
from ortho_edge.training.selection import Selection


class SupernetTraining(nn.Module):
    """What the optimiser sees: the supernet and the scores of its selection."""

    def __init__(self, supernet: Supernet, selection: Selection) -> None:
        super().__init__()
        self.supernet = supernet
        self.selection = selection


def make_optimizer(model: SupernetTraining, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only and a rate of its own for the scores."""
    matrices = [p for p in model.supernet.parameters() if p.ndim > 1]
    vectors = [p for p in model.supernet.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay, "factor": 1.0},
        {"params": vectors, "weight_decay": 0.0, "factor": 1.0},
        {
            "params": list(model.selection.parameters()),
            "weight_decay": 0.0,
            "factor": config.score_learning_rate_factor,
        },
    ]
    return torch.optim.AdamW(groups, lr=config.peak_learning_rate, eps=config.adam_epsilon)
