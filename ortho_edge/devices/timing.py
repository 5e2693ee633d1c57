"""Timing many short calls fairly on a machine that does other work too.

The calls take turns, so that a slow minute hits all of them alike, and the minimum counts: other
work only ever adds. None stops before the others: of many calls on a disturbed machine some agree
with themselves by chance, too early and too high. The clock is the CPU time of the calling thread.
Runtimes that were told to use one thread compute on that thread, so on an idle core this is the
wall-clock latency, and on a busy one it leaves out the time in which the scheduler ran something
else.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import mean, median
from typing import TypeVar

from ortho_edge.progress import Progress

logger = logging.getLogger(__name__)

Key = TypeVar("Key")

WARM_UP_CALLS = 2
CALLS_PER_TURN = 3
"""In a row, so that caches hold what the call itself touches; the minimum of a turn counts."""
MIN_ROUNDS = 8
QUIET_SPREAD_PERCENT = 1.0
USELESS_SPREAD_PERCENT = 5.0
"""On average: then the figures hardly tell one size from the next."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Minimum over all turns, and its repeatability.

    Attributes:
        spread_percent: Difference between the minima of the even and the odd rounds.
        median_milliseconds: Of all calls, disturbed ones included: the p50 on this machine.
    """

    milliseconds: float
    spread_percent: float
    median_milliseconds: float


@contextmanager
def pinned() -> Iterator[None]:
    """Keeps this thread on one core of those allowed; does nothing where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def time_in_turns(
    calls: Mapping[Key, Callable[[], object]],
    *,
    limit_seconds: float,
    label: str = "timing",
    clock: Callable[[], float] = time.thread_time,
    wall_clock: Callable[[], float] = time.monotonic,
) -> dict[Key, Timing]:
    """Times calls in rounds until every call's noise is small or the time is up.

    All take as many turns, at least `MIN_ROUNDS`. A warning tells when the time was up before.

    Args:
        calls: What to time, each called with nothing.
        limit_seconds: Of wall-clock time; at least two rounds run in any case.
        label: Of the progress.
        clock: Seconds that a call takes.
        wall_clock: Seconds that pass.
    """
    stop = wall_clock() + limit_seconds
    for call in calls.values():
        for _ in range(WARM_UP_CALLS):
            call()
    halves = {key: _Halves() for key in calls}
    start, rounds = wall_clock(), 0
    quiet = not calls
    with Progress(label, total=round(limit_seconds), unit="s") as bar:
        while not quiet and (rounds < 2 or wall_clock() < stop):
            for key, call in calls.items():
                halves[key].turn(rounds % 2, call, clock)
            rounds += 1
            bar.reach(round(wall_clock() - start))
            if rounds >= MIN_ROUNDS and rounds % 2 == 0:
                quiet = all(one.spread < QUIET_SPREAD_PERCENT for one in halves.values())
    timings = {key: one.timing() for key, one in halves.items()}
    if not quiet:
        _warn(label, [one.spread_percent for one in timings.values()], limit_seconds)
    return timings


class _Halves:
    """Durations in seconds of one call, those of even rounds apart from those of odd ones."""

    def __init__(self) -> None:
        self.seconds: tuple[list[float], list[float]] = ([], [])

    def turn(self, half: int, call: Callable[[], object], clock: Callable[[], float]) -> None:
        for _ in range(CALLS_PER_TURN):
            begin = clock()
            call()
            self.seconds[half].append(clock() - begin)

    @property
    def spread(self) -> float:
        even, odd = map(min, self.seconds)
        return 100 * abs(even - odd) / min(even, odd)

    def timing(self) -> Timing:
        both = [*self.seconds[0], *self.seconds[1]]
        return Timing(
            milliseconds=1000 * min(both),
            spread_percent=self.spread,
            median_milliseconds=1000 * median(both),
        )


def _warn(label: str, spreads: Sequence[float], limit_seconds: float) -> None:
    noisy = sum(one >= QUIET_SPREAD_PERCENT for one in spreads)
    worthless = mean(spreads) >= USELESS_SPREAD_PERCENT
    logger.warning(
        "%s: after %.0f s two halves of the measurement differ by %.1f %% on average, and %d of "
        "%d figures by %g %% or more; %s", label, limit_seconds, mean(spreads), noisy,
        len(spreads), QUIET_SPREAD_PERCENT,
        "this machine is too busy for latencies: measure again when it is idle"
        if worthless else "other work disturbs it",
    )  # fmt: skip
