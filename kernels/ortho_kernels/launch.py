"""Tile sizes, warps and stages of every kernel, looked up in JSON tables that ship.

A table is named after an architecture (`sm_90.json`: safe values, found by compiling) or after a
GPU (`NVIDIA_H200.json`: values tuned by `python bench/gpu.py`). No key holds a sequence length or a
number of tokens: utterances differ in length all the time, and tuning anew for each length is what
makes other libraries fifty times slower. The table of a GPU also says which operations were
measured faster than plain torch there.

    {"architecture": "sm_90",  # of a GPU: what its rows are compiled for in tests
     "operations": {"gated_ffn": {"speedup": 1.2, "target": 1.15}},
     "kernels": {"expand": [{"dim": 512, "bits": 16, "config": {"BLOCK_M": 128, ...}}]}}
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import torch
from torch import Tensor

TABLES = "launch_tables"
OPTIONS = ("num_warps", "num_stages")
GRID = ("GROUP_M", "SPLITS")
"""Entries of a configuration that shape the grid; kernels read them off it."""

Precision = Literal["ieee", "tf32", "tf32x3"]


@dataclass(frozen=True)
class LaunchConfig:
    """How one kernel is launched.

    Attributes:
        blocks: Tile sizes by the name of the kernel's constant.
        num_warps: Warps of a program.
        num_stages: Depth of the software pipeline.
    """

    blocks: Mapping[str, int]
    num_warps: int
    num_stages: int

    def arguments(self) -> dict[str, int]:
        """Keyword arguments of the launch."""
        # Triton's default for fused multiply-adds differs between versions.
        options = {"num_warps": self.num_warps, "num_stages": self.num_stages}
        blocks = {name: size for name, size in self.blocks.items() if name not in GRID}
        return {**blocks, **options, "enable_fp_fusion": True}


def start(
    kernel: Any,
    grid: tuple[int, ...],
    config: LaunchConfig,
    *arguments: Tensor | float | None,
    **constants: Any,
) -> None:
    """Starts a kernel on the device of its first argument; nothing where the grid is empty.

    Args:
        kernel: What `triton.jit` made.
        grid: Programs along each axis.
        config: Tile sizes and options, passed by name.
        *arguments: Arguments that change from call to call, in order; the first is a tensor.
        **constants: Further compile-time constants.

    Raises:
        ValueError: Tensors are bfloat16 on the CPU, which Triton's interpreter multiplies as if
            their bits were integers.
    """
    if 0 in grid:
        return
    tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
    if tensors[0].is_cpu and any(tensor.dtype == torch.bfloat16 for tensor in tensors):
        raise ValueError("Triton's interpreter computes bfloat16 wrongly; use float32 or float16")
    device = tensors[0].get_device() if tensors[0].is_cuda else -1  # -1 leaves it as it is
    with torch.cuda.device(device):
        submit(kernel, grid, arguments, {**constants, **config.arguments()})


def submit(kernel: Any, grid: tuple[int, ...], arguments: tuple, options: dict[str, Any]) -> None:
    """Hands a launch to Triton; tests that only compile put another function in its place."""
    kernel[grid](*arguments, **options)


def dot_precision(operand: Tensor) -> Precision:
    """How float32 is multiplied: as `torch.backends.cuda.matmul` says, tf32 or exactly.

    Other dtypes ignore it. `tf32x3`, nearly exact on tensor cores, must be asked for by name.
    """
    if operand.dtype == torch.float32 and torch.version.hip is None:
        # `allow_tf32` raises once the newer property has been written; this one reads either.
        return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"
    return "ieee"


def gpu_name(device: torch.device) -> str:
    """What the driver calls a GPU; nothing for other devices."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


LookUp = tuple[str, torch.dtype, int]


@dataclass
class Trial:
    """Launches while tuning.

    Attributes:
        configs: In place of the tables', by kernel, dtype and dim of the look-up.
        asked: Every look-up.
    """

    configs: Mapping[LookUp, LaunchConfig]
    asked: set[LookUp]


_trial: Trial | None = None


@contextmanager
def trying(configs: Mapping[LookUp, LaunchConfig]) -> Iterator[Trial]:
    """Launches kernels with other configurations than the tables'; for tuning."""
    global _trial
    before, _trial = _trial, Trial(configs, set())
    try:
        yield _trial
    finally:
        _trial = before


def architecture_name(device: torch.device) -> str:
    """`sm_90`, `gfx942`, or `sm_80` on the CPU, where the interpreter needs just any table."""
    if device.type != "cuda":
        return "sm_80"
    if torch.version.hip is not None:
        return torch.cuda.get_device_properties(device).gcnArchName.split(":")[0]
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def launch_config(kernel: str, device: torch.device, dtype: torch.dtype, dim: int) -> LaunchConfig:
    """The configuration of a kernel: that of the GPU, else of its architecture.

    Args:
        kernel: Name in the tables.
        device: Where it runs.
        dtype: Of the activations.
        dim: Width that decides about tiles; the nearest one in the table counts.
    """
    if _trial is not None:
        _trial.asked.add((kernel, dtype, dim))
        if (kernel, dtype, dim) in _trial.configs:
            return _trial.configs[kernel, dtype, dim]
    return table_config(kernel, gpu_name(device), architecture_name(device), dtype, dim)


@functools.cache
def table_config(
    kernel: str, gpu: str, architecture: str, dtype: torch.dtype, dim: int
) -> LaunchConfig:
    """`launch_config` of a GPU that need not be here.

    Raises:
        KeyError: No table has the kernel.
    """
    bits = 8 * dtype.itemsize
    for name in (gpu, *_family(architecture)):
        entries = read_table(name).get("kernels", {}).get(kernel, ())
        rows = [row for row in entries if row["bits"] == bits]
        if rows:
            config = dict(min(rows, key=lambda row: abs(row["dim"] - dim))["config"])
            options = {option: config.pop(option) for option in OPTIONS}
            return LaunchConfig(config, **options)
    raise KeyError(f"no launch configuration of {kernel} for {bits} bits on {architecture}")


def faster_than_reference(operation: str, gpu: str) -> bool:
    """Whether a GPU's table says that the kernel was measured to reach its target there."""
    measured = read_table(gpu).get("operations", {}).get(operation)
    return measured is not None and measured["speedup"] >= measured["target"]


@functools.cache
def read_table(name: str) -> dict[str, Any]:
    """The table of a GPU or an architecture; an empty one where none ships."""
    file = resources.files("ortho_kernels") / TABLES / f"{table_name(name)}.json"
    return json.loads(file.read_text("utf-8")) if name and file.is_file() else {}


def table_name(gpu: str) -> str:
    """The name of a GPU as a file name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", gpu)


def _family(architecture: str) -> tuple[str, ...]:
    """The architecture, then older ones whose values are safe on it."""
    if not architecture.startswith("sm_"):
        return (architecture,)
    known = ("sm_100", "sm_90", "sm_80")
    number = int(architecture[3:].rstrip("af"))
    return tuple(name for name in known if int(name[3:]) <= number)
