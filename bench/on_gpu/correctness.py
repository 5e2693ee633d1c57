"""Every kernel against plain torch in float64, in every precision that training may use."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.on_gpu.baselines import autocast, compact
from bench.on_gpu.problems import OPERATIONS, Problem, Size, make_problem
from ortho_kernels.dispatch import VARIABLE

ROOM = 2.0
"""A kernel may err this many times as much as plain torch does in the same precision ..."""
FLOOR = {"float32": 1e-5, "tf32": 2e-3, "float16": 2e-3, "bfloat16": 1e-2}
"""... and where plain torch happens to be nearly exact, this much of the root mean square: some
tens of the unit roundoff of what is multiplied."""


@dataclass(frozen=True)
class Check:
    """One output or gradient of one operation in one precision.

    Attributes:
        operation: Its name.
        precision: float32, tf32, float16 or bfloat16.
        problem: Size and kind of lengths.
        tensor: `output` or the name of the input whose gradient it is.
        error: Relative root mean square of the kernel against float64.
        reference_error: That of plain torch in the same precision.
    """

    operation: str
    precision: str
    problem: str
    tensor: str
    error: float
    reference_error: float

    @property
    def limit(self) -> float:
        """The largest error that passes."""
        return max(ROOM * self.reference_error, FLOOR[self.precision])

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit; a NaN is not."""
        return self.error <= self.limit


@contextmanager
def kernels(choice: str) -> Iterator[None]:
    """Runs the body with ORTHO_KERNELS set."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = choice
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Runs the body with or without tf32 in matrix products."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def relative_rms(actual: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference over that of `expected`; absolute where that is 0."""
    difference = (actual.double() - expected).square().mean().sqrt()
    size = expected.square().mean().sqrt()
    return float(difference / size if size > 0 else difference)


def check_operation(problem: Problem, precision: str, label: str) -> list[Check]:
    """Output and all gradients of one problem.

    Args:
        problem: In the type that `precision` names.
        precision: Key of `FLOOR`.
        label: Of the problem, for the report.
    """
    exact = problem.with_gradients(compact(problem), problem.cast(torch.float64))
    with tf32(precision == "tf32"), autocast(problem):
        with kernels("reference"):
            reference = problem.with_gradients()
        with kernels("triton"):
            ours = problem.with_gradients()
    names = ("output", *problem.tensors)
    mask = problem.valid[None, :, :, None]
    checks = []
    for name, mine, theirs, truth in zip(names, ours, reference, exact, strict=True):
        if name == "output":  # what a padded frame holds is nobody's business
            mine, theirs, truth = (one * mask for one in (mine, theirs, truth))
        errors = relative_rms(mine, truth), relative_rms(theirs, truth)
        checks.append(Check(problem.operation, precision, label, name, *errors))
    return checks


PRECISIONS = {
    "float32": torch.float32, "tf32": torch.float32, "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}  # fmt: skip
SIZES = {
    "d 512": Size(subnets=3, batch=4, frames=400, dim=512, active=0.5),
    "d 384, ragged": Size(subnets=2, batch=5, frames=111, dim=384, active=0.75),
    "one subnet, odd": Size(subnets=1, batch=3, frames=77, dim=512, active=1.0),
}


def check_all(
    device: torch.device, sizes: dict[str, Size], precisions: dict[str, torch.dtype]
) -> list[Check]:
    """All operations in all precisions; sizes whose name says so have ragged lengths."""
    checks = []
    for operation in OPERATIONS:
        for label, size in sizes.items():
            for precision, dtype in precisions.items():
                problem = make_problem(operation, size, device, dtype, ragged="ragged" in label)
                checks += check_operation(problem, precision, label)
    return checks
