"""Timing many short calls fairly on a machine that does other work too.

The calls take turns, so that a slow minute hits all of them alike, and the minimum counts: other
work only ever adds. The clock is the CPU time of the calling thread. Runtimes that were told to use
one thread compute on that thread, so on an idle core this is the wall-clock latency, and on a busy
one it leaves out the time in which the scheduler ran something else.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from tqdm import tqdm

Key = TypeVar("Key")

WARM_UP_CALLS = 2
CALLS_PER_TURN = 3
"""In a row, so that caches hold what the call itself touches; the minimum of a turn counts."""
MIN_ROUNDS = 8
QUIET_SPREAD_PERCENT = 1.0


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Minimum over all turns, and its repeatability.

    Attributes:
        spread_percent: Difference between the minima of the even and the odd rounds.
    """

    milliseconds: float
    spread_percent: float


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
) -> dict[Key, Timing]:
    """Times calls in rounds until the noise is small or the time is up.

    Args:
        calls: What to time, each called with nothing.
        limit_seconds: Of wall-clock time; at least two rounds run in any case.
        label: Of the progress bar.
        clock: Seconds.
    """
    stop = time.monotonic() + limit_seconds
    for call in calls.values():
        for _ in range(WARM_UP_CALLS):
            call()
    minima = [dict.fromkeys(calls, float("inf")) for _ in range(2)]
    start, rounds = time.monotonic(), 0
    with tqdm(total=round(limit_seconds), unit="s", desc=label) as bar:
        while rounds < 2 or time.monotonic() < stop:
            half = minima[rounds % 2]
            for key, call in calls.items():
                for _ in range(CALLS_PER_TURN):
                    begin = clock()
                    call()
                    half[key] = min(half[key], clock() - begin)
            rounds += 1
            bar.update(min(round(time.monotonic() - start), bar.total) - bar.n)
            if rounds >= MIN_ROUNDS and rounds % 2 == 0 and _spread(minima) < QUIET_SPREAD_PERCENT:
                break
    return {
        key: Timing(
            milliseconds=1000 * min(half[key] for half in minima),
            spread_percent=_difference_percent(minima[0][key], minima[1][key]),
        )
        for key in calls
    }


def _difference_percent(a: float, b: float) -> float:
    return 100 * abs(a - b) / min(a, b)


def _spread(minima: list[dict[Key, float]]) -> float:
    even, odd = minima
    return sum(_difference_percent(even[key], odd[key]) for key in even) / len(even)
