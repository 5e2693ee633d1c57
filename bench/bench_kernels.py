"""What of the kernels can be timed without a GPU: plain torch on open units, and the host's plan.

On a GPU `python bench/gpu.py` measures the kernels themselves.
"""

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.on_gpu.baselines import compact, masked
from bench.on_gpu.problems import OPERATIONS, Size, make_problem
from ortho_edge.components import ComponentSpace
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.subnet import Subnet
from ortho_edge.supernet import Supernet

CPU = torch.device("cpu")


@pytest.mark.parametrize("active", [1.0, 0.5, 0.25], ids=lambda share: f"{share:.0%}")
@pytest.mark.parametrize("implementation", [compact, masked], ids=["compact", "masked"])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.benchmark(group="gated operations, plain torch", warmup=True, max_time=0.5)
def test_forward_and_backward(
    benchmark: BenchmarkFixture, operation: str, implementation, active: float
) -> None:
    """Compact costs fall with the share of open units; masked ones do not."""
    size = Size(subnets=4, batch=2, frames=100, dim=256, active=active)
    problem = make_problem(operation, size, CPU, torch.float32)
    run = implementation(problem)
    benchmark(problem.with_gradients, run)
    benchmark.extra_info.update(operation=operation, active=active)


@pytest.mark.parametrize("blocks", [6, 12, 24])
@pytest.mark.benchmark(group="plan of a step, on the host", warmup=True, max_time=0.5)
def test_plan(benchmark: BenchmarkFixture, blocks: int) -> None:
    """Work lists of three subnets for every module of the network."""
    architecture = Architecture(
        vocab_size=32, dim=64, num_blocks=blocks, num_heads=8, ffn_dim=64, num_ffn_chunks=8
    )
    supernet = Supernet(architecture)
    space: ComponentSpace = supernet.space
    subnets = [Subnet.of(len(space), range(0, len(space), step)) for step in (1, 2, 4)]
    benchmark(supernet.plan, subnets, "cpu")
