"""A checkpoint: a folder that carries everything which export and evaluation need.

`model.safetensors` holds the weights, `checkpoint.json` the architecture, the trained subnets with
their error rates and where they come from, `tokens.txt` the symbols. Nothing in it can execute.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from ortho_edge.atomic import atomic_folder, recover
from ortho_edge.checkpoint_description import Description, check_room, read_description
from ortho_edge.cli import UserError
from ortho_edge.components import num_params
from ortho_edge.json_files import read_json, shown, table
from ortho_edge.subnet import Subnet
from ortho_edge.supernet import Supernet
from ortho_edge.tokens import Tokens

SCHEMA_VERSION = 1
WEIGHTS, DESCRIPTION, SYMBOLS = "model.safetensors", "checkpoint.json", "tokens.txt"

FEATURES = {
    "type": "kaldi-fbank", "sample_rate": 16000, "num_mel_bins": 80, "frame_length_ms": 25,
    "frame_shift_ms": 10, "low_freq": 20, "high_freq": -400, "window": "povey",
    "preemphasis": 0.97, "snip_edges": False, "dither": 0, "sample_scale": "[-1, 1]",
}  # fmt: skip
"""The feature settings that the weights were trained with (those of sherpa-onnx)."""


@dataclass(frozen=True, kw_only=True)
class TrainedSubnet:
    """A subnet that training produced, or one composed from its components.

    Attributes:
        name: Its size's name, such as `s030`.
        subnet: What it keeps.
        head: Its CTC head.
        target: The share of the full cost that it was trained for; its own share where it was not.
        metrics: Error rates in per cent, such as `{"dev_wer": 4.2, "dev_cer": 1.9}`.
    """

    name: str
    subnet: Subnet
    head: int
    target: float
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything about a trained supernet.

    Attributes:
        supernet: The network, in eval mode.
        tokens: Its symbols.
        subnets: Trained subnets, the largest first.
        provenance: Seed, versions, commit, data digest, command.
        order: Every component, in the order in which the learned slots take them; None in
            checkpoints that do not record it.
        leading: Numbers of components: of each, the leading ones of `nesting.nested_order` are a
            subnet between the sizes that any-budget training drew. Empty without such training.
    """

    supernet: Supernet
    tokens: Tokens
    subnets: tuple[TrainedSubnet, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    order: tuple[int, ...] | None = None
    leading: tuple[int, ...] = ()

    def subnet(self, name: str) -> TrainedSubnet:
        """The trained subnet of that name.

        Raises:
            UserError: There is none.
        """
        for trained in self.subnets:
            if trained.name == name:
                return trained
        raise UserError(
            f"unknown subnet {name!r}; known: {', '.join(one.name for one in self.subnets)}"
        )


def shipped_checkpoint() -> Path:
    """The folder of the checkpoint that comes with the package."""
    return Path(str(resources.files("ortho_edge"))) / "checkpoints" / "digits"


def save_checkpoint(
    checkpoint: Checkpoint, path: Path, extra_files: Mapping[str, bytes] | None = None
) -> None:
    """Writes a checkpoint folder; it appears complete or not at all.

    Args:
        checkpoint: What to write.
        path: The folder; replaced when it exists.
        extra_files: More files of the folder by name, such as a model card.
    """
    description = {
        "schema_version": SCHEMA_VERSION,
        "architecture": dataclasses.asdict(checkpoint.supernet.architecture),
        "num_ctc_heads": len(checkpoint.supernet.ctc_heads),
        "features": FEATURES,
        "subnets": [
            {
                "name": one.name,
                "target": one.target,
                "head": one.head,
                "kept": list(one.subnet.kept),
                "metrics": dict(one.metrics),
            }
            for one in checkpoint.subnets
        ],
        "provenance": dict(checkpoint.provenance),
    }
    if checkpoint.order is not None:
        description["order"] = list(checkpoint.order)
    if checkpoint.leading:
        description["leading"] = list(checkpoint.leading)
    weights = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in checkpoint.supernet.state_dict().items()
    }
    with atomic_folder(path) as folder:
        (folder / WEIGHTS).write_bytes(save(weights))
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", "utf-8")
        (folder / SYMBOLS).write_text(checkpoint.tokens.lines(), "utf-8")
        for name, content in (extra_files or {}).items():
            (folder / name).write_bytes(content)


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint folder.

    Raises:
        UserError: It is missing, incomplete, truncated or of another schema version.
    """
    path = Path(path)
    if not path.exists():
        recover(path)
    if not path.is_dir():
        raise UserError(f"no checkpoint folder at {path}")
    for name in (WEIGHTS, DESCRIPTION, SYMBOLS):
        if not (path / name).is_file():
            raise UserError(f"checkpoint {path} is incomplete: {name} is missing")
    try:
        content = table(read_json(path / DESCRIPTION), DESCRIPTION)
        version = content["schema_version"]
        if version != SCHEMA_VERSION:
            raise UserError(
                f"checkpoint {path} has schema version {shown(version)}; "
                f"this version reads {SCHEMA_VERSION}"
            )
        return _assemble(path, read_description(content))
    except KeyError as error:
        raise UserError(f"checkpoint {path} is damaged: {DESCRIPTION} lacks {error}") from error
    except (OSError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        # torch lists every tensor that does not fit, a line each.
        reason = " ".join(str(error).split())
        reason = reason if len(reason) <= 300 else f"{reason[:296]} ..."
        raise UserError(f"checkpoint {path} is damaged: {reason}") from error


def _assemble(path: Path, description: Description) -> Checkpoint:
    if description.features != FEATURES:
        raise ValueError(f"feature settings {shown(description.features)} are not {FEATURES}")
    architecture, num_heads = description.architecture, description.num_ctc_heads
    # What is described is only made once it is known not to be much larger than what is there.
    check_room(path / WEIGHTS, num_params(architecture, num_heads))
    tokens = Tokens.parse((path / SYMBOLS).read_text("utf-8"))
    if len(tokens) != architecture.vocab_size:
        raise ValueError(f"{len(tokens)} symbols for {architecture.vocab_size} outputs")
    supernet = Supernet(architecture, num_heads)
    supernet.load_state_dict(load_file(path / WEIGHTS))
    if not all(bool(torch.isfinite(tensor).all()) for tensor in supernet.parameters()):
        raise ValueError("a weight is not finite")
    size = len(supernet.space)
    order, leading = description.order, description.leading
    if order is not None and sorted(order) != list(range(size)):
        raise ValueError("order must name every component once")
    if leading and (order is None or not all(0 < one < size for one in leading)):
        raise ValueError("leading must hold numbers of components of a recorded order")
    return Checkpoint(
        supernet=supernet.eval(),
        tokens=tokens,
        subnets=tuple(
            TrainedSubnet(
                name=one.name,
                subnet=Subnet(size, one.kept),
                head=one.head,
                target=one.target,
                metrics=one.metrics,
            )
            for one in description.subnets
        ),
        provenance=description.provenance,
        order=order,
        leading=leading,
    )
