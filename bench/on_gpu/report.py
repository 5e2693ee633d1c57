"""What `python bench/gpu.py` writes and prints."""

import dataclasses
import datetime
import json
import math
import platform
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.on_gpu.correctness import Check
from bench.on_gpu.operations import (
    OURS,
    TARGETS,
    Timing,
    closed_units_are_free,
    speedups,
)
from bench.on_gpu.problems import OPERATIONS, Size, stages
from bench.on_gpu.step import StepTiming, step_ratios
from bench.on_gpu.timing import Roofs
from ortho_kernels.launch import table_name

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@dataclass
class Results:
    """Everything measured in one run, part after part."""

    device: torch.device
    roofs: Roofs
    checks: list[Check] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    steps: list[StepTiming] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> set[str]:
        """Operations with an output or gradient beyond its limit."""
        return {check.operation for check in self.checks if not check.passed}


def machine_name(device: torch.device) -> str:
    """The GPU's name, or that this is a rehearsal."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "rehearsal (CPU)"


def versions(device: torch.device) -> dict[str, str]:
    """What the figures depend on."""
    import triton

    found = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cuda": str(torch.version.cuda or torch.version.hip),
    }
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        found["capability"] = f"{major}.{minor}"
    return found


def commit() -> str:
    """The commit of the checkout, with a plus when files differ from it."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def as_json(results: Results) -> dict[str, Any]:
    """Results with versions, commit and date; a time that is missing is null."""
    content = {
        "gpu": machine_name(results.device),
        "command": "python bench/gpu.py",
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": versions(results.device),
        "roofs": dataclasses.asdict(results.roofs),
        "correctness": [
            {**dataclasses.asdict(one), "limit": one.limit, "passed": one.passed}
            for one in results.checks
        ],
        "operations": [dataclasses.asdict(one) for one in results.timings],
        "speedups": speedups(results.timings),
        "targets": TARGETS,
        "closed_units": closed_units_are_free(results.timings),
        "step": [dataclasses.asdict(one) for one in results.steps],
        "step_ratios": [dataclasses.asdict(one) for one in step_ratios(results.steps)],
        "skipped": results.skipped,
    }
    return _without_nan(content)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return value


def write(results: Results, folder: Path) -> Path:
    """Writes `<gpu>.json`; an earlier one is replaced only by a complete one."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{table_name(machine_name(results.device))}.json"
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(as_json(results), indent=1) + "\n", "utf-8")
    partial.replace(file)
    return file


def table(results: Results) -> str:
    """The short table that is printed last."""
    roofs = results.roofs
    lines = [
        f"{machine_name(results.device)}: {roofs.flops / 1e12:.0f} TFLOP/s bf16, "
        f"{roofs.bytes / 1e12:.2f} TB/s copy",
        _correctness_line(results.checks),
        "",
        f"{'operation, bf16':52} {'ours':>9} {'of floor':>9} {'best other':>22} {'speed-up':>9}",
    ]
    sizes = dict.fromkeys((one.operation, one.size) for one in results.timings)
    for operation, size in sizes:
        group = [one for one in results.timings if (one.operation, one.size) == (operation, size)]
        ours = next((one for one in group if one.implementation == OURS), None)
        others = [one for one in group if one is not ours and math.isfinite(one.step_ms)]
        label = (
            f"{operation} S {size.subnets} B {size.batch} T {size.frames} D {size.dim} "
            f"{size.active:.0%} open"
        )
        if ours is None or not math.isfinite(ours.step_ms) or not others:
            lines.append(f"{label:52} {ours.failure if ours else 'not timed'}")
            continue
        best = min(others, key=lambda one: one.step_ms)
        other = f"{best.step_ms:.3f} ms {best.implementation}"
        lines.append(
            f"{label:52} {ours.step_ms:6.3f} ms {ours.step_floor_ms / ours.step_ms:8.0%} "
            f"{other:>22} {best.step_ms / ours.step_ms:8.2f}x"
        )
    for operation, ratio in closed_units_are_free(results.timings).items():
        lines.append(f"{operation}: t(25 %) / t(100 %) = {ratio:.2f} (at most 0.30 is aimed at)")
    for operation, ratio in speedups(results.timings).items():
        verdict = "reached" if ratio >= TARGETS[operation] else "missed"
        lines.append(f"{operation}: {ratio:.2f}x, target {TARGETS[operation]:.2f}x {verdict}")
    lines += ["", f"{'three-subnet training step':52} {'time':>12} {'peak':>10} {'loss':>9}"]
    for one in results.steps:
        lines.append(
            f"{one.name:52} {one.failure}"
            if one.failure
            else f"{one.name:52} {one.milliseconds:9.1f} ms {one.peak_mb:7.0f} MB {one.loss:9.3f}"
        )
    lines += [
        f"ours against {one.other}: {one.speedup:.2f}x (target {one.target:.1f}x), "
        f"{one.peak:.0%} of its peak memory"
        for one in step_ratios(results.steps)
    ]
    lines += [f"not measured: {one}" for one in results.skipped]
    return "\n".join(lines)


def floors_table(roofs: Roofs) -> str:
    """Least times of the operations, in us, as rows of a Markdown table."""
    lines = [
        f"| B 32, T 400, D 512, bf16; {roofs.flops / 1e12:.0f} TFLOP/s, {roofs.bytes / 1e12:.1f} "
        "TB/s | 100 % | 50 % | 25 % |",
        "| --- | ---: | ---: | ---: |",
    ]
    for operation in OPERATIONS:
        for name, backward in (("forward", False), ("forward and backward", True)):
            cells = []
            for active in (1.0, 0.5, 0.25):
                # Four subnets, so that a share of the convolution modules exists.
                size = Size(subnets=4, active=active)
                floor = roofs.floor_ms(stages(operation, size, backward=backward)) / size.subnets
                cells.append(f"{1e3 * floor:.0f}")
            lines.append(f"| `{operation}`, {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _correctness_line(checks: list[Check]) -> str:
    wrong = [one for one in checks if not one.passed]
    if not checks:
        return "correctness: not checked"
    worst = max(checks, key=lambda one: one.error / one.limit)
    return (
        f"correctness: {len(checks) - len(wrong)} of {len(checks)} outputs and gradients within "
        f"their limits; nearest to its limit: {worst.operation} {worst.tensor} in "
        f"{worst.precision}, {worst.error:.1e} of {worst.limit:.1e}"
    )
