"""Runs kernels, in Triton's interpreter where there is no GPU, and measures their error.

The error is the relative RMS against float64 on the very numbers that the kernel was given, rounded
to its dtype. Without a GPU there is no bfloat16: the interpreter computes it wrongly and says
nothing, so `launch.start` refuses it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ortho_kernels.worklist import WorkList, work_list
from tests.kernels.gating import open_units, output_and_gradients
from tests.tolerances import TOLERANCES

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if DEVICE.type == "cuda" else [])]
FLOAT32_INPUTS = ("gates",)
"""Never rounded: they stay float32 whatever the activations are."""


def rms_error(actual: Tensor, expected: Tensor) -> float:
    """Relative RMS error; where the truth is 0 everywhere, 0 or infinity."""
    difference = actual.detach().cpu().double() - expected.detach().cpu().double()
    if difference.isnan().any():
        return float("nan")
    size = expected.double().norm().item()
    return difference.norm().item() / size if size else (torch.inf if difference.any() else 0.0)


def assert_agrees(
    actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], dtype: torch.dtype
) -> None:
    """Every tensor has the shape of its reference and an error within that of `dtype`."""
    bound = TOLERANCES[f"kernel_{str(dtype).removeprefix('torch.')}"].rtol
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name].shape == value.shape, name
    errors = {name: rms_error(actual[name], value) for name, value in expected.items()}
    assert all(error <= bound for error in errors.values()), errors


def rounded(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors in the precision in which a kernel gets them, on its device."""
    return {
        name: tensor.to(torch.float32 if name in FLOAT32_INPUTS else dtype).to(DEVICE)
        for name, tensor in tensors.items()
    }


def work_of(gates: Tensor, *, full_capacity: bool = False) -> WorkList:
    """The work list of gates (S, U)."""
    return work_list(open_units(gates), gates.shape[1], DEVICE, full_capacity=full_capacity)


def check_operation(
    kernel: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """Compares output and all gradients of `kernel(**tensors)` with those of the float64 reference.

    Args:
        kernel: Takes the tensors by name, rounded to `dtype`.
        reference: Takes them in float64, with the same values.
        tensors: Inputs, all of which get a gradient.
        dtype: Of the activations.

    Returns:
        What the kernel gave: `output`, and a gradient by the name of its tensor.
    """
    given = rounded(tensors, dtype)
    truth = {name: tensor.cpu().double() for name, tensor in given.items()}
    expected = output_and_gradients(reference, truth)
    actual = output_and_gradients(kernel, given, None)
    assert_agrees(actual, expected, dtype)
    return actual


def poison_closed(
    tensors: Mapping[str, Tensor], gates: Tensor, weights: Sequence[str]
) -> dict[str, Any]:
    """The tensors with NaN in the slabs of units that are open in no subnet."""
    closed = gates.eq(0).all(0)
    poisoned = {name: tensor.clone() for name, tensor in tensors.items()}
    for name in weights:
        poisoned[name][closed] = torch.nan
    return poisoned
