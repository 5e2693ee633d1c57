import torch

from ortho_kernels.ortho_softmax.triton import select, select_backward
from tests.kernels.launches.grouped_gemm import meta

GROUPS = 500


def run(dim: int, dtype: torch.dtype) -> None:
    if dtype != torch.float32 or dim != 512:
        return  # scores are float32 whatever the network is
    costs = meta(GROUPS)
    gates, *kept = select(meta(GROUPS, GROUPS), costs, 1.0, 0.1, 0.5)
    num_rows, penalty, probabilities, gram = kept
    select_backward(probabilities, gram, num_rows, penalty, gates, penalty, 1.0)
