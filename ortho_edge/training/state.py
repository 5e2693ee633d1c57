"""The state of a run on disk: enough to go on exactly as if it had never stopped.

Randomness is derived from (seed, step) and (seed, epoch, cut), so no generator state is kept. The
file is safetensors, with the counters as JSON in its header; nothing in it can execute.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ortho_edge.atomic import write_atomically
from ortho_edge.cli import UserError

STATE_FILE = "training_state.safetensors"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: Updates done.
        epoch: Pass over the data that is under way.
        epoch_start: Updates done when it began.
        position: Batches of it that were used.
        selected: Kept components of each target, once stage 1 has ended.
        entropy: Mean row entropy at the freeze.
        collisions: Rows that had to take another group than their most likely one at the freeze.
        skipped: Cuts left out so far, by reason.
    """

    step: int = 0
    epoch: int = 0
    epoch_start: int = 0
    position: int = 0
    selected: tuple[tuple[int, ...], ...] | None = None
    entropy: float | None = None
    collisions: int | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)


def save_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, run: dict
) -> None:
    """Writes weights, optimiser moments and progress in one atomic step.

    Args:
        folder: The run's folder.
        model: Its state dict is kept.
        optimizer: AdamW over `model`'s parameters.
        progress: Where the run stands.
        run: What must be equal when the run goes on (JSON values).
    """
    tensors: dict[str, Tensor] = {f"model.{name}": t for name, t in model.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in moments.items()}
    header = {"progress": json.dumps(asdict(progress)), "run": json.dumps(run)}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(folder / STATE_FILE, save(contiguous, metadata=header))


def load_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, run: dict
) -> Progress:
    """Restores what `save_state` wrote; without a file, the beginning.

    Raises:
        UserError: The file is damaged, or belongs to a run with other settings.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return Progress()
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        fields = json.loads(header["progress"])
        saved_run = json.loads(header["run"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    wanted = json.loads(json.dumps(run))
    if saved_run != wanted:
        keys = sorted({*saved_run, *wanted})
        names = [key for key in keys if saved_run.get(key) != wanted.get(key)]
        raise UserError(
            f"{folder} holds a run with another {', '.join(names)}; choose another --out"
        )
    model.load_state_dict(
        {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    )
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".", 2)
            moments.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    if fields["selected"] is not None:
        fields["selected"] = tuple(tuple(kept) for kept in fields["selected"])
    return Progress(**fields)
