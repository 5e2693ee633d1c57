"""Instruction counts of inferences on an emulated Arm core.

A plugin, compiled for the QEMU that is installed, counts what is executed between the marks that
the runner sets around each inference. Counts repeat, but for a few hundred instructions now and
then (probably for a lock); they say nothing about caches, memory or how many instructions a core
executes per cycle.
"""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from ortho_edge.atomic import atomic_folder
from ortho_edge.cli import UserError
from ortho_export.arm.machines import QEMU, Emulator
from ortho_export.arm.programs import install
from ortho_export.arm.toolchain import Bundle, cache_folder, run_tool, source, tool
from ortho_export.facts import FRAMES_PER_SECOND

PLUGIN, MARKS = "counter.so", "marks"
RUNS = 2
"""The first inference of a length also plans for it; the last one counts."""

Count = Callable[[Path, Sequence[Float32[np.ndarray, "1 T bins"]]], list[int]]
"""Instructions of one inference of a program for each of its inputs."""


def noise(seconds: float) -> Float32[np.ndarray, "1 T bins"]:
    """Features to count on; what they hold hardly matters, how many there are does."""
    frames = round(seconds * FRAMES_PER_SECOND)
    return np.random.default_rng(0).standard_normal((1, frames, 80), np.float32)


def load_plugin() -> Path:
    """The plugin, compiled when it is not in the cache.

    Raises:
        MissingToolError: There is no C compiler or no QEMU.
        UserError: The cache cannot be written.
    """
    compiler = tool("gcc")
    release = run_tool([tool(QEMU), "--version"]).splitlines()[0]
    found = re.search(r"version (\d+)\.", release)
    if found is None:
        raise UserError(f"cannot tell the version of {QEMU} from {release!r}")
    # Version 9 dropped the first interface; the functions used here are the same in both.
    interface = 1 if int(found[1]) < 9 else 2
    recipe = f"{source('counter.c').read_text('utf-8')}\0{interface}"
    folder = cache_folder() / f"counter-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    if not (folder / PLUGIN).is_file():
        try:
            with atomic_folder(folder) as fresh:
                run_tool(
                    [
                        compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC",
                        "-fvisibility=hidden", f"-DPLUGIN_API={interface}",
                        str(source("counter.c")), "-o", str(fresh / PLUGIN),
                    ]
                )  # fmt: skip
        except OSError as error:
            raise UserError(f"cannot build in {folder}: {error}") from error
    return folder / PLUGIN


def counter(machine: Emulator, bundle: Bundle) -> Count:
    """What counts instructions on an emulated core.

    Raises:
        MissingToolError: There is no C compiler or no QEMU.
    """
    # QEMU takes the option apart at commas; a doubled one stands for itself.
    plugin = ",".join(
        part.replace(",", ",,") for part in (str(load_plugin()), f"out={machine.path(MARKS)}")
    )
    runner = install(dataclasses.replace(machine, options=("-plugin", plugin)), bundle)

    def count(program: Path, inputs: Sequence[np.ndarray]) -> list[int]:
        runner.run(program, inputs, runs=RUNS)
        marks = [int(line) for line in machine.get(MARKS).split()]
        assert len(marks) == 2 * RUNS * len(inputs), "the runner marks begin and end of each run"
        each = [end - start for start, end in zip(marks[::2], marks[1::2], strict=True)]
        return each[RUNS - 1 :: RUNS]

    return count
