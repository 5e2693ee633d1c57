"""The command for a GPU machine, run where there is none."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.on_gpu.correctness import Check
from bench.on_gpu.operations import Timing, closed_units_are_free, speedups
from bench.on_gpu.problems import OPERATIONS, Size, stages
from bench.on_gpu.step import StepTiming, step_ratios
from bench.on_gpu.timing import H200


def command(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python bench/gpu.py` as on a machine where the project is not installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("TRITON_INTERPRET", None)
    return subprocess.run(
        [sys.executable, repository / "bench" / "gpu.py", *arguments],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_rehearsal_goes_through_everything_and_writes_nothing(
    repository: Path, tmp_path: Path
) -> None:
    done = command(repository, "--rehearse", "--tune", "--adopt", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(tmp_path.iterdir())
    right, total = re.findall(r"correctness: (\d+) of (\d+)", done.stdout)[0]
    assert right == total
    assert int(total) > 50
    losses = re.findall(r"(?:ours|plain torch), eager, stacked .* MB +([\d.]+)", done.stdout)
    assert len(losses) == 2
    assert losses[0] == losses[1]
    for operation in OPERATIONS:
        assert f"{operation} S 1 B 2 T 9 D 64 100% open" in done.stdout
    assert "no time above means anything" in done.stdout


def test_without_a_gpu_it_says_so(repository: Path) -> None:
    done = command(repository)
    assert done.returncode == 2
    assert "--rehearse" in done.stderr


def timing(implementation: str, active: float, step_ms: float, subnets: int = 4) -> Timing:
    return Timing(
        operation="gated_ffn", size=Size(subnets=subnets, active=active),
        implementation=implementation, forward_ms=1.0, step_ms=step_ms, forward_floor_ms=0.1,
        step_floor_ms=0.2,
    )  # fmt: skip


def test_a_speedup_is_the_worst_over_sizes_against_the_best_baseline() -> None:
    timings = [
        timing("ours", 1.0, 2.0), timing("masked", 1.0, 9.0), timing("compiled", 1.0, 3.0),
        timing("ours", 0.5, 1.0), timing("masked", 0.5, 9.0), timing("compiled", 0.5, 1.2),
        timing("flash", 0.5, float("nan")),
    ]  # fmt: skip
    assert speedups(timings) == {"gated_ffn": pytest.approx(1.2)}


def test_an_operation_that_failed_at_a_size_has_no_speedup() -> None:
    timings = [
        timing("ours", 1.0, 2.0), timing("compiled", 1.0, 3.0),
        timing("ours", 0.5, float("nan")), timing("compiled", 0.5, 1.2),
    ]  # fmt: skip
    assert speedups(timings) == {}


def test_what_closed_units_cost_is_our_quarter_over_our_whole() -> None:
    timings = [timing("ours", 1.0, 8.0), timing("ours", 0.25, 2.0), timing("masked", 0.25, 8.0)]
    assert closed_units_are_free(timings) == {"gated_ffn": 0.25}


def test_the_step_is_compared_with_the_best_of_each_kind() -> None:
    timings = [
        StepTiming("masked, eager, one by one", 90.0, 400.0, 1.0),
        StepTiming("plain torch, compiled, one by one", 50.0, 300.0, 1.0),
        StepTiming("plain torch, compiled, stacked", 45.0, 500.0, 1.0),
        StepTiming("ours, eager, stacked", 60.0, 400.0, 1.0),
        StepTiming("ours, compiled, stacked", 30.0, 400.0, 1.0),
        StepTiming("ours, eager, one by one", float("nan"), 0.0, 0.0, "it failed"),
    ]
    compiled, masked = step_ratios(timings)
    assert (compiled.other, compiled.speedup) == ("plain torch, compiled, stacked", 1.5)
    assert (compiled.peak, compiled.target) == (0.8, 1.3)
    assert (masked.speedup, masked.peak, masked.target) == (3.0, 1.0, 2.0)
    assert step_ratios(timings[:3]) == []


@pytest.mark.parametrize("error", [3e-3, float("nan")])
def test_an_error_beyond_twice_plain_torchs_is_wrong(error: float) -> None:
    check = Check("gated_ffn", "float16", "d 512", "output", error, reference_error=1.2e-3)
    assert not check.passed
    assert Check("gated_ffn", "float16", "d 512", "output", 2.3e-3, 1.2e-3).passed


@pytest.mark.parametrize("operation", OPERATIONS)
def test_floors_fall_with_the_open_units_and_rise_with_the_backward(operation: str) -> None:
    def floor(active: float, backward: bool) -> float:
        return H200.floor_ms(stages(operation, Size(subnets=4, active=active), backward=backward))

    assert floor(1.0, False) < floor(1.0, True)
    assert floor(0.25, True) < 0.5 * floor(1.0, True)


def test_the_ffn_floor_is_that_of_its_products() -> None:
    """Two products of 12800 x 512 x 2048, four in the backward, at 790 TFLOP/s."""
    product = 2 * 12800 * 512 * 2048 / 790e12
    forward = H200.floor_ms(stages("gated_ffn", Size(), backward=False))
    both = H200.floor_ms(stages("gated_ffn", Size(), backward=True))
    assert forward == pytest.approx(2e3 * product, rel=1e-6)
    assert both == pytest.approx(6e3 * product, rel=1e-6)
