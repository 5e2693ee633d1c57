import torch

from ortho_kernels.gated_conv.triton import depthwise_norm, glu
from ortho_kernels.gated_conv.triton_backward import depthwise_backward, norm_backward
from tests.kernels.launches.grouped_gemm import meta

SUBNETS, BATCH, FRAMES, TAPS = 3, 32, 400, 31
WIDEST = 1024


def run(dim: int, dtype: torch.dtype) -> None:
    launch(dim, dtype)
    if dim == 512 and dtype == torch.bfloat16:
        launch(WIDEST, dtype)


def launch(dim: int, dtype: torch.dtype) -> None:
    x = meta(SUBNETS, BATCH, FRAMES, dim, dtype=dtype)
    weight, taps, vector = meta(2 * dim, dim, dtype=dtype), meta(TAPS, dim), meta(dim)
    gates, lengths = meta(SUBNETS), meta(BATCH, dtype=torch.int32)
    work = meta(100, dtype=torch.int32)
    glued, glu_gates = glu(x, weight, meta(2 * dim), lengths, work, SUBNETS, keep=True)
    hidden, normalized, inverse = depthwise_norm(
        glued, taps, vector, vector, vector, gates, lengths, work, 1e-5, keep=True
    )
    assert glu_gates is not None
    assert normalized is not None
    assert inverse is not None
    d_z, _, _ = norm_backward(x, hidden, normalized, inverse, vector, vector, gates, work)
    depthwise_backward(d_z, glued, glu_gates, taps, lengths, work, SUBNETS)
