"""The flat encoder in another precision, before it is lowered for ExecuTorch.

XNNPACK knows a product in 8 bits by what stands around it: rounding and its inverse, as operations
of `quantized_decomposed`. The layers here write them out.

Letters: O outputs or output channels, I inputs.
"""

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401, registers the operations

from ortho_edge.precision import Precision
from ortho_export.calibration import Calibration
from ortho_export.flat import FlatEncoder

GROUP = 32
"""Inputs that share a scale in `int4`."""
LOWEST, HIGHEST = -128, 127
TINY = float(torch.finfo(torch.float32).eps)


def quantized(
    encoder: FlatEncoder,
    precision: Precision,
    calibration: Calibration = (),
) -> FlatEncoder:
    """A copy of an encoder that computes in another precision.

    The means of norms are no layers but products with a buffer: they stay fp32 except in `fp16`, as
    do attention's own products, norms and all else that has no weights.

    Args:
        encoder: The fp32 encoder; it is left as it is.
        precision: `int8` scales every row of a weight and every frame of its input by itself, both
            symmetric or nearly so (XNNPACK's `qd8`, `qc8w`), and convolutions with several input
            channels likewise; depthwise ones stay fp32, for XNNPACK has no such kernel.
            `int8-static` has one scale per input and output, convolutions included. `int4` takes
            groups of `GROUP` inputs; layers without whole groups get `int8`.
        calibration: Features of speech, for `int8-static`.
    """
    if precision == "fp32":
        return encoder
    encoder = copy.deepcopy(encoder)
    if precision == "fp16":
        return encoder.half()
    if precision == "int8-static":
        return _with_fixed_scales(encoder, calibration)
    if precision == "int4":
        _quantise_in_groups(encoder)
        _replace(encoder, lambda layer: layer if _has_groups(layer) else _dynamic_layer(layer))
    else:
        _replace(encoder, _dynamic_layer)
    return encoder


def _quantise_in_groups(encoder: FlatEncoder) -> None:
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
    from torchao.quantization.granularity import PerGroup

    halves = Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4,  # pyright: ignore[reportAttributeAccessIssue]
        weight_granularity=PerGroup(GROUP),
    )
    quantize_(encoder, halves, lambda module, _: _has_groups(module))


def _has_groups(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and module.in_features % GROUP == 0


class RoundedWeight(nn.Module):
    """A weight in 8 bits with a scale per output."""

    values: Tensor
    scales: Tensor
    zeros: Tensor

    def __init__(self, weight: Float[Tensor, "O ..."]) -> None:
        """Rounds `weight`."""
        super().__init__()
        weight = weight.detach()
        scales = weight.flatten(1).abs().amax(1).clamp(min=TINY) / HIGHEST
        by_output = scales.view(-1, *[1] * (weight.ndim - 1))
        self.register_buffer("values", torch.round(weight / by_output).to(torch.int8))
        self.register_buffer("scales", scales)
        self.register_buffer("zeros", torch.zeros(len(scales), dtype=torch.int64))

    def forward(self) -> Float[Tensor, "O ..."]:
        """The rounded weight."""
        return torch.ops.quantized_decomposed.dequantize_per_channel(
            self.values, self.scales, self.zeros, 0, -HIGHEST, HIGHEST, torch.int8
        )


class DynamicRounding(nn.Module):
    """Rounds to 8 bits by the range of the values that are there."""

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The rounded values."""
        operations = torch.ops.quantized_decomposed
        scale, zero = operations.choose_qparams(x, LOWEST, HIGHEST, TINY, torch.int8)
        rounded = operations.quantize_per_tensor(x, scale, zero, LOWEST, HIGHEST, torch.int8)
        return operations.dequantize_per_tensor(rounded, scale, zero, LOWEST, HIGHEST, torch.int8)


class FrameRounding(nn.Module):
    """Rounds every frame to 8 bits by the range of the values in it.

    torchao has the same, written in operations of its own that are computed step by step, lengths
    included, whenever a pass of ExecuTorch goes over the graph: export took twice as long.
    """

    def forward(self, x: Float[Tensor, "T width"]) -> Float[Tensor, "T width"]:
        """The rounded values."""
        operations, bounds = torch.ops.quantized_decomposed, (LOWEST, HIGHEST, torch.int8)
        scales, zeros = operations.choose_qparams_per_token_asymmetric(x, torch.int8)
        rounded = operations.quantize_per_token(x, scales, zeros, *bounds)
        return operations.dequantize_per_token(rounded, scales, zeros, *bounds, x.dtype)


class FixedRounding(nn.Module):
    """Rounds to 8 bits by the range of what it has seen before it was fixed."""

    def __init__(self) -> None:
        """Has seen nothing; zero is always representable."""
        super().__init__()
        self.low = self.high = 0.0
        self.scale: float | None = None
        self.zero = 0

    def fix(self) -> None:
        """Ends watching."""
        self.scale = max((self.high - self.low) / (HIGHEST - LOWEST), TINY)
        self.zero = LOWEST - round(self.low / self.scale)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The values themselves while it watches, then rounded ones."""
        if self.scale is None:
            self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
            return x
        operations, bounds = torch.ops.quantized_decomposed, (LOWEST, HIGHEST, torch.int8)
        rounded = operations.quantize_per_tensor(x, self.scale, self.zero, *bounds)
        return operations.dequantize_per_tensor(rounded, self.scale, self.zero, *bounds)


class RoundedLayer(nn.Module):
    """A linear layer or convolution on rounded inputs, and a ReLU behind it where there is one."""

    def __init__(self, layer: nn.Module, rounding: nn.Module, output: nn.Module) -> None:
        """Takes over a layer, or a pair of a convolution and a ReLU."""
        super().__init__()
        self.has_relu = isinstance(layer, nn.Sequential)
        source = layer[0] if isinstance(layer, nn.Sequential) else layer
        assert isinstance(source, nn.Linear | nn.Conv1d | nn.Conv2d)
        self.weight, self.bias = RoundedWeight(source.weight), source.bias
        self.kind, self.options = type(source), ()
        if not isinstance(source, nn.Linear):
            self.options = (source.stride, source.padding, source.dilation, source.groups)
        self.input, self.output = rounding, output

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """What the layer makes of `x`."""
        if self.kind is nn.Conv1d:
            # It comes transposed: rounding it as it lies makes export guard on the free length.
            x = x.contiguous()
        compute = {nn.Linear: F.linear, nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d}[self.kind]
        y = compute(self.input(x), self.weight(), self.bias, *self.options)
        return self.output(F.relu(y) if self.has_relu else y)


def _dynamic_layer(layer: nn.Module) -> nn.Module | None:
    """A layer on inputs rounded as they come: a linear one, or a pair of a convolution and a ReLU.

    Convolutions with a single input channel stay as they are.
    """
    if isinstance(layer, nn.Linear):
        return RoundedLayer(layer, FrameRounding(), nn.Identity())
    if not isinstance(layer, nn.Sequential) or not isinstance(first := layer[0], nn.Conv2d):
        return None
    if first.in_channels == 1:
        return layer
    return RoundedLayer(layer, DynamicRounding(), nn.Identity())


def _fixed_layer(layer: nn.Module) -> nn.Module | None:
    """Any layer with weights on inputs with a fixed scale."""
    is_pair = isinstance(layer, nn.Sequential) and isinstance(layer[0], nn.Conv2d)
    if is_pair or isinstance(layer, nn.Linear | nn.Conv1d):
        return RoundedLayer(layer, FixedRounding(), FixedRounding())
    return None


def _replace(module: nn.Module, change: Callable[[nn.Module], nn.Module | None]) -> None:
    """Replaces what `change` takes, and looks no further inside it."""
    for name, child in list(module.named_children()):
        changed = change(child)
        if changed is None:
            _replace(child, change)
        else:
            setattr(module, name, changed)


@torch.no_grad()
def _with_fixed_scales(encoder: FlatEncoder, calibration: Sequence[Tensor]) -> FlatEncoder:
    assert calibration, "fixed scales are taken from speech"
    _replace(encoder, _fixed_layer)
    for features in calibration:
        encoder(features)
    for rounding in _roundings(encoder):
        rounding.fix()
    return encoder


def _roundings(encoder: nn.Module) -> Iterator[FixedRounding]:
    return (one for one in encoder.modules() if isinstance(one, FixedRounding))
