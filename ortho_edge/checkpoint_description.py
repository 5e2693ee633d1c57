"""What `checkpoint.json` may say: types and ranges, before anything is made of it.

The file decides how much memory a network takes, so what it describes is held against the size of
the weights beside it first.
"""

import dataclasses
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ortho_edge.conformer.architecture import Architecture
from ortho_edge.json_files import array, number, parse_json, shown, table, text, whole

MAX_HEADER_BYTES = 100 * 2**20
"""What the safetensors format allows."""
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a number of each type that weights may have."""
ROOM = 2
"""Times the numbers in the file that a description may have; what differs is said afterwards."""


@dataclass(frozen=True, kw_only=True)
class DescribedSubnet:
    """One entry of `subnets`, see `ortho_edge.checkpoint.TrainedSubnet`."""

    name: str
    kept: tuple[int, ...]
    head: int
    target: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Description:
    """The content of `checkpoint.json`, see `ortho_edge.checkpoint.Checkpoint`."""

    architecture: Architecture
    num_ctc_heads: int
    features: Mapping[str, Any]
    subnets: tuple[DescribedSubnet, ...]
    provenance: Mapping[str, Any]
    order: tuple[int, ...] | None
    leading: tuple[int, ...]


def read_description(content: Mapping[str, Any]) -> Description:
    """Checks the content of a description.

    Args:
        content: The object that the file holds. Keys that this version does not know are let be.

    Raises:
        KeyError: An entry is missing.
        ValueError: A value is out of type or range; the message names the entry.
    """
    num_heads = whole(content["num_ctc_heads"], "num_ctc_heads", 1)
    subnets = tuple(
        _subnet(one, f"subnets[{index}]", num_heads)
        for index, one in enumerate(array(content["subnets"], "subnets"))
    )
    names = [one.name for one in subnets]
    if len(set(names)) < len(names):
        raise ValueError(f"two subnets have one name: {shown(names)}")
    # Added after the first checkpoints: those that lack it are as good.
    order = content.get("order")
    return Description(
        architecture=_architecture(table(content["architecture"], "architecture")),
        num_ctc_heads=num_heads,
        features=table(content["features"], "features"),
        subnets=subnets,
        provenance=_provenance(table(content["provenance"], "provenance")),
        order=None if order is None else _indices(order, "order"),
        leading=_indices(content.get("leading", []), "leading"),
    )


def _architecture(content: dict[str, Any]) -> Architecture:
    fields = {one.name: one for one in dataclasses.fields(Architecture)}
    for name, value in content.items():
        if name not in fields:
            known = ", ".join(fields)
            raise ValueError(f"architecture has an unknown entry {shown(name)}; known: {known}")
        if name == "front_end_channels":
            for one in array(value, f"architecture.{name}"):
                whole(one, f"architecture.{name}", 1)
        elif fields[name].type is int:
            whole(value, f"architecture.{name}")
        else:
            text(value, f"architecture.{name}")
    for name, one in fields.items():
        if name not in content and one.default is dataclasses.MISSING:
            raise KeyError(f"architecture.{name}")
    channels = tuple(content.get("front_end_channels", fields["front_end_channels"].default))
    return Architecture(**{**content, "front_end_channels": channels})


def _subnet(content: object, where: str, num_heads: int) -> DescribedSubnet:
    entries = table(content, where)
    name = text(entries["name"], f"{where}.name", 200)
    head = whole(entries["head"], f"{where}.head")
    if head >= num_heads:
        raise ValueError(f"subnet {name} names CTC head {head}, which does not exist")
    metrics = table(entries["metrics"], f"{where}.metrics")
    return DescribedSubnet(
        name=name,
        kept=_indices(entries["kept"], f"{where}.kept"),
        head=head,
        target=number(entries["target"], f"{where}.target", 0.0),
        metrics={
            text(key, f"{where}.metrics", 200): number(value, f"{where}.metrics.{key}", 0.0)
            for key, value in metrics.items()
        },
    )


def _indices(value: object, where: str) -> tuple[int, ...]:
    return tuple(whole(one, f"{where}[{index}]") for index, one in enumerate(array(value, where)))


def _provenance(content: dict[str, Any]) -> dict[str, Any]:
    """What reports and cards read of it; the rest is for people."""
    for name in ("versions", "training"):
        table(content.get(name, {}), f"provenance.{name}")
    for name in ("command", "recipe", "commit", "data_digest"):
        if content.get(name) not in (None, ""):
            text(content[name], f"provenance.{name}", 10**6)
    if (entropy := content.get("row_entropy_at_freeze")) is not None:
        number(entropy, "provenance.row_entropy_at_freeze")
    if (collisions := content.get("row_collisions_at_freeze")) is not None:
        whole(collisions, "provenance.row_collisions_at_freeze")
    return content


def check_room(path: Path, described: int) -> None:
    """Checks a weights' file and that what is described is no network of quite another size.

    Args:
        path: A safetensors file.
        described: Parameters.

    Raises:
        ValueError: The file is damaged, holds what are no weights, or far fewer of them.
    """
    held = sum(read_weights_header(path).values())
    if described > ROOM * max(held, 1):
        raise ValueError(
            f"checkpoint.json describes {described:,} parameters, {path.name} holds {held:,}"
        )


def read_weights_header(path: Path) -> dict[str, int]:
    """How many numbers each tensor of a safetensors file has, by its header alone.

    Raises:
        ValueError: The header is damaged, contradicts the file's size or names other types.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        (length,) = struct.unpack("<Q", start) if len(start) == 8 else (0,)
        if not 0 < length <= min(size - 8, MAX_HEADER_BYTES):
            raise ValueError(f"{path.name} of {size:,} bytes states a header of {length:,}")
        header = table(
            parse_json(file.read(length), f"{path.name}: header"), f"{path.name}: header"
        )
    found = {}
    for name, one in header.items():
        if name == "__metadata__":
            continue
        where = f"{path.name}: {shown(name)}"
        entry = table(one, where)
        kind = entry.get("dtype")
        if not isinstance(kind, str) or kind not in FLOATS:
            raise ValueError(f"{where} must be of {', '.join(FLOATS)}, not {shown(kind)}")
        found[name] = 1
        for dimension in array(entry.get("shape"), f"{where}: shape"):
            found[name] *= whole(dimension, f"{where}: shape")
        if found[name] * FLOATS[kind] > size:
            raise ValueError(f"{where} is larger than the file")
    return found
