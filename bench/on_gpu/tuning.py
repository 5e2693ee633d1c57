"""Looks for the best launch configurations of this GPU, and writes them where they ship."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

import ortho_kernels
from bench.on_gpu.baselines import autocast
from bench.on_gpu.correctness import kernels
from bench.on_gpu.operations import TARGETS
from bench.on_gpu.problems import OPERATIONS, Problem, Size, make_problem
from bench.on_gpu.timing import median_ms
from ortho_kernels import launch
from ortho_kernels.launch import LaunchConfig, LookUp

DIMS = (512, 384)
BLOCKS = (16, 32, 64, 128, 256)
GRID_SIZES = (1, 2, 4, 8, 16)
WARPS = (4, 8)
STAGES = (1, 2, 3, 4)
WORTH = 0.98
"""A change is taken when it brings at least this factor: noise is about a per cent."""


def tune(device: torch.device, note: Callable[[str], None], *, rehearsal: bool = False) -> None:
    """Improves one number of one kernel at a time, as long as that makes its operation faster.

    Writes the table of this GPU; a rehearsal tries a few changes and writes nothing.
    """
    dtype = torch.float32 if rehearsal else torch.bfloat16
    found: dict[LookUp, LaunchConfig] = {}
    for dim in (64,) if rehearsal else DIMS:
        for operation in OPERATIONS:
            size = Size(subnets=3, dim=dim, active=0.67)
            if rehearsal:
                size = Size(subnets=1, batch=1, frames=16, dim=dim)
            problem = make_problem(operation, size, device, dtype)
            # Operations share kernels: the first to ask for a size decides.
            found = {**_descend(problem, found, note, rehearsal=rehearsal), **found}
    if not rehearsal:
        rows: dict[str, list[dict[str, Any]]] = {}
        for (kernel, asked, dim), config in sorted(found.items(), key=str):
            row = {"dim": dim, "bits": 8 * asked.itemsize, "config": _as_row(config)}
            rows.setdefault(kernel, []).append(row)
        note(f"written: {_update(device, kernels=rows)}")


def adopt(device: torch.device, speedups: dict[str, float]) -> Path:
    """Writes the measured speed-ups into this GPU's table: from now on they decide."""
    measured = {
        operation: {"speedup": round(speedup, 3), "target": TARGETS[operation]}
        for operation, speedup in speedups.items()
    }
    return _update(device, operations=measured)


def _as_row(config: LaunchConfig) -> dict[str, int]:
    options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    return {**config.blocks, **options}


def _descend(
    problem: Problem,
    known: Mapping[LookUp, LaunchConfig],
    note: Callable[[str], None],
    *,
    rehearsal: bool,
) -> dict[LookUp, LaunchConfig]:
    """The best configurations found for the launches of one problem that are not known yet."""
    device = problem.lengths.device
    best_time, asked = _time(problem, known)
    best = {one: launch.launch_config(one[0], device, *one[1:]) for one in asked - set(known)}
    start = best_time
    for one in sorted(best, key=str):
        for number, candidate in enumerate(_neighbours(best[one])):
            if rehearsal and number:
                break
            try:
                time, _ = _time(problem, {**known, **best, one: candidate})
            except Exception as error:  # noqa: BLE001 - too much shared memory, or ptxas gives up
                note(f"{one} {_as_row(candidate)}: {type(error).__name__}")
                continue
            if time < WORTH * best_time:
                best_time, best[one] = time, candidate
    note(
        f"{problem.operation} D {problem.size.dim}: {start:.3f} ms as shipped, "
        f"{best_time:.3f} ms tuned"
    )
    return best


def _neighbours(config: LaunchConfig) -> Iterator[LaunchConfig]:
    """Configurations that differ in one number."""
    for name, value in config.blocks.items():
        known = GRID_SIZES if name in launch.GRID else BLOCKS
        near = {value // 2, value * 2} & set(known)
        for other in sorted(near):
            yield LaunchConfig({**config.blocks, name: other}, config.num_warps, config.num_stages)
    for warps in WARPS:
        if warps != config.num_warps:
            yield LaunchConfig(config.blocks, warps, config.num_stages)
    for stages in STAGES:
        if abs(stages - config.num_stages) == 1:
            yield LaunchConfig(config.blocks, config.num_warps, stages)


def _time(problem: Problem, configs: Mapping[LookUp, LaunchConfig]) -> tuple[float, set[LookUp]]:
    """Median time of forward and backward, and the launches that it took."""
    with launch.trying(configs) as trial, kernels("triton"), autocast(problem):
        problem.with_gradients()
        return median_ms(problem.with_gradients, problem.lengths.device, 30), trial.asked


def _update(device: torch.device, **parts: dict[str, Any]) -> Path:
    name = torch.cuda.get_device_name(device)
    folder = Path(ortho_kernels.__file__).parent / launch.TABLES
    file = folder / f"{launch.table_name(name)}.json"
    content = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    content["architecture"] = launch.architecture_name(device)
    for part, values in parts.items():
        content[part] = {**content.get(part, {}), **values}
    file.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    launch.read_table.cache_clear()
    launch.table_config.cache_clear()
    return file
