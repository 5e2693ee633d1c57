"""Inputs of the gated operations at a size and a share of open units, with work and traffic.

Letters: S subnets, B batch, T frames, D model width, H heads, C chunks, K depthwise kernel.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ortho_kernels.gated_attention.op import gated_attention
from ortho_kernels.gated_conv.op import gated_conv
from ortho_kernels.gated_ffn.op import gated_ffn
from ortho_kernels.worklist import WorkList, work_list

OPERATIONS = ("gated_ffn", "gated_conv", "gated_attention")
HEAD_DIM = 64
CHUNKS = 8
KERNEL_SIZE = 31
RUNS: dict[str, Callable[..., Tensor]] = {
    "gated_ffn": gated_ffn,
    "gated_conv": gated_conv,
    "gated_attention": gated_attention,
}


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a problem is.

    Attributes:
        subnets: S.
        batch: B.
        frames: T.
        dim: D; the FFN is 4 D wide and heads are 64 wide.
        active: Share of the units that is open in every subnet. The convolution is one unit: with
            a share below 1, that share of the subnets has it.
    """

    subnets: int = 1
    batch: int = 32
    frames: int = 400
    dim: int = 512
    active: float = 1.0


@dataclass(frozen=True)
class Problem:
    """One operation with its inputs.

    Attributes:
        operation: Its name.
        size: How large it is.
        tensors: Differentiable inputs by argument name.
        work: Its open units.
        lengths: (B,) real frames.
        upstream: Gradient of the output.
    """

    operation: str
    size: Size
    tensors: dict[str, Tensor]
    work: WorkList
    lengths: Tensor
    upstream: Tensor

    @property
    def valid(self) -> Tensor:
        """(B, T), True at real frames."""
        return torch.arange(self.size.frames, device=self.lengths.device) < self.lengths[:, None]

    def call(self, tensors: dict[str, Tensor]) -> Tensor:
        """The output (S, B, T, D): the operation with its residual, as in a block."""
        more: dict[str, Any] = {} if self.operation == "gated_ffn" else {"lengths": self.lengths}
        scale = 0.5 if self.operation == "gated_ffn" else 1.0
        run = RUNS[self.operation]
        return run(**tensors, work=self.work, scale=scale, **more)

    def with_gradients(
        self,
        run: Callable[[dict[str, Tensor]], Tensor] | None = None,
        tensors: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, ...]:
        """The output, then the gradient of every tensor; by the operation, or by another `run`."""
        leaves = tensors or self.tensors
        output = (run or self.call)(leaves)
        gradients = torch.autograd.grad(
            output, list(leaves.values()), self.upstream.to(output.dtype), materialize_grads=True
        )
        return output.detach(), *gradients

    def cast(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The inputs in another type: activations and matrices; the rest stays in float32."""
        return {
            name: tensor.detach()
            .to(dtype if name in ROUNDED or dtype == torch.float64 else torch.float32)
            .requires_grad_()
            for name, tensor in self.tensors.items()
        }


ROUNDED = ("x", "residual", "w1", "w2", "w_qkv", "w_out", "w_in")


def make_problem(
    operation: str,
    size: Size,
    device: torch.device,
    dtype: torch.dtype,
    *,
    seed: int = 0,
    ragged: bool = False,
) -> Problem:
    """A problem with random inputs, gates of 0.5 to 1.5 and open units drawn at random.

    Args:
        operation: One of `OPERATIONS`.
        size: How large.
        device: Where.
        dtype: Of activations and matrices.
        seed: Of everything random.
        ragged: Utterances of different lengths; else all are T long.
    """
    generator = torch.Generator(device).manual_seed(seed)
    host = torch.Generator().manual_seed(seed)
    units = num_units(operation, size.dim)
    kept = open_units(size, units, host)
    work = work_list(kept, units, device)

    def draw(*shape: int, deviation: float = 1.0) -> Tensor:
        return deviation * torch.randn(shape, generator=generator, device=device)

    gates = torch.zeros(size.subnets, units, device=device)
    for subnet, row in enumerate(kept):
        gates[subnet, row] = 0.5 + torch.rand(len(row), generator=host).to(device)
    tensors = {"x": draw(size.subnets, size.batch, size.frames, size.dim)}
    tensors |= _weights(operation, size, units, draw)
    tensors |= {"gates": gates, "residual": torch.empty_like(tensors["x"]).copy_(tensors["x"])}
    lengths = torch.full((size.batch,), size.frames)
    if ragged:
        lengths = 1 + (torch.rand(size.batch, generator=host) * size.frames).long()
        lengths[0] = size.frames
    lengths.clamp_(max=size.frames)
    lengths = lengths.to(device)
    # What stands at a padded frame is nobody's business, so no gradient comes from there.
    problem = Problem(operation, size, tensors, work, lengths, draw(*tensors["x"].shape))
    upstream = problem.upstream * problem.valid[:, :, None]
    return replace(problem, tensors=problem.cast(dtype), upstream=upstream.to(dtype))


def num_units(operation: str, dim: int) -> int:
    """Units that an operation gates at this width."""
    heads = max(1, dim // HEAD_DIM)
    return {"gated_ffn": CHUNKS, "gated_conv": 1, "gated_attention": heads}[operation]


def open_units(size: Size, units: int, host: torch.Generator) -> list[list[int]]:
    """Open units of every subnet, drawn at random."""
    if units == 1:
        kept = round(size.active * size.subnets)
        return [[0] if subnet < kept else [] for subnet in range(size.subnets)]
    kept = max(1, round(size.active * units))
    return [
        sorted(torch.randperm(units, generator=host)[:kept].tolist()) for _ in range(size.subnets)
    ]


def _weights(
    operation: str, size: Size, units: int, draw: Callable[..., Tensor]
) -> dict[str, Tensor]:
    dim = size.dim
    deviation = dim**-0.5
    if operation == "gated_ffn":
        width = 4 * dim // units
        return {
            "w1": draw(units, width, dim, deviation=deviation), "b1": draw(units, width),
            "w2": draw(units, width, dim, deviation=deviation / 2), "b2": draw(dim),
        }  # fmt: skip
    if operation == "gated_attention":
        return {
            "w_qkv": draw(units, 3, HEAD_DIM, dim, deviation=deviation),
            "b_qkv": draw(units, 3, HEAD_DIM), "b_out": draw(dim),
            "w_out": draw(units, HEAD_DIM, dim, deviation=deviation),
        }  # fmt: skip
    return {
        "w_in": draw(2 * dim, dim, deviation=deviation), "b_in": draw(2 * dim),
        "w_depthwise": draw(dim, 1, KERNEL_SIZE, deviation=KERNEL_SIZE**-0.5),
        "b_depthwise": draw(dim), "w_norm": 1 + draw(dim, deviation=0.1), "b_norm": draw(dim),
        "w_out": draw(dim, dim, deviation=deviation), "b_out": draw(dim),
    }  # fmt: skip


def stages(operation: str, size: Size, *, backward: bool) -> list[tuple[float, float]]:
    """(FLOPs, bytes) of every pass that an ideal sequence of kernels makes over its data.

    Bytes are 16-bit activations and weights, each read or written once per pass. A pass can be no
    faster than its FLOPs at the matrix roof and its bytes at the copy roof; the sum over the passes
    is the floor that the report compares with (`docs/kernels.md`).

    Args:
        operation: One of `OPERATIONS`.
        size: With its share of open units.
        backward: Add the passes of the backward.
    """
    dim, frames = size.dim, size.frames
    rows = size.batch * frames
    kept = open_units(size, num_units(operation, dim), torch.Generator())
    pairs, live = sum(map(len, kept)), sum(map(bool, kept))
    stream = live * rows * dim * 2.0  # bytes of one pass over x, y or the residual

    def gemm(width: int, weight_units: int = 1) -> float:
        return 2.0 * pairs * rows * dim * width * weight_units

    if operation == "gated_ffn":
        width = 4 * dim // CHUNKS
        hidden = pairs * rows * width * 2.0
        weights = CHUNKS * width * dim * 2.0
        flops = gemm(width)
        forward = [
            (flops, stream + weights + 2 * hidden),  # writes a and h
            (flops, hidden + weights + 2 * stream),  # reads h and the residual, writes y
        ]
        back = [
            (flops, stream + weights + 2 * hidden),  # dh: reads dy and a, writes da
            (flops, stream + hidden + weights),  # dW2 from dy and h
            (flops, stream + hidden + weights),  # dW1 from x and da
            (flops, hidden + weights + stream),  # dx
        ]
    elif operation == "gated_attention":
        head = pairs * rows * HEAD_DIM * 2.0
        weights = dim // HEAD_DIM * HEAD_DIM * dim * 2.0
        core = 4.0 * pairs * size.batch * frames * frames * HEAD_DIM
        qkv, out = gemm(HEAD_DIM, 3), gemm(HEAD_DIM)
        forward = [
            (qkv, stream + 3 * weights + 3 * head),
            (core, 4 * head),
            (out, head + weights + 2 * stream),
        ]
        back = [
            (out, stream + weights + head),  # do
            (out, stream + head + weights),  # dWo
            (2.5 * core, 8 * head),  # q, k, v, o, do in, dq, dk, dv out
            (qkv, stream + 3 * head + 3 * weights),  # dWqkv
            (qkv, 3 * head + 3 * weights + stream),  # dx
        ]
    else:
        weights = dim * dim * 2.0
        depthwise = 2.0 * pairs * rows * dim * KERNEL_SIZE
        one = gemm(dim)
        forward = [
            (2 * one, stream + 2 * weights + 3 * stream),  # writes both halves and their product
            (depthwise / 16, 2 * stream),  # not on the matrix units, which are some 16 times faster
            (one, stream + weights + 2 * stream),
        ]
        back = [
            (one, 2 * stream + weights),  # dh
            (one, 2 * stream + weights),  # dW2
            (2 * depthwise / 16, 4 * stream),  # norm, depthwise and its weights
            (0.0, 5 * stream),  # GLU
            (2 * one, 3 * stream + 2 * weights),  # dW1
            (2 * one, 3 * stream + 2 * weights),  # dx
        ]
    return forward + back if backward else forward
