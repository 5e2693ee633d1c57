"""Tensors of a training state: exactly those that the model and its optimiser go on with."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ortho_edge.json_files import shown

MODEL, OPTIMIZER = "model.", "optimizer."
STEP, SQUARES = "step", "exp_avg_sq"
"""Moments of AdamW that are never negative."""
MOMENTS = (STEP, "exp_avg", SQUARES)

Moments = dict[int, dict[str, Tensor]]


def state_digest(texts: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all that a state holds, whatever the order that it lies in."""
    digest = hashlib.sha256()
    for name, content in sorted(texts.items()):
        digest.update(f"{name}\0{content}\0".encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def checked_tensors(
    tensors: Mapping[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], Moments]:
    """Weights by name, and AdamW's moments by the number of their parameter.

    Args:
        tensors: What a state holds.
        model: What the weights are for.
        optimizer: AdamW over the model's parameters. One that had no gradient yet has no moments.

    Raises:
        ValueError: A tensor is missing, unknown, of another shape or type, or not finite.
    """
    wanted = model.state_dict()
    weights = {
        name.removeprefix(MODEL): one for name, one in tensors.items() if name.startswith(MODEL)
    }
    if different := sorted(wanted.keys() ^ weights.keys()):
        kind = "lacks" if different[0] in wanted else "has an unknown"
        raise ValueError(f"it {kind} tensor {shown(different[0])}")
    for name, one in weights.items():
        _check(one, wanted[name], MODEL + name)
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    moments: Moments = {}
    for name, one in tensors.items():
        if name.startswith(MODEL):
            continue
        kind, _, rest = name.partition(".")
        number, _, key = rest.partition(".")
        known = f"{kind}." == OPTIMIZER and number.isascii() and number.isdecimal()
        if not known or key not in MOMENTS or int(number) >= len(parameters):
            raise ValueError(f"it has an unknown tensor {shown(name)}")
        like = torch.zeros(()) if key == STEP else parameters[int(number)]
        _check(one, like, name)
        if key in (STEP, SQUARES) and bool((one < 0).any()):
            raise ValueError(f"{name} is negative")
        moments.setdefault(int(number), {})[key] = one
    for number, found in moments.items():
        if missing := [key for key in MOMENTS if key not in found]:
            raise ValueError(f"it lacks tensor {OPTIMIZER}{number}.{missing[0]}")
    return weights, moments


def _check(found: Tensor, like: Tensor, name: str) -> None:
    if found.shape != like.shape or found.dtype != like.dtype:
        raise ValueError(
            f"{name} is {found.dtype} of shape {tuple(found.shape)}, not {like.dtype} of "
            f"{tuple(like.shape)}"
        )
    if found.is_floating_point() and not bool(torch.isfinite(found).all()):
        raise ValueError(f"{name} is not finite")
