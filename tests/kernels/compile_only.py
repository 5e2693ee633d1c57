"""Compiles every kernel as it would be launched on GPUs that are not here.

Use: `python -m tests.kernels.compile_only sm_90 [gated_ffn ...]`: the name of a launch table, and
of operations, by default all. Prints one JSON line per kernel: what it needs of a chip. Runs in a
process of its own, because TRITON_INTERPRET changes what `triton.jit` makes.

A module `tests/kernels/launches/<operation>.py` has `run(dim, dtype)`, which calls an operation on
meta tensors with the shapes of a model of that width; each different launch that this leads to is
compiled once.
"""

import importlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, cast

os.environ.pop("TRITON_INTERPRET", None)

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from ortho_kernels import launch
from tests.kernels import launches

DIMS = (384, 512)
DTYPES = {16: torch.bfloat16, 32: torch.float32}


class AbsentDriver:
    """What Triton asks a driver before it compiles."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def target(architecture: str) -> GPUTarget:
    if architecture.startswith("sm_"):
        return GPUTarget("cuda", int(architecture[3:]), 32)
    return GPUTarget("hip", architecture, 64)


def registers_and_spills(compiled: Any) -> tuple[int, int]:
    """Registers of a thread, and what of it (bytes, or registers on AMD) does not fit in them."""
    if "amdgcn" in compiled.asm:
        names = ("vgpr_count", "vgpr_spill_count", "sgpr_spill_count")
        text = compiled.asm["amdgcn"]
        registers, *spills = (int(re.findall(rf"\.{name}: *(\d+)", text)[0]) for name in names)
        return registers, sum(spills)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    registers, stack = re.findall(r"REG:(\d+) STACK:(\d+)", usage)[0]
    return int(registers), int(stack)


def compile_all(table: str, operations: Collection[str]) -> Iterator[dict[str, Any]]:
    """Compiles the launches of every operation, in the dtypes that one table has rows for."""
    content = launch.read_table(table)
    architecture = content.get("architecture", table)
    widths = {row["bits"] for rows in content["kernels"].values() for row in rows}
    driver.set_active(cast("Any", AbsentDriver(target(architecture))))
    launch.gpu_name = lambda _: table
    launch.architecture_name = lambda _: architecture
    found: dict[str, dict[str, Any]] = {}

    def submit(kernel: Any, grid: tuple, arguments: tuple, options: dict[str, Any]) -> None:
        rows = content["kernels"].get(kernel.fn.__name__.removesuffix("_kernel"), ())
        if all(row["bits"] != bits for row in rows):
            return  # an older architecture's row, compiled with its table
        compiled = kernel.warmup(*arguments, grid=grid, **options)
        if compiled.hash not in found:
            registers, spills = registers_and_spills(compiled)
            found[compiled.hash] = {
                "operation": operation,
                "kernel": kernel.fn.__name__,
                "registers": registers,
                "spills": spills,
                "shared": compiled.metadata.shared,
                "options": options,
            }

    launch.submit = submit
    for operation in operations or [module.name for module in iter_modules(launches.__path__)]:
        run = importlib.import_module(f"{launches.__name__}.{operation}").run
        for bits, dim in itertools.product(sorted(widths), DIMS):
            run(dim, DTYPES[bits])
    yield from found.values()


if __name__ == "__main__":
    for row in compile_all(sys.argv[1], sys.argv[2:]):
        sys.stdout.write(json.dumps(row) + "\n")
