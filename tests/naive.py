"""The gated operations written out unit by unit, frame by frame: slow, and hard to get wrong.

Nothing here comes from the packages under test. Weights have the unit-contiguous layout, closed
units are never touched. Letters: S subnets, B batch, T frames, D model width, C chunks, H heads.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + eps) * weight + bias


def ffn(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, gates: Tensor) -> Tensor:
    """(S, B, T, D) for w1 and w2 (C, F/C, D) and gates (S, C)."""
    rows = []
    for s in range(x.shape[0]):
        units = [c for c in range(w1.shape[0]) if gates[s, c] != 0]
        y = torch.zeros_like(x[s])
        for c in units:
            hidden = silu(torch.einsum("btd,fd->btf", x[s], w1[c]) + b1[c])
            y = y + gates[s, c] * torch.einsum("btf,fd->btd", hidden, w2[c])
        rows.append(y + b2 if units else y)
    return torch.stack(rows)


def attention_head(x: Tensor, w_qkv: Tensor, b_qkv: Tensor, length: int) -> Tensor:
    """(T, head_dim) of one head and one utterance x (T, D); only `length` frames are keys."""
    q, k, v = (torch.einsum("td,ed->te", x, w_qkv[i]) + b_qkv[i] for i in range(3))
    frames = []
    for t in range(x.shape[0]):
        weights = torch.exp((k[:length] * q[t]).sum(-1) / math.sqrt(q.shape[1]))
        frames.append((weights[:, None] * v[:length]).sum(0) / weights.sum())
    return torch.stack(frames)


def attention(
    x: Tensor,
    w_qkv: Tensor,
    b_qkv: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    gates: Tensor,
    lengths: Sequence[int],
) -> Tensor:
    """(S, B, T, D) for w_qkv (H, 3, head_dim, D), w_out (H, head_dim, D), gates (S, H)."""
    rows = []
    for s in range(x.shape[0]):
        units = [h for h in range(w_qkv.shape[0]) if gates[s, h] != 0]
        utterances = []
        for b, length in enumerate(lengths):
            y = torch.zeros_like(x[s, b])
            for h in units:
                head = attention_head(x[s, b], w_qkv[h], b_qkv[h], length)
                y = y + gates[s, h] * torch.einsum("te,ed->td", head, w_out[h])
            utterances.append(y + b_out if units else y)
        rows.append(torch.stack(utterances))
    return torch.stack(rows)


def conv(
    x: Tensor,
    w_in: Tensor,
    b_in: Tensor,
    w_depthwise: Tensor,
    b_depthwise: Tensor,
    w_norm: Tensor,
    b_norm: Tensor,
    w_out: Tensor,
    b_out: Tensor,
    gates: Tensor,
    lengths: Sequence[int],
) -> Tensor:
    """(S, B, T, D) for w_depthwise (D, 1, K) and gates (S, 1)."""
    dim, kernel = x.shape[-1], w_depthwise.shape[-1]
    rows = []
    for s in range(x.shape[0]):
        if gates[s, 0] == 0:
            rows.append(torch.zeros_like(x[s]))
            continue
        utterances = []
        for b, length in enumerate(lengths):
            values = torch.einsum("td,ed->te", x[s, b], w_in[:dim]) + b_in[:dim]
            glu_gates = torch.einsum("td,ed->te", x[s, b], w_in[dim:]) + b_in[dim:]
            z = values / (1 + torch.exp(-glu_gates))
            frames = []
            for t in range(x.shape[2]):
                total = b_depthwise
                for tap in range(kernel):
                    source = t + tap - kernel // 2
                    if 0 <= source < length:
                        total = total + w_depthwise[:, 0, tap] * z[source]
                frames.append(total)
            y = silu(layer_norm(torch.stack(frames), w_norm, b_norm))
            utterances.append(gates[s, 0] * (torch.einsum("td,ed->te", y, w_out) + b_out))
        rows.append(torch.stack(utterances))
    return torch.stack(rows)
