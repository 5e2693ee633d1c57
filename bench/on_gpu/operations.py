"""Times of every operation against its baselines at the same masks."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from bench.on_gpu.baselines import Run, autocast, baselines
from bench.on_gpu.correctness import kernels
from bench.on_gpu.problems import OPERATIONS, Problem, Size, make_problem, stages
from bench.on_gpu.timing import Roofs, median_ms

OURS = "ours"
TARGETS = {"gated_ffn": 1.15, "gated_conv": 1.15, "gated_attention": 1.0}
"""A kernel is the default where it beats the best baseline by this factor, forward and backward."""


@dataclass(frozen=True)
class Timing:
    """Median times of one implementation of one operation.

    Attributes:
        operation: Its name.
        size: Of the problem.
        implementation: `ours` or the name of a baseline.
        forward_ms: Without gradients.
        step_ms: Forward and backward.
        forward_floor_ms: What the measured roofs allow for the open units.
        step_floor_ms: Likewise.
        failure: Why there is no time, if so.
    """

    operation: str
    size: Size
    implementation: str
    forward_ms: float
    step_ms: float
    forward_floor_ms: float
    step_floor_ms: float
    failure: str = ""


def sizes() -> Iterator[Size]:
    """The sizes of the report, the most important first."""
    for active in (1.0, 0.5, 0.25):
        yield Size(active=active)
        yield Size(subnets=4, active=active)
    for frames in (200, 800, 1500):
        yield Size(frames=frames, batch=12800 // frames, active=0.5)
    for active in (1.0, 0.25):
        yield Size(dim=384, active=active)


def time_size(
    device: torch.device,
    size: Size,
    wrong: set[str],
    roofs: Roofs,
    deadline: float,
    note: Callable[[str], None],
    *,
    autotune: bool,
    rehearsal: bool = False,
) -> tuple[list[Timing], list[str]]:
    """Times every operation at one size in bf16, and names what was left out.

    Args:
        device: Where.
        size: How large.
        wrong: Operations whose kernels are not correct; they get no times.
        roofs: Of this machine.
        deadline: On the clock of `time.monotonic`.
        note: Told what is being timed.
        autotune: Compare with Inductor's max-autotune too.
        rehearsal: In float32 and without Inductor: only to see that everything runs.
    """
    timings, skipped = [], []
    for operation in OPERATIONS:
        label = f"{operation} S {size.subnets} T {size.frames} D {size.dim} {size.active:.0%}"
        if operation == "gated_conv" and size.subnets == 1 and size.active < 1:
            continue  # half a convolution module does not exist
        if operation in wrong:
            skipped.append(f"{label}: the kernel is not correct")
        elif time.monotonic() > deadline:
            skipped.append(f"{label}: out of time")
        else:
            note(label)
            dtype = torch.float32 if rehearsal else torch.bfloat16
            problem = make_problem(operation, size, device, dtype)
            timings += _time(problem, roofs, autotune=autotune, rehearsal=rehearsal)
            torch._dynamo.reset()
    return timings, skipped


def _time(problem: Problem, roofs: Roofs, *, autotune: bool, rehearsal: bool) -> Iterator[Timing]:
    floors = (
        roofs.floor_ms(stages(problem.operation, problem.size, backward=False)),
        roofs.floor_ms(stages(problem.operation, problem.size, backward=True)),
    )
    runs: list[tuple[str, Run]] = [(OURS, problem.call)]
    for name, run in [*runs, *baselines(problem, autotune=autotune and not rehearsal)]:
        if rehearsal and name not in (OURS, "masked", "compact"):
            continue
        try:
            with autocast(problem), kernels("triton" if name == OURS else "reference"):
                times = _forward_and_step(problem, run)
        except Exception as error:  # noqa: BLE001 - a library that refuses is a finding
            times = (float("nan"), float("nan"))
            failure = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            yield Timing(problem.operation, problem.size, name, *times, *floors, failure[:200])
            continue
        yield Timing(problem.operation, problem.size, name, *times, *floors)


def _forward_and_step(problem: Problem, run: Run) -> tuple[float, float]:
    device = problem.lengths.device

    def forward() -> None:
        with torch.no_grad():
            run(problem.tensors)

    def step() -> None:
        problem.with_gradients(run)

    forward()
    step()
    return median_ms(forward, device), median_ms(step, device)


def speedups(timings: list[Timing]) -> dict[str, float]:
    """Of each operation: the best baseline's step time over ours, at the reference size.

    The smallest over one and four subnets and all shares of open units, so that nothing becomes the
    default by luck; nothing for an operation that has no time at one of them.
    """
    found: dict[str, float] = {}
    for operation in OPERATIONS:
        timed = [one for one in timings if one.operation == operation]
        sizes = {one.size for one in timed if (one.size.dim, one.size.frames) == (512, 400)}
        ratios = []
        for size in sizes:
            group = {one.implementation: one.step_ms for one in timed if one.size == size}
            ours = group.pop(OURS, math.nan)
            others = [other for other in group.values() if not math.isnan(other)]
            ratios.append(min(others, default=math.nan) / ours)
        if ratios and not any(map(math.isnan, ratios)):
            found[operation] = min(ratios)
    return found


def closed_units_are_free(timings: list[Timing]) -> dict[str, float]:
    """t(25 %) / t(100 %) of our step at the reference size; at most 0.3 is aimed at."""
    found = {}
    for operation in OPERATIONS:
        ours = {
            one.size.active: one.step_ms
            for one in timings
            if one.operation == operation
            and one.implementation == OURS
            and (one.size.subnets, one.size.frames, one.size.dim) == (4, 400, 512)
        }
        if 0.25 in ours and 1.0 in ours:
            found[operation] = ours[0.25] / ours[1.0]
    return found
