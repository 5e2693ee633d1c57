import torch
from torch import Tensor

from ortho_kernels.grouped_gemm.triton import expand, reduce, weight_gradient

SUBNETS, ROWS, UNITS = 3, 12800, 4


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def run(dim: int, dtype: torch.dtype) -> None:
    x = meta(SUBNETS, ROWS, dim, dtype=dtype)
    work = meta(100, dtype=torch.int32)
    # Hidden chunks, queries with keys and values of a head, and the output of a head.
    for width in (dim, 192, 64):
        weight = meta(UNITS, width, dim, dtype=dtype)
        h = expand(x, weight, work, SUBNETS * UNITS, meta(UNITS, width) if width > 64 else None)
        reduce(h, weight, work, SUBNETS, meta(dim), x)
        reduce(h, weight, work, SUBNETS)
        weight_gradient(h, x, work, UNITS)
