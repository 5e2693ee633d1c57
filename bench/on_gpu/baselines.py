"""What the kernels must beat at the same masks, all of it plain torch.

The strongest is `compact`: the host knows the masks, so each subnet's open weights are sliced or
gathered and cuBLAS and the vendor's attention run on smaller shapes, under torch.compile.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.on_gpu.problems import HEAD_DIM, Problem
from ortho_kernels.gated_attention.reference import gated_attention
from ortho_kernels.gated_conv.reference import gated_conv
from ortho_kernels.gated_ffn.reference import gated_ffn
from ortho_kernels.stacking import OpenUnits, open_slabs, over_subnets

Run = Callable[[dict[str, Tensor]], Tensor]
AttentionCore = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q, k, v (B, heads, T, head_dim) to (B, heads, T, head_dim)."""


def masked(problem: Problem) -> Run:
    """Computes every unit and multiplies by its gate, 0 or not."""
    work = problem.work
    everything = tuple(tuple(range(work.num_units)) for _ in range(work.num_subnets))
    return compact(replace(problem, work=replace(work, open_units=everything)))


def compact(problem: Problem) -> Run:
    """Computes open units only, subnet by subnet."""
    units: OpenUnits = problem.work.open_units
    valid = problem.valid
    scale = 0.5 if problem.operation == "gated_ffn" else 1.0

    def run(tensors: dict[str, Tensor]) -> Tensor:
        inputs: dict[str, Any] = dict(tensors)
        residual = inputs.pop("residual")
        if problem.operation == "gated_ffn":
            branch = gated_ffn(**inputs, open_chunks=units)
        elif problem.operation == "gated_conv":
            branch = gated_conv(**inputs, open_modules=units, valid=valid)
        else:
            branch = gated_attention(**inputs, open_heads=units, valid=valid)
        return torch.add(residual, branch, alpha=scale)

    return run


def compact_attention(problem: Problem, core: AttentionCore) -> Run:
    """`compact` with another attention between the projections."""
    batch, frames = problem.size.batch, problem.size.frames

    def run(tensors: dict[str, Tensor]) -> Tensor:
        x, gates = tensors["x"], tensors["gates"]

        def one(subnet: int, units: list[int]) -> Tensor:
            weight = open_slabs(tensors["w_qkv"], units).flatten(0, 2)
            bias = open_slabs(tensors["b_qkv"], units).flatten().to(x.dtype)
            qkv = F.linear(x[subnet], weight, bias).view(batch, frames, len(units), 3, HEAD_DIM)
            q, k, v = qkv.permute(3, 0, 2, 1, 4)
            heads = core(q, k, v) * gates[subnet, units].to(x.dtype)[:, None, None]
            out = open_slabs(tensors["w_out"], units).flatten(0, 1)
            return heads.transpose(1, 2).flatten(-2) @ out + tensors["b_out"].to(x.dtype)

        return tensors["residual"] + over_subnets(x, problem.work.open_units, one)

    return run


def _scaled_dot_product(backend: str) -> AttentionCore:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def core(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend[backend]):
            return F.scaled_dot_product_attention(q, k, v)

    return core


def _varlen() -> AttentionCore:
    varlen_attn = importlib.import_module("torch.nn.attention.varlen").varlen_attn

    def core(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch, heads, frames, _ = q.shape
        starts = torch.arange(batch + 1, dtype=torch.int32, device=q.device) * frames
        packed = (part.transpose(1, 2).reshape(-1, heads, HEAD_DIM) for part in (q, k, v))
        y = varlen_attn(*packed, starts, starts, frames, frames)
        return y.view(batch, frames, heads, HEAD_DIM).transpose(1, 2)

    return core


def _flex() -> AttentionCore:
    from torch.nn.attention.flex_attention import flex_attention

    compiled = torch.compile(flex_attention, dynamic=False)

    def core(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        y = compiled(q, k, v)
        assert isinstance(y, Tensor)
        return y

    return core


def baselines(problem: Problem, *, autotune: bool) -> Iterator[tuple[str, Run]]:
    """Names and baselines of an operation, the cheapest to prepare first.

    Args:
        problem: With utterances of full length: then no mask is needed, which only helps them.
        autotune: Add Inductor's max-autotune, half a minute to prepare.
    """
    yield "masked", masked(problem)
    yield "compact", compact(problem)
    if problem.operation == "gated_attention":
        yield "flash", compact_attention(problem, _scaled_dot_product("FLASH_ATTENTION"))
        yield "cudnn", compact_attention(problem, _scaled_dot_product("CUDNN_ATTENTION"))
        yield "efficient", compact_attention(problem, _scaled_dot_product("EFFICIENT_ATTENTION"))
        yield "varlen", compact_attention(problem, _varlen())
        yield "flex", compact_attention(problem, _flex())
    yield "compiled", torch.compile(_best_compact(problem), dynamic=False)
    if autotune:
        mode = "max-autotune-no-cudagraphs"
        yield "autotuned", torch.compile(_best_compact(problem), dynamic=False, mode=mode)


def _best_compact(problem: Problem) -> Run:
    if problem.operation == "gated_attention" and problem.lengths.is_cuda:
        # Without a mask the fastest vendor kernel is free to be taken.
        return compact_attention(problem, F.scaled_dot_product_attention)
    return compact(problem)


def autocast(problem: Problem):
    """Float32 biases and gates meet 16-bit activations, as in training."""
    dtype, kind = problem.tensors["x"].dtype, problem.lengths.device.type
    return torch.autocast(kind, dtype) if dtype.itemsize == 2 else nullcontext()
