"""Machines for `profile --check`, each with what it can tell about the cost of a program."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ortho_edge.devices.profile import DEFAULT_AUDIO_SECONDS
from ortho_export.arm.bench import ask_board
from ortho_export.arm.counts import counter, noise
from ortho_export.arm.machines import emulator
from ortho_export.arm.programs import Runner, install
from ortho_export.arm.remote import connected, is_remote
from ortho_export.arm.toolchain import load_bundle

RUNS = 20
"""Inferences on a device, of which the fastest counts."""

COUNTED_SECONDS = 4.0

Cost = Callable[[Path], str]
"""In words, what a program takes."""


@contextmanager
def opened(on: str, core: int | None) -> Iterator[tuple[Runner, Cost]]:
    """A machine.

    Args:
        on: As in `profile --on`.
        core: Of a device; the fastest by default.

    Raises:
        UserError: There is none, or it cannot be used.
    """
    if is_remote(on):
        with connected(on) as machine:
            chosen = ask_board(machine).chosen(core)
            runner = install(machine, load_bundle())
            yield runner, lambda program: _time(runner, program, chosen)
        return
    with emulator(on) as machine:
        bundle = load_bundle()
        count = counter(machine, bundle)
        yield (
            install(machine, bundle),
            lambda program: (
                f"{count(program, [noise(COUNTED_SECONDS)])[0] / 1e6:.2f} M instructions for "
                f"{COUNTED_SECONDS:g} s of audio"
            ),
        )


def _time(runner: Runner, program: Path, core: int) -> str:
    # As long as the budget of a measured profile, so that the two can be compared.
    seconds = DEFAULT_AUDIO_SECONDS
    report = runner.run(program, [noise(seconds)], runs=RUNS, core=core)
    least = min(report.runs[0].milliseconds)
    return f"{least:.2f} ms on core {core} for {seconds:g} s of audio"
