"""Gates to try an operation with, and its output with all its gradients."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

NUM_SUBNETS = 3
GATINGS = ("soft", "hard", "mixed", "one_open", "full", "closed")
LENGTHS = {7: (1, 2, 3, 4, 5, 6, 7), 63: (1, 62, 63), 77: (40, 77)}
"""Frames T and the lengths of the batch."""


def gate_rows(kind: str, num_units: int) -> Tensor:
    """Gates (S, units) in float64, the same for the same arguments."""
    generator = torch.Generator().manual_seed(num_units)
    shape = (NUM_SUBNETS, num_units)
    soft = 0.2 + torch.rand(shape, generator=generator, dtype=torch.float64)
    hard = (torch.rand(shape, generator=generator) < 0.6).double()
    unit = torch.eye(num_units, dtype=torch.float64)[torch.arange(NUM_SUBNETS) % num_units]
    closed = torch.zeros(shape, dtype=torch.float64)
    rows = {"soft": soft, "hard": hard, "one_open": 1.3 * unit, "full": closed + 1}
    rows |= {"closed": closed, "mixed": torch.stack([soft[0], closed[1], (soft * hard)[2]])}
    return rows[kind]


def open_units(gates: Tensor) -> list[list[int]]:
    return [[unit for unit, gate in enumerate(row) if gate != 0] for row in gates.tolist()]


def random_tensors(seed: int, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    """Float64 tensors of these shapes."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }


def output_and_gradients(
    run: Callable[..., Tensor],
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None = torch.float64,
) -> dict[str, Tensor]:
    """What `run(**tensors)` gives, and the gradient of a random sum of it for every tensor.

    Args:
        run: Takes the tensors by name.
        tensors: Inputs, in any dtype.
        dtype: What they are cast to; None leaves each as it is.
    """
    leaves = {name: tensor.detach().to(dtype).requires_grad_() for name, tensor in tensors.items()}
    output = run(**leaves)
    # Sixteenths are exact in every dtype: all implementations get the same gradient.
    probe = (16 * random_tensors(1, probe=tuple(output.shape))["probe"]).round() / 16
    total = (output * probe.to(output)).sum()
    names = list(leaves)
    if not total.requires_grad:  # nothing was computed
        return {"output": output, **{name: torch.zeros_like(leaves[name]) for name in names}}
    gradients = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
    return {"output": output.detach(), **dict(zip(names, gradients, strict=True))}


def relative_to_largest(
    values: Mapping[str, Tensor], reference: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Float64 `values` in units of the largest element of their `reference`."""
    return {name: value.double() / reference[name].abs().max() for name, value in values.items()}
