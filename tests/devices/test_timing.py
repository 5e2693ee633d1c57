import os
from collections.abc import Callable

import pytest

from ortho_edge.devices.timing import CALLS_PER_TURN, MIN_ROUNDS, pinned, time_in_turns


class FakeMachine:
    """A clock that only calls advance, and calls that take planned times."""

    def __init__(self) -> None:
        self.now = 100.0
        self.log: list[str] = []
        self.looks = 0

    def clock(self) -> float:
        return self.now

    def wall_clock(self) -> float:
        """A millisecond passes whenever somebody looks, however busy the real machine is."""
        self.looks += 1
        return self.looks / 1000

    def call(self, name: str, duration: Callable[[int], float]) -> Callable[[], None]:
        """`duration(i)` is what the i-th call takes."""

        def run() -> None:
            self.now += duration(self.log.count(name))
            self.log.append(name)

        return run


def test_the_minimum_counts() -> None:
    machine = FakeMachine()
    # Slow at first, then one of seven calls is undisturbed.
    calls = {
        "a": machine.call("a", lambda index: 2.0 if index % 7 else 1.0 + 9 * (index == 0)),
        "b": machine.call("b", lambda index: 0.5),
    }
    timings = time_in_turns(
        calls, limit_seconds=0.2, clock=machine.clock, wall_clock=machine.wall_clock
    )
    assert timings["a"].milliseconds == pytest.approx(1000)
    assert timings["b"].milliseconds == pytest.approx(500)
    assert timings["b"].spread_percent == pytest.approx(0)


def test_calls_take_turns() -> None:
    machine = FakeMachine()
    calls = {name: machine.call(name, lambda index: 1.0) for name in "abc"}
    time_in_turns(calls, limit_seconds=5, clock=machine.clock, wall_clock=machine.wall_clock)
    turns = "".join(machine.log[6:])
    one_round = "".join(name * CALLS_PER_TURN for name in "abc")
    # Without noise the fewest rounds suffice.
    assert turns == one_round * MIN_ROUNDS


def test_noise_is_reported_and_timed_for_longer() -> None:
    machine = FakeMachine()
    per_two_rounds = 2 * CALLS_PER_TURN
    warm_up = 2

    def noisy(index: int) -> float:
        odd = (index - warm_up) % per_two_rounds >= CALLS_PER_TURN
        return 1.2 if odd else 1.0

    timings = time_in_turns(
        {"a": machine.call("a", noisy)},
        limit_seconds=0.3,
        clock=machine.clock,
        wall_clock=machine.wall_clock,
    )
    assert timings["a"].spread_percent == pytest.approx(20)
    assert timings["a"].milliseconds == pytest.approx(1000)
    assert len(machine.log) > 2 + 2 * MIN_ROUNDS * CALLS_PER_TURN


def test_what_agrees_with_itself_goes_on_while_another_does_not() -> None:
    machine = FakeMachine()
    warm_up, turns = 2, 2 * CALLS_PER_TURN

    def disturbed(index: int) -> float:
        """One half is slow until the tenth round."""
        rounds, place = divmod(index - warm_up, turns)
        return 1.5 if place >= CALLS_PER_TURN and rounds < MIN_ROUNDS // 2 + 1 else 1.0

    calls = {
        "quiet": machine.call("quiet", lambda index: 1.0),
        "noisy": machine.call("noisy", disturbed),
    }
    timings = time_in_turns(
        calls, limit_seconds=60, clock=machine.clock, wall_clock=machine.wall_clock
    )
    for name in calls:
        assert machine.log.count(name) == warm_up + (MIN_ROUNDS + 4) * CALLS_PER_TURN
    assert timings["noisy"].spread_percent == 0


def test_the_median_is_that_of_all_calls() -> None:
    machine = FakeMachine()
    calls = {"a": machine.call("a", lambda index: 1.0 if index % 3 == 0 else 2.0)}
    timing = time_in_turns(
        calls, limit_seconds=60, clock=machine.clock, wall_clock=machine.wall_clock
    )["a"]
    assert timing.milliseconds == pytest.approx(1000)
    assert timing.median_milliseconds == pytest.approx(2000)


@pytest.mark.parametrize(
    ("slow", "said"),
    [(1.02, "other work disturbs it"), (1.2, "too busy for latencies: measure again")],
)
def test_a_limit_that_was_reached_with_noise_left_is_told(
    slow: float, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    machine = FakeMachine()
    noisy = machine.call("a", lambda index: slow if (index - 2) // CALLS_PER_TURN % 2 else 1.0)
    time_in_turns(
        {"a": noisy},
        limit_seconds=0.2,
        clock=machine.clock,
        wall_clock=machine.wall_clock,
        label="probes",
    )
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    message = record.getMessage()
    assert message.startswith("probes: after 0 s two halves of the measurement differ by")
    assert "1 of 1 figures by 1 % or more" in message
    assert said in message
    caplog.clear()
    quiet = machine.call("b", lambda index: 1.0)
    time_in_turns(
        {"b": quiet}, limit_seconds=60, clock=machine.clock, wall_clock=machine.wall_clock
    )
    assert not caplog.records


def test_two_rounds_run_even_without_time() -> None:
    machine = FakeMachine()
    timings = time_in_turns(
        {"a": machine.call("a", lambda index: 1.0)},
        limit_seconds=0,
        clock=machine.clock,
        wall_clock=machine.wall_clock,
    )
    assert timings["a"].milliseconds == pytest.approx(1000)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin threads")
def test_a_thread_is_pinned_and_released() -> None:
    before = os.sched_getaffinity(0)
    with pinned():
        assert len(os.sched_getaffinity(0)) == 1
        assert os.sched_getaffinity(0) <= before
    assert os.sched_getaffinity(0) == before
