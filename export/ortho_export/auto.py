"""`--precision auto`: per runtime, the fastest precision that costs almost no accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ortho_edge.components import ComponentSpace
from ortho_edge.devices.filter_banks import Input
from ortho_edge.devices.latency import predict_latency
from ortho_edge.devices.profile import DeviceProfile
from ortho_edge.precision import BY_DEFAULT, Precision
from ortho_edge.selector import Selection

MARGIN = 0.3
"""Points of word error rate that a precision may cost against fp32. On a set of so few words that
one wrong word costs more, none may be lost."""
LatencyFrom = Literal["predicted for the device", "measured on this host"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One precision of one runtime.

    Attributes:
        wer: Of the artefact on the development set, in per cent.
        milliseconds: For the budget's audio length.
        accurate: Whether the error rate is within `MARGIN` of the fp32 encoder's.
    """

    runtime: str
    precision: Precision
    wer: float
    milliseconds: float
    accurate: bool


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What `auto` took for one runtime, and why."""

    runtime: str
    precision: Precision
    trials: tuple[Trial, ...]
    latency_from: LatencyFrom


def choose(
    runtime: str,
    error_rates: Sequence[tuple[Precision, float]],
    milliseconds: Sequence[float],
    fp32_wer: float,
    latency_from: LatencyFrom,
) -> Choice:
    """The fastest precision whose error rate is within `MARGIN` of fp32's.

    Args:
        runtime: Its name.
        error_rates: Word error rate of the artefact of every precision.
        milliseconds: Latency of each, in the same order.
        fp32_wer: Of the eager encoder.
        latency_from: Where the latencies come from.
    """
    trials = tuple(
        Trial(
            runtime=runtime, precision=precision, wer=wer, milliseconds=latency,
            # Rates are quotients: 0.3 points more must not fail by their rounding.
            accurate=wer <= fp32_wer + MARGIN + 1e-9,
        )
        for (precision, wer), latency in zip(error_rates, milliseconds, strict=True)
    )  # fmt: skip
    accurate = [one for one in trials if one.accurate or one.precision == "fp32"]
    fastest = min(accurate, key=lambda one: one.milliseconds)
    return Choice(
        runtime=runtime, precision=fastest.precision, trials=trials, latency_from=latency_from
    )


def predicted_ms(
    profile: DeviceProfile,
    selection: Selection,
    runtime: str,
    space: ComponentSpace,
    takes: Input,
) -> list[float] | None:
    """Latency of every precision on the device; None unless the profile has figures for all."""
    if not set(BY_DEFAULT) <= set(profile.runtimes.get(runtime, {})):
        return None
    seconds = selection.budget.audio_seconds
    return [
        predict_latency(
            profile, space, selection.trained.subnet, seconds, runtime, one, takes
        ).milliseconds
        for one in BY_DEFAULT
    ]
