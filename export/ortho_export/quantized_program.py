"""Quantising the flat encoder, before it is lowered for ExecuTorch."""

import copy

import torch

from ortho_edge.precision import Precision
from ortho_export.flat import FlatEncoder


def quantized(encoder: FlatEncoder, precision: Precision) -> FlatEncoder:
    """A copy of an encoder whose linear layers compute in another precision.

    The means of `FlatNorm` are no layers but products with a buffer, so they stay fp32, as do
    convolutions.

    Args:
        encoder: The fp32 encoder; it is left as it is.
        precision: `int8` scales every row of a weight and every frame of its input by itself, both
            symmetric or nearly so (XNNPACK's `qd8`, `qc8w`).
    """
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
    from torchao.quantization.granularity import PerAxis

    if precision == "fp32":
        return encoder
    encoder = copy.deepcopy(encoder)
    quantize_(
        encoder,
        Int8DynamicActivationIntxWeightConfig(
            weight_dtype=torch.int8, weight_granularity=PerAxis(0)
        ),
    )
    return encoder
