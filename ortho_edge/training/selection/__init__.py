"""How a run chooses its subnets: OrthoSoftmax and what it is compared with, one module each."""

from collections.abc import Callable, Sequence

from ortho_edge.ortho_softmax import SelectionProblem, Target
from ortho_edge.training.config import TrainingConfig
from ortho_edge.training.selection.base import Frozen, Selection
from ortho_edge.training.selection.fixed import (
    alone,
    full_network,
    random_nested,
    truncated,
)
from ortho_edge.training.selection.orthosoftmax import OrthoSoftmax
from ortho_edge.training.selection.top_k import SimpleTopK
from ortho_edge.training.selection.zero_out import IterativeZeroOut

__all__ = ["METHODS", "Frozen", "Selection", "make_selection"]

METHODS: dict[
    str, Callable[[SelectionProblem, TrainingConfig, tuple[Target, ...]], Selection]
] = {
    "orthosoftmax": OrthoSoftmax,
    "top-k": SimpleTopK,
    "zero-out": IterativeZeroOut,
    "aux-loss": truncated,
    "random": random_nested,
    "alone": alone,
    "full": full_network,
}  # fmt: skip


def make_selection(
    problem: SelectionProblem, config: TrainingConfig, targets: Sequence[Target]
) -> Selection:
    """The selection that `config.method` names.

    Raises:
        ValueError: The method is unknown, or cannot do what the configuration asks of it.
    """
    if config.method not in METHODS:
        raise ValueError(f"unknown method {config.method!r}; known: {', '.join(METHODS)}")
    selection = METHODS[config.method](problem, config, tuple(targets))
    if not selection.targets and (config.distill or config.any_budget):
        wanted = "distill into" if config.distill else "train between"
        raise ValueError(f"method {config.method} trains a single network: no subnets to {wanted}")
    return selection
