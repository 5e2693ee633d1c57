"""The state of a run on disk: enough to go on exactly as if it had never stopped.

Randomness is derived from (seed, step) and (seed, epoch, cut), so no generator state is kept. The
file is safetensors, with the counters as JSON in its header; nothing in it can execute.
"""

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ortho_edge.atomic import write_atomically
from ortho_edge.cli import UserError

logger = logging.getLogger(__name__)

STATE_FILE = "training_state.safetensors"
TRAINING_DATA, DEVELOPMENT_DATA = "training data", "development data"
"""Settings of a run that hold `cuts`, `hours` and `digest`."""

_DAMAGES = (SafetensorError, AttributeError, KeyError, RuntimeError, TypeError, ValueError)


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

    def __post_init__(self) -> None:
        """Raises ValueError naming the field and the value that no run can have."""
        counts = {
            name: getattr(self, name) for name in ("step", "epoch", "epoch_start", "position")
        }
        counts |= {f"skipped {name!r}": number for name, number in self.skipped.items()}
        if self.collisions is not None:
            counts["collisions"] = self.collisions
        for name, number in counts.items():
            if type(number) is not int or not 0 <= number < 2**53:
                raise ValueError(f"{name} is {number!r}")
        if self.epoch_start > self.step:
            raise ValueError(f"epoch_start is {self.epoch_start}, after step {self.step}")
        if self.entropy is not None and not 0 <= self.entropy < math.inf:
            raise ValueError(f"entropy is {self.entropy!r}")
        for number in (one for kept in self.selected or () for one in kept):
            if type(number) is not int or number < 0:
                raise ValueError(f"selected holds {number!r}")

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "Progress":
        """From what `asdict` made, read as JSON.

        Raises:
            TypeError, ValueError: It is something else.
        """
        if unknown := {*table} ^ {one.name for one in fields(cls)}:
            raise ValueError(f"the progress has other fields: {', '.join(sorted(unknown))}")
        selected = table["selected"]
        kept = None if selected is None else tuple(tuple(one) for one in selected)
        return cls(**{**table, "selected": kept})


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
    header["digest"] = _digest(header, contiguous)
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
        # States from before it have none.
        if header.get("digest", wanted := _digest(header, tensors)) != wanted:
            raise ValueError("its digest is another than that of its content")
        progress = Progress.of(json.loads(header["progress"]))
        _compare(folder, json.loads(header["run"]), json.loads(json.dumps(run)))
        _restore(model, optimizer, tensors)
    except _DAMAGES as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return progress


def _restore(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Loads weights and moments.

    Raises:
        KeyError, RuntimeError, TypeError, ValueError: They are not those of this model.
    """
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".", 2)
            moments.setdefault(int(number), {})[key] = tensor
    model.load_state_dict(
        {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    )
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def _compare(folder: Path, saved: dict, wanted: dict) -> None:
    """Checks that a saved run is the wanted one.

    Raises:
        UserError: It is not; names what differs.
    """
    for name in (TRAINING_DATA, DEVELOPMENT_DATA):
        if name not in saved and wanted.pop(name, None) is not None:
            logger.warning("%s does not say what %s it is of; taken as it is", folder, name)
    keys = sorted({*saved, *wanted})
    differing = [key for key in keys if saved.get(key) != wanted.get(key)]
    if differing:
        names = ", ".join(_difference(key, saved.get(key), wanted.get(key)) for key in differing)
        raise UserError(f"{folder} holds a run with another {names}; choose another --out")


def _difference(key: str, saved: object, wanted: object) -> str:
    """What differs; of data, by how much."""
    if not isinstance(saved, dict) or not isinstance(wanted, dict):
        return key
    there, here = (f"{one.get('cuts')} cuts of {one.get('hours')} h" for one in (saved, wanted))
    if there == here:
        return f"{key} ({there}, with other names, lengths or texts)"
    return f"{key} ({there} there, {here} here)"


def _digest(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over everything that a state holds."""
    digest = hashlib.sha256(json.dumps([header.get("progress"), header.get("run")]).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
