"""Timing networks and measuring their memory on a machine, with the bench there.

What a device answers is checked before it is believed.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ortho_edge.devices.board import Board, Condition, parse_board, parse_condition
from ortho_edge.devices.remote import Device, Timed
from ortho_edge.devices.timing import Timing
from ortho_edge.progress import Progress, track
from ortho_export.arm.machines import Machine, MachineError
from ortho_export.arm.programs import command_of
from ortho_export.arm.toolchain import BENCH, Bundle

# Constant: a shell finds the files. Not all are readable on all systems.
ASK_CONDITION = """
for file in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq \\
  /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_max_freq \\
  /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor \\
  /sys/class/thermal/thermal_zone*/temp; do
  value=$(cat "$file" 2>/dev/null) && printf '%s %s\\n' "$file" "$value"
done
exit 0
"""
CAN_RESET_PEAK = "test -w /proc/self/clear_refs && echo yes || echo no"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The bench on a machine, on one core of it."""

    machine: Machine
    command: tuple[str, ...]
    core: int

    def time(self, files: Sequence[Path], frames: Sequence[int], limit_seconds: float) -> Timed:
        """Times networks in turns.

        Args:
            files: `.pte` and `.onnx` files.
            frames: Lengths that each is timed on.
            limit_seconds: Of the timing; it ends sooner when the noise is small.

        Raises:
            MachineError: The machine fails, or answers what the bench does not say.
        """
        there = [
            self._put(file, str(index))
            for index, file in enumerate(track(files, "copying", unit="networks"))
        ]
        lengths = ",".join(map(str, frames))
        limit = math.ceil(limit_seconds)
        with Progress("timing", total=limit, unit="s") as bar:
            said = self.machine.run(
                [*self.command, "time", str(self.core), str(limit), lengths, *there],
                _Rounds(bar),
            )
        answer = self._answer(said)
        try:
            return _timed(answer, len(files), frames)
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise self._nonsense(said) from error

    def peak_mb(self, file: Path, warm_up: Path, frames: int) -> float:
        """What loading and running a network adds to the memory of a process, at its peak.

        Args:
            file: A `.pte` or `.onnx` file.
            warm_up: One that runs first, so that the libraries count as being there.
            frames: Length that it runs on.

        Raises:
            MachineError: The machine fails, or answers what the bench does not say.
        """
        first, second = self._put(warm_up, "warm-up"), self._put(file, "network")
        said = self.machine.run(
            [*self.command, "memory", str(self.core), str(frames), first, second]
        )
        kilobytes = self._answer(said).get("peak_kb")
        if not isinstance(kilobytes, int) or kilobytes < 0:
            raise self._nonsense(said)
        return kilobytes * 1024 / 1e6

    def _put(self, file: Path, name: str) -> str:
        # Its own name may be anything; the bench goes by the suffix.
        return self.machine.put(file, f"{name}{file.suffix}")

    def _answer(self, said: str) -> dict[str, Any]:
        try:
            answer = json.loads(said.strip().splitlines()[-1])
        except (ValueError, IndexError, RecursionError) as error:
            raise self._nonsense(said) from error
        if not isinstance(answer, dict):
            raise self._nonsense(said)
        return answer

    def _nonsense(self, said: str) -> MachineError:
        return MachineError(f"{self.machine.name} says what the bench does not: {said[-80:]!r}")


class _Rounds:
    """Moves the progress with the rounds that the bench reports."""

    def __init__(self, bar: Progress) -> None:
        self.bar = bar

    def __call__(self, line: bytes) -> None:
        try:
            seconds = float(json.loads(line)["seconds"])
        except (KeyError, RecursionError, TypeError, ValueError):
            return
        if math.isfinite(seconds):
            self.bar.reach(round(seconds))


def _timed(answer: dict[str, Any], networks: int, frames: Sequence[int]) -> Timed:
    """Checks and sorts what the bench says.

    Raises:
        KeyError, OverflowError, TypeError, ValueError: It is not what the bench says.
    """
    calls = answer["calls"]
    expected = [(network, length) for network in range(networks) for length in frames]
    if [(one["network"], one["frames"]) for one in calls] != expected:
        raise ValueError("other calls than were asked for")
    cpu = [_halves(one["cpu_ms"]) for one in calls]
    wall = [_halves(one["wall_ms"]) for one in calls]
    timings = [
        Timing(
            milliseconds=min(halves),
            spread_percent=100 * abs(halves[0] - halves[1]) / min(halves),
            median_milliseconds=_median(one["median_cpu_ms"], min(halves)),
        )
        for one, halves in zip(calls, cpu, strict=True)
    ]
    ratios = [min(whole) / min(own) for whole, own in zip(wall, cpu, strict=True)]
    return Timed(
        timings=tuple(
            tuple(timings[start : start + len(frames)])
            for start in range(0, len(timings), len(frames))
        ),
        rounds=int(answer["rounds"]),
        wall_percent=100 * (sum(ratios) / len(ratios) - 1),
    )


def _halves(values: Sequence[float]) -> tuple[float, float]:
    even, odd = map(float, values)
    if not (0 < even < math.inf and 0 < odd < math.inf):
        raise ValueError("a time must be above 0")
    return even, odd


def _median(value: float, least: float) -> float:
    if not least <= float(value) < math.inf:
        raise ValueError("a median must not be below the minimum")
    return float(value)


def open_device(machine: Machine, bundle: Bundle, board: Board, name: str, core: int) -> Device:
    """Copies the bench to a machine, sees that it starts, and makes a device of both.

    Args:
        machine: The device.
        bundle: Has the bench.
        board: What the device says about itself.
        name: Of its profile.
        core: To measure.

    Raises:
        MachineError: The bench cannot be copied or does not start.
    """
    command = command_of(machine, bundle, BENCH)
    machine.run([*command, "--help"])
    bench = Bench(machine=machine, command=command, core=core)
    tells_memory = machine.run(["sh", "-c", CAN_RESET_PEAK]).strip() == "yes"
    return Device(
        name=name,
        board=board,
        core=core,
        time=bench.time,
        peak_mb=bench.peak_mb if tells_memory else None,
        condition=lambda: ask_condition(machine),
    )


def ask_condition(machine: Machine) -> Condition:
    """Clocks and heat of a machine now."""
    return parse_condition(machine.run(["sh", "-c", ASK_CONDITION]))


def ask_board(machine: Machine) -> Board:
    """What a machine says about itself.

    Raises:
        MachineError: It says nothing of use.
    """

    def said(*command: str) -> str:
        # What is not there on every system says nothing.
        return machine.run(["sh", "-c", '"$@" 2>/dev/null || true', "sh", *command])

    try:
        return parse_board(
            cpuinfo=said("cat", "/proc/cpuinfo"),
            meminfo=said("cat", "/proc/meminfo"),
            condition=ask_condition(machine),
            properties=said("getprop"),
            tree_model=said("cat", "/proc/device-tree/model"),
            kernel=said("uname", "-sr"),
        )
    except ValueError as error:
        raise MachineError(f"{machine.name} cannot be measured: {error}") from error
