"""The selector: the trained subnet with the best error rate inside a device's budget.

A budget means at most: nothing above a limit is ever returned. Latency and memory are what the
profile predicts for the worst of the runtimes asked for. `ortho_edge.fleet` selects for several
devices at once, and beyond the trained subnets.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ortho_edge.candidates import Candidate, Limit, candidate, fits, limits, rounded_up
from ortho_edge.checkpoint import Checkpoint, TrainedSubnet
from ortho_edge.cli import UserError
from ortho_edge.devices.filter_banks import FEATURES_IN, Input
from ortho_edge.devices.profile import Budget, DeviceProfile

__all__ = [
    "Budget",
    "Candidate",
    "Limit",
    "Selection",
    "budget_for",
    "by_cheapness",
    "candidate",
    "choose",
    "fits",
    "impossible",
    "limits",
    "select",
    "selection_of",
]


Error = Literal["error_rate", "character_error_rate"]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A choice for one device and why it was made.

    Attributes:
        candidates: Every trained subnet, the cheapest first.
        next_up: What would be chosen if the budget allowed a little more; None when nothing would.
        notes: What else to know of the choice, a line each.
    """

    device: str
    budget: Budget
    candidates: tuple[Candidate, ...]
    chosen: Candidate
    next_up: Candidate | None
    notes: tuple[str, ...] = ()

    @property
    def trained(self) -> TrainedSubnet:
        """The chosen subnet."""
        return self.chosen.trained

    @property
    def is_trained(self) -> bool:
        """Whether training produced the chosen subnet, so that its error rate was measured."""
        return any(one.trained == self.trained for one in self.candidates)

    @property
    def binding(self) -> Limit | None:
        """The limit that keeps `next_up` out, by the largest ratio; None when nothing binds."""
        return max(self._broken, key=lambda one: one.value / one.limit, default=None)

    @property
    def _broken(self) -> list[Limit]:
        if self.next_up is None:
            return []
        return [one for one in limits(self.budget, self.next_up) if not one.holds]

    def explanation(self) -> list[str]:
        """Lines for a person: the slack of every limit, what binds, what the next size costs."""
        return [*self.slack(), self.next_size(), *self.notes]

    def slack(self) -> list[str]:
        """A line per limit: the value, the limit and what is left of it."""
        return [
            f"{limit.text} of at most {limit.quantity(limit.limit)}, "
            f"{limit.quantity(limit.slack)} to spare"
            for limit in limits(self.budget, self.chosen)
        ]

    def next_size(self) -> str:
        """Which limit binds and what the next size up would take."""
        binding, larger = self.binding, self.next_up
        if larger is None:
            return "no limit binds: nothing better was trained"
        if binding is None:
            return f"no limit of {self.device} binds: {larger.trained.name} fits here"
        need = " and ".join(one.excess for one in self._broken)
        gain = (
            ""
            if larger.error_rate is None or self.chosen.error_rate is None
            else f" (dev WER {larger.error_rate:.2f} % instead of {self.chosen.error_rate:.2f} %)"
        )
        return f"{binding.word} binds: the next size up, {larger.trained.name}{gain}, takes {need}"


def budget_for(
    profile: DeviceProfile,
    *,
    latency_ms: float | None = None,
    memory_mb: float | None = None,
    size_mb: float | None = None,
    params: float | None = None,
    flops: float | None = None,
    rtf: float | None = None,
    audio_seconds: float | None = None,
) -> Budget:
    """The profile's default budget with the limits that the user named in place of its own.

    `math.inf` lifts a limit. `rtf`, the real-time factor, is a latency as share of the audio's
    length; of both, the tighter counts.

    Raises:
        UserError: A limit is not above 0.
    """
    if rtf is not None:
        if not rtf > 0:
            raise UserError(f"budget: rtf must be above 0, not {rtf}")
        seconds = audio_seconds or profile.budget.audio_seconds
        latency_ms = min(1000 * rtf * seconds, math.inf if latency_ms is None else latency_ms)
    named = {
        "latency_ms": latency_ms,
        "memory_mb": memory_mb,
        "size_mb": size_mb,
        "params": params,
        "flops": flops,
        "audio_seconds": audio_seconds,
    }
    defaults = {name: getattr(profile.budget, name) for name in named}
    try:
        return Budget(**defaults | {k: v for k, v in named.items() if v is not None})
    except ValueError as error:
        raise UserError(f"budget: {error}") from error


def select(
    profile: DeviceProfile,
    budget: Budget,
    checkpoint: Checkpoint,
    runtimes: Sequence[str] | None = None,
    precision: str = "fp32",
    takes: Input = FEATURES_IN,
) -> Selection:
    """The trained subnet with the best dev WER within all limits; the cheaper of equals.

    Where a subnet has no dev WER, the largest subnet within the limits is taken instead.

    Args:
        profile: The device.
        budget: Its limits, see `budget_for`.
        checkpoint: Whose trained subnets to choose from.
        runtimes: That must all hold the budget; every runtime of the profile by default.
        precision: Of the artefacts. Latency and memory are held with the fp32 figures where the
            profile has none of that precision; `Prediction.precision` says so.
        takes: What the artefacts take; filter banks inside those of audio cost as well.

    Raises:
        UserError: Nothing fits, naming the smallest value that can be reached; the profile has no
            figures for a runtime; or the checkpoint has no trained subnet.
    """
    if not checkpoint.subnets:
        raise UserError("the checkpoint has no trained subnet")
    seconds = budget.audio_seconds
    space = checkpoint.supernet.space
    candidates = tuple(
        candidate(profile, space, one, seconds, runtimes, precision, takes)
        for one in checkpoint.subnets
    )
    return choose(profile.name, budget, candidates)


def choose(device: str, budget: Budget, candidates: Sequence[Candidate]) -> Selection:
    """`select` among candidates whose costs are known.

    Raises:
        UserError: Nothing fits.
    """
    ordered = by_cheapness(candidates)
    fitting = [one for one in ordered if fits(budget, one)]
    if not fitting:
        raise UserError(impossible(device, budget, ordered))
    error = _deciding_error(ordered)
    chosen = min(fitting, key=lambda one: _preference(one, error))
    return selection_of(device, budget, ordered, chosen)


def selection_of(
    device: str, budget: Budget, candidates: Sequence[Candidate], chosen: Candidate
) -> Selection:
    """The selection of `chosen`, one of the candidates, with the cheapest better one as next up."""
    ordered = by_cheapness(candidates)
    error = _deciding_error(ordered)
    rank = _preference(chosen, error)
    better = (one for one in ordered if _preference(one, error) < rank)
    return Selection(
        device=device,
        budget=budget,
        candidates=ordered,
        chosen=chosen,
        next_up=next(better, None),
        notes=(HOPELESS_NOTE,) if _hopeless(ordered) else (),
    )


def by_cheapness(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The cheapest first."""
    return tuple(sorted(candidates, key=_cheapness))


def _cheapness(candidate: Candidate) -> tuple[float, ...]:
    return (candidate.latency_ms, candidate.flops, candidate.params)


HOPELESS_WER = 90.0
"""Dev WER in per cent above which word error rates differ by chance."""
HOPELESS_NOTE = (
    f"no size has a dev WER below {HOPELESS_WER:g} %: this checkpoint hears next to no words; "
    "character error rates decide, where training recorded them"
)


def _hopeless(candidates: Sequence[Candidate]) -> bool:
    rates = [one.error_rate for one in candidates]
    return all(rate is not None and rate > HOPELESS_WER for rate in rates)


def _deciding_error(candidates: Sequence[Candidate]) -> Error | None:
    """What tells the better candidate; a rate that one of them lacks compares with nothing."""
    errors: list[Error] = ["error_rate"]
    if _hopeless(candidates):
        errors.insert(0, "character_error_rate")
    for one in errors:
        if all(getattr(candidate, one) is not None for candidate in candidates):
            return one
    return None


def _preference(candidate: Candidate, error: Error | None) -> tuple[float, ...]:
    """Sorts the better candidate first; of equals, the order by cheapness decides."""
    if error is not None:
        return (getattr(candidate, error),)
    return (-candidate.flops, -candidate.params)


def impossible(
    device: str, budget: Budget, candidates: Sequence[Candidate], what: str = "trained subnet"
) -> str:
    """Why nothing fits, in words, each limit with the smallest value that can be reached."""
    start = f"no {what} fits the budget on {device!r} for {budget.audio_seconds:g} s of audio:"
    smallest = [
        min((limits(budget, one)[index] for one in candidates), key=lambda limit: limit.value)
        for index in range(len(limits(budget, candidates[0])))
    ]
    if too_low := [one for one in smallest if not one.holds]:
        reasons = "; ".join(
            f"{one.word} {one.quantity(one.limit)} is below the smallest reachable, "
            f"{one.quantity(rounded_up(one.value))}"
            for one in too_low
        )
        return f"{start} {reasons}"
    together = " and ".join(f"{one.word} {one.quantity(one.limit)}" for one in smallest)
    cheapest = min(candidates, key=_cheapness)
    values = ", ".join(one.text for one in limits(budget, cheapest))
    return (
        f"{start} none holds {together} together; the fastest, {cheapest.trained.name}, "
        f"takes {values}"
    )
