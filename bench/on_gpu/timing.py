"""Medians of GPU times, and the roofs of the machine that they are compared with."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Roofs:
    """What this GPU reaches on the two simplest jobs.

    Attributes:
        flops: Per second, of a large bf16 matrix product.
        bytes: Per second, read and written by a large copy.
    """

    flops: float
    bytes: float

    def floor_ms(self, stages: list[tuple[float, float]]) -> float:
        """Time of passes that each reach the roof that limits them."""
        return 1e3 * sum(max(flops / self.flops, traffic / self.bytes) for flops, traffic in stages)


H200 = Roofs(flops=790e12, bytes=4.3e12)
"""Measured on one H200 with plain torch; a run measures its own."""


def median_ms(run: Callable[[], object], device: torch.device, milliseconds: int = 100) -> float:
    """Median time of a call, with a cold L2 cache on a GPU.

    Args:
        run: What is timed.
        device: A GPU; the CPU serves rehearsals only.
        milliseconds: How long to repeat.
    """
    if device.type == "cuda":
        from triton.testing import do_bench

        median = do_bench(run, warmup=25, rep=milliseconds, return_mode="median")
        assert isinstance(median, float)
        return median
    started = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - started)


def measure_roofs(device: torch.device) -> Roofs:
    """Times a large matrix product and a large copy."""
    side, elements = (8192, 2**29) if device.type == "cuda" else (64, 2**12)
    a = torch.randn(side, side, device=device).to(torch.bfloat16)
    product = torch.empty_like(a)
    source = torch.ones(elements, dtype=torch.bfloat16, device=device)
    target = torch.empty_like(source)
    return Roofs(
        flops=2 * side**3 / (1e-3 * median_ms(lambda: torch.matmul(a, a, out=product), device)),
        bytes=2 * 2 * elements / (1e-3 * median_ms(lambda: target.copy_(source), device)),
    )
