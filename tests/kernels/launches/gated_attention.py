import torch

from ortho_kernels.gated_attention.triton import attention_backward, attention_forward
from tests.kernels.launches.grouped_gemm import SUBNETS, meta

BATCH, FRAMES, HEADS = 32, 400, 8


def run(dim: int, dtype: torch.dtype) -> None:
    del dim  # the projections are compiled as products over work lists
    gates, lengths = meta(SUBNETS, HEADS), meta(BATCH, dtype=torch.int64)
    work = meta(100, dtype=torch.int32)
    for head_dim in (64, 128) if dtype.itemsize == 2 else (64,):
        qkv = meta(SUBNETS * HEADS, BATCH, FRAMES, 3, head_dim, dtype=dtype)
        gated, ungated, logsumexp = attention_forward(qkv, gates, lengths, work)
        attention_backward(gated, qkv, ungated, logsumexp, gates, lengths, work)
