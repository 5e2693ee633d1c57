import torch

from ortho_kernels.gated_ffn.op import launch_backward, launch_forward
from tests.kernels.launches.grouped_gemm import ROWS, SUBNETS, UNITS, meta

BATCH = 32


def run(dim: int, dtype: torch.dtype) -> None:
    x = meta(SUBNETS, BATCH, ROWS // BATCH, dim, dtype=dtype)
    weight, b1, b2 = meta(UNITS, dim, dim), meta(UNITS, dim), meta(dim)
    gates, work = meta(SUBNETS, UNITS), meta(100, dtype=torch.int32)
    compact = meta(SUBNETS * UNITS, ROWS, dim, dtype=dtype)
    for seed, save in ((meta(1, dtype=torch.int64), True), (None, True), (None, False)):
        common = (work, SUBNETS * UNITS, seed, 0.1, 0.5)
        launch_forward(x, weight, b1, weight, b2, gates, x, *common, save)
        if save:
            hidden = (compact, compact)
            launch_backward(x, x, weight, weight, gates, *hidden, work, seed, 0.1, 0.5)
