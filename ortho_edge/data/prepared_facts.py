"""`prepared.json`: what a prepared corpus consists of, checked when it is read."""

import json
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ortho_edge.atomic import write_atomically
from ortho_edge.cli import UserError
from ortho_edge.json_files import number, read_json, shown, table, text, whole

DESCRIPTION = "prepared.json"
PART_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Facts:
    """The content of `prepared.json`.

    Attributes:
        corpus: A name in `ARCHIVES`.
        source: The unpacked corpus.
        parts: Of each part that is done: `utterances`, `hours`, and `dropped` by reason.
        units: What the symbols are; empty until they are made.
        unspelled_utterances: Training utterances that the symbols cannot spell.
        noise: The folder of recorded noise, or None.
    """

    corpus: str
    source: str
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    units: str = ""
    unspelled_utterances: int = 0
    noise: str | None = None

    def write(self, folder: Path) -> None:
        """Replaces the folder's description."""
        write_atomically(folder / DESCRIPTION, json.dumps(vars(self), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Facts":
        """Reads a folder's description.

        Raises:
            UserError: It is damaged.
        """
        try:
            content = table(read_json(folder / DESCRIPTION), DESCRIPTION)
            known = [one.name for one in fields(cls)]
            if unknown := [name for name in content if name not in known]:
                raise ValueError(f"unknown entry {shown(unknown[0])}; known: {', '.join(known)}")
            for name in ("corpus", "source"):
                text(content.get(name), name)
            for name in ("units", "noise"):
                if content.get(name):
                    text(content[name], name)
            whole(content.get("unspelled_utterances", 0), "unspelled_utterances")
            for name, part in table(content.get("parts", {}), "parts").items():
                _check_part(name, table(part, f"parts.{name}"))
            return cls(**content)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{folder / DESCRIPTION} is damaged: {error}") from error


def _check_part(name: str, part: dict[str, Any]) -> None:
    """Checks an entry of `parts`, whose name becomes that of a file.

    Raises:
        KeyError: Something is missing.
        ValueError: Something is out of type or range.
    """
    if not PART_NAME.fullmatch(name):
        raise ValueError(f"parts names {shown(name)}: a name is letters, digits, '-', '_' and '.'")
    whole(part["utterances"], f"parts.{name}.utterances")
    number(part["hours"], f"parts.{name}.hours", 0.0)
    for reason, count in table(part["dropped"], f"parts.{name}.dropped").items():
        whole(count, f"parts.{name}.dropped.{reason}")
