"""What a subnet costs on a device, and how that stands against the limits of a budget."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ortho_edge.checkpoint import TrainedSubnet
from ortho_edge.components import ComponentSpace
from ortho_edge.devices.filter_banks import FEATURES_IN, Input, filter_bank_flops
from ortho_edge.devices.latency import (
    MEMORY_BASIS,
    Prediction,
    figured_precision,
    predict_footprint,
    predict_latency,
)
from ortho_edge.devices.profile import Budget, DeviceProfile, Provenance

METRIC, CHARACTER_METRIC = "dev_wer", "dev_cer"
_WORDS = {
    "latency_ms": ("latency", " ms"),
    "memory_mb": ("memory", " MB"),
    "size_mb": ("file size", " MB"),
    "params": ("parameters", ""),
    "flops": ("FLOPs", ""),
}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A subnet with everything that a budget can limit.

    Attributes:
        trained: The subnet; one that was composed has no metrics.
        flops: For the budget's audio length.
        flops_share: Of the full network.
        latency: Prediction per runtime.
        memory_mb: Of the runtime that needs most, like `size_mb` and `planned_mb`.
        planned_mb: The part of the memory that a runtime plans ahead, for the longest input.
        memory_provenance: How that figure came about.
    """

    trained: TrainedSubnet
    params: int
    flops: float
    flops_share: float
    latency: tuple[Prediction, ...]
    memory_mb: float
    memory_provenance: Provenance
    size_mb: float
    planned_mb: float = 0.0

    @property
    def latency_ms(self) -> float:
        """Latency of the slowest runtime, the median of many calls."""
        return max(prediction.p50_milliseconds for prediction in self.latency)

    @property
    def memory_basis(self) -> str:
        """What the memory rests on, in words."""
        return MEMORY_BASIS[self.memory_provenance]

    @property
    def error_rate(self) -> float | None:
        """Dev WER in per cent; None where training recorded none."""
        return self._recorded(METRIC)

    @property
    def character_error_rate(self) -> float | None:
        """Dev CER in per cent; None where training recorded none."""
        return self._recorded(CHARACTER_METRIC)

    def _recorded(self, metric: str) -> float | None:
        value = self.trained.metrics.get(metric)
        return None if value is None or math.isnan(value) else value


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One limit of a budget against one candidate."""

    name: str
    limit: float
    value: float

    @property
    def word(self) -> str:
        """What is limited, in words."""
        return _WORDS[self.name][0]

    @property
    def text(self) -> str:
        """The word and the candidate's value, such as `latency 6.1 ms`."""
        return f"{self.word} {self.quantity(self.value)}"

    @property
    def excess(self) -> str:
        """The value and by how much it exceeds the limit."""
        return f"{self.text} ({self.quantity(-self.slack)} too much)"

    def quantity(self, value: float) -> str:
        """A value with its unit."""
        return f"{_number(value)}{_WORDS[self.name][1]}"

    @property
    def holds(self) -> bool:
        """Whether the candidate is within the limit; equal is within."""
        return self.value <= self.limit

    @property
    def slack(self) -> float:
        """What is left of the limit; negative when it is exceeded."""
        return self.limit - self.value


def limits(budget: Budget, candidate: Candidate) -> tuple[Limit, ...]:
    """Every limit that the budget sets, against a candidate."""
    return tuple(
        Limit(name=name, limit=limit, value=getattr(candidate, name))
        for name in _WORDS
        if (limit := getattr(budget, name)) is not None and limit < math.inf
    )


def fits(budget: Budget, candidate: Candidate) -> bool:
    """Whether a candidate is within every limit."""
    return all(limit.holds for limit in limits(budget, candidate))


def candidate(
    profile: DeviceProfile,
    space: ComponentSpace,
    trained: TrainedSubnet,
    seconds: float,
    runtimes: Sequence[str] | None = None,
    precision: str = "fp32",
    takes: Input = FEATURES_IN,
) -> Candidate:
    """A subnet with what the profile predicts for it; `selector.select` says how for a precision.

    Raises:
        UserError: The profile has no figures for a runtime.
    """
    runtimes = tuple(runtimes or profile.runtimes)
    subnet = trained.subnet
    prints = [
        predict_footprint(profile, space, subnet, seconds, name, precision, takes)
        for name in runtimes
    ]
    fullest = max(prints, key=lambda one: one.memory_mb)
    before = filter_bank_flops(seconds, takes)
    flops = before + space.flops(subnet, seconds)
    return Candidate(
        trained=trained,
        params=round(space.cost(subnet, "params")),
        flops=flops,
        flops_share=flops / (before + space.flops(space.full(), seconds)),
        latency=tuple(
            predict_latency(
                profile,
                space,
                subnet,
                seconds,
                name,
                figured_precision(profile, name, precision),
                takes,
            )
            for name in runtimes
        ),
        memory_mb=fullest.memory_mb,
        memory_provenance=fullest.memory_provenance,
        size_mb=max(one.size_mb for one in prints),
        planned_mb=max(one.planned_mb for one in prints),
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def rounded_up(value: float) -> float:
    """Rounds up to the digits that are shown, so that a figure in a message is reachable."""
    if value <= 0:
        return value
    step = 1.0 if value >= 1000 else 10.0 ** (math.floor(math.log10(value)) - 3)
    return math.ceil(value / step) * step
