"""Every number of a training run."""

import math
from dataclasses import dataclass
from typing import get_args

from ortho_edge.components import Granularity
from ortho_edge.training.losses import LossWeighting


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Hyperparameters; the defaults are the paper's for LibriSpeech (section 4)."""

    num_steps: int
    targets: tuple[float | str, ...]
    """Sizes besides the full network: shares of its cost, the largest first, or what a device
    allows, such as `pixel8@8ms` of latency or `pixel8@12MB` of memory."""
    criterion: str = "flops"
    """The cost that shares are of: `flops`, `params`, `latency:DEVICE` or `memory:DEVICE`."""
    granularity: Granularity = "component"
    method: str = "orthosoftmax"
    """How subnets are chosen; `ortho_edge.training.selection.METHODS` has them by name."""
    kept: tuple[int, ...] | None = None
    """Components of the size that method `alone` trains; by default alike in every block."""
    zero_outs: int = 100
    """How often method `zero-out` zeroes groups in stage 1."""
    stage1_fraction: float = 0.6
    """Share of the updates that learn the selection."""
    loss_weighting: LossWeighting = "focal"
    """How the subnets' CTC losses are weighed against the full network's: as released, `detached`
    (its factor left out of the gradient) or `constant`."""
    distill: float = 0.0
    """Weight of the subnets' divergence from the full network's posteriors; 0 for none."""
    any_budget: bool = False
    """Stage 2 draws its middle subnets along the nested order, not among the targets alone."""
    seed: int = 1

    batch_seconds: float = 150.0
    """Audio per update."""
    num_buckets: int = 10

    initial_learning_rate: float = 4e-6
    peak_learning_rate: float = 4e-4
    late_learning_rate: float = 4e-5
    final_learning_rate: float = 1e-8
    cycle_fractions: tuple[float, float, float] = (0.44, 0.44, 0.12)
    """Shares of the updates that rise to the peak, fall to the late and to the final rate."""
    score_learning_rate_factor: float = 1.0
    """Rate of the scores over that of the weights; short runs need more than 1."""
    weight_decay: float = 1e-3
    adam_epsilon: float = 1e-16
    max_gradient_norm: float = 5.0

    initial_temperature: float = 2.0
    final_temperature: float = 0.06
    """Annealed geometrically over stage 1, by the fraction done, so any length ends decided."""

    ffn_dropout: float = 0.1
    attention_dropout: float = 0.1
    residual_dropout: float = 0.1
    layer_drop: float = 0.1

    alignment_fraction: float = 0.0
    """Share of the updates over which the cross-entropy of aligned frames fades out; 0 for none."""

    log_every: int = 20
    evaluate_every: int = 1000
    save_every: int = 500

    def __post_init__(self) -> None:
        """Raises ValueError naming the field, the value and the rule."""
        if self.num_steps < 2:
            raise ValueError(f"num_steps must be at least 2, not {self.num_steps}")
        shares = [target for target in self.targets if not isinstance(target, str)]
        if not self.targets or not all(0 < share < 1 for share in shares):
            raise ValueError(f"targets must be shares between 0 and 1, not {self.targets}")
        if shares != sorted(set(shares), reverse=True):
            raise ValueError(f"targets must fall, the largest first, not {self.targets}")
        if len(set(self.targets)) < len(self.targets):
            raise ValueError(f"a target is named twice: {self.targets}")
        if self.zero_outs < 1:
            raise ValueError(f"zero_outs must be at least 1, not {self.zero_outs}")
        if self.kept is not None and self.method != "alone":
            raise ValueError(f"only method alone trains a given subnet, not {self.method}")
        if self.loss_weighting not in get_args(LossWeighting):
            raise ValueError(
                f"loss_weighting must be one of {', '.join(get_args(LossWeighting))}, "
                f"not {self.loss_weighting!r}"
            )
        if not 0 <= self.distill < math.inf:
            raise ValueError(f"distill must be 0 or more, not {self.distill}")
        if not 0 < self.stage1_fraction < 1:
            raise ValueError(f"stage1_fraction must be between 0 and 1, not {self.stage1_fraction}")
        if abs(sum(self.cycle_fractions) - 1) > 1e-6 or min(self.cycle_fractions) < 0:
            raise ValueError(f"cycle_fractions must add up to 1, not {self.cycle_fractions}")
        if not self.initial_temperature >= self.final_temperature > 0:
            raise ValueError(
                f"temperature must fall and stay above 0, not from {self.initial_temperature} "
                f"to {self.final_temperature}"
            )

    @property
    def stage1_steps(self) -> int:
        """Updates of stage 1."""
        return min(max(1, round(self.num_steps * self.stage1_fraction)), self.num_steps - 1)
