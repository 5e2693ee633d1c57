"""Which implementation of an operation runs: the Triton kernel or plain torch.

`ORTHO_KERNELS` decides: `reference` always takes plain torch; `triton` takes the kernels on every
device that can run them; `auto`, the default, takes a kernel where the launch configurations of
that very GPU say that it was measured faster than plain torch at the same masks, and plain torch
everywhere else. Triton is imported when a kernel first runs.
"""

import functools
import importlib.util
import logging
import os
from typing import Literal

import torch

from ortho_kernels.launch import faster_than_reference

Backend = Literal["triton", "reference"]

VARIABLE = "ORTHO_KERNELS"
CHOICES = ("auto", "triton", "reference")
MINIMUM_CAPABILITY = (8, 0)
"""sm_75 and below compile to scalar code that spills."""

logger = logging.getLogger(__name__)


def requested() -> str:
    """The value of ORTHO_KERNELS.

    Raises:
        ValueError: It is none of auto, triton and reference.
    """
    value = os.environ.get(VARIABLE, "auto")
    if value not in CHOICES:
        raise ValueError(f"{VARIABLE} is {value!r}; choose from {', '.join(CHOICES)}")
    return value


def backend(operation: str, device: torch.device) -> Backend:
    """The implementation of `operation` that runs on `device`; the first time it is logged.

    Args:
        operation: Such as gated_ffn.
        device: Of the tensors.

    Raises:
        ValueError: ORTHO_KERNELS has an unknown value.
    """
    return _choose(operation, device, requested())[0]


# As torch.compiler.assume_constant_result, which would import the compiler, and Triton with it.
backend._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


def reason(operation: str, device: torch.device) -> str:
    """Why `backend` chooses what it does, in a few words."""
    return _choose(operation, device, requested())[1]


@functools.cache
def _choose(operation: str, device: torch.device, wanted: str) -> tuple[Backend, str]:
    choice, why = _decide(operation, device, wanted)
    logger.info("%s on %s: %s (%s)", operation, device, choice, why)
    return choice, why


def _decide(operation: str, device: torch.device, wanted: str) -> tuple[Backend, str]:
    if wanted == "reference":
        return "reference", f"{VARIABLE}=reference"
    if obstacle := _obstacle(device):
        return "reference", obstacle
    if wanted == "triton":
        return "triton", f"{VARIABLE}=triton"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    if faster_than_reference(operation, name):
        return "triton", f"measured faster on {name}"
    return "reference", f"the kernel was not measured faster on {name}"


def _obstacle(device: torch.device) -> str | None:
    """What keeps Triton from running on a device, if anything does."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if device.type == "cpu":
        return None if os.environ.get("TRITON_INTERPRET") == "1" else "no kernels for the CPU"
    if device.type != "cuda":
        return f"no kernels for {device.type}"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < MINIMUM_CAPABILITY:
        major, minor = torch.cuda.get_device_capability(device)
        return f"no kernels for sm_{major}{minor}, only from sm_80 on"
    return None
