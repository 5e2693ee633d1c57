"""The state of a run on disk: enough to go on exactly as if it had never stopped.

Randomness is derived from (seed, step) and (seed, epoch, cut), so no generator state is kept. The
file is safetensors, with the counters as JSON in its header; nothing in it can execute.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ortho_edge.atomic import write_atomically
from ortho_edge.cli import UserError
from ortho_edge.json_files import array, number, parse_json, shown, table, text, whole
from ortho_edge.training.state_tensors import checked_tensors, state_digest

logger = logging.getLogger(__name__)

STATE_FILE = "training_state.safetensors"
TRAINING_DATA, DEVELOPMENT_DATA = "training data", "development data"
"""Settings of a run that hold `cuts`, `hours` and `digest`."""

DIGEST = "sha256"
COUNTERS = ("step", "epoch", "epoch_start", "position")
MOST_BATCHES = 2**40
"""More than any run has."""


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
        """Raises ValueError when the numbers contradict each other."""
        if not 0 <= self.epoch_start <= self.step:
            raise ValueError(f"epoch_start {self.epoch_start} is not from 0 to step {self.step}")
        # An update uses a batch, and no epoch goes without one.
        if self.position < self.step - self.epoch_start:
            raise ValueError(
                f"position {self.position} is less than the {self.step - self.epoch_start} updates "
                "of the epoch"
            )
        if not 0 <= self.epoch <= self.step:
            raise ValueError(f"epoch {self.epoch} is not from 0 to step {self.step}")


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
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
    header = {"progress": json.dumps(asdict(progress)), "run": json.dumps(run)}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header[DIGEST] = state_digest(header, contiguous)
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
        header, tensors = _read(path)
        saved_run = table(parse_json(header["run"], "run"), "run")
        progress = read_progress(parse_json(header["progress"], "progress"))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if progress.step > run.get("num_steps", progress.step):
        raise UserError(f"{path} is damaged: it has {progress.step} of {run['num_steps']} updates")
    _compare(folder, saved_run, json.loads(json.dumps(run)))
    try:
        weights, moments = checked_tensors(tensors, model, optimizer)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    model.load_state_dict(weights)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return progress


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The header's texts and the tensors, as they were written."""
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        # Copies: what the optimiser goes on with must not lie in the file.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    stated = header.pop(DIGEST, None)
    # States of earlier versions have none.
    if stated is not None and stated != state_digest(header, tensors):
        raise ValueError("its content is not what was written")
    return header, tensors


def read_progress(content: object) -> Progress:
    """A run's progress from its JSON.

    Raises:
        ValueError: An entry is missing, unknown or out of type or range.
    """
    entries = table(content, "progress")
    names = [one.name for one in fields(Progress)]
    if set(entries) != set(names):
        different = sorted(set(entries) ^ set(names))
        raise ValueError(f"progress has or lacks {shown(different[0])}; it has {', '.join(names)}")
    selected, entropy, collisions = (entries[one] for one in ("selected", "entropy", "collisions"))
    return Progress(
        **{name: whole(entries[name], name, 0, MOST_BATCHES) for name in COUNTERS},
        selected=None if selected is None else tuple(map(_kept, array(selected, "selected"))),
        entropy=None if entropy is None else number(entropy, "entropy"),
        collisions=None if collisions is None else whole(collisions, "collisions"),
        skipped={
            text(reason, "skipped"): whole(count, f"skipped.{reason}")
            for reason, count in table(entries["skipped"], "skipped").items()
        },
    )


def _kept(value: object) -> tuple[int, ...]:
    kept = [whole(one, "selected") for one in array(value, "selected")]
    if kept != sorted(set(kept)):
        raise ValueError(f"selected must be ascending and distinct, not {shown(kept)}")
    return tuple(kept)


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
