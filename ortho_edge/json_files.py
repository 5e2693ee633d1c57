"""JSON from files that may be damaged: one clear mistake instead of whatever a parser raises."""

import json
import math
from pathlib import Path
from typing import Any

MAX_BYTES = 64 * 2**20
"""No description that we write comes near it."""
SHOWN = 80


def parse_json(text: str | bytes, where: str) -> Any:
    """A JSON value in which no object names a key twice.

    Args:
        text: Text, or its UTF-8.
        where: Named in every error, such as `checkpoint.json`.

    Raises:
        ValueError: It is no UTF-8, no JSON, nested too deeply or has a key twice.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=_distinct)
    except RecursionError:
        raise ValueError(f"{where} is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is no UTF-8 text: {error}") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def read_json(path: Path) -> Any:
    """The JSON value in a file.

    Raises:
        ValueError: The file is none of ours: too large, no UTF-8, no JSON or with a key twice.
        OSError: It cannot be read.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path.name} has {size:,} bytes, more than {MAX_BYTES:,}")
    return parse_json(path.read_bytes(), path.name)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands there twice")
    return found


def shown(value: object) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def whole(value: object, where: str, least: int = 0, most: int = 2**53) -> int:
    """A whole number within bounds.

    Raises:
        ValueError: It is none; `where` names it.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(
            f"{where} must be a whole number from {least} to {most}, not {shown(value)}"
        )
    return value


def number(value: object, where: str, least: float = -math.inf, most: float = math.inf) -> float:
    """A finite number within bounds.

    Raises:
        ValueError: It is none; `where` names it.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            found = float(value)
        except OverflowError:
            found = math.inf
        if math.isfinite(found) and least <= found <= most:
            return found
    bounds = f" from {least:g} to {most:g}" if math.isfinite(least) or math.isfinite(most) else ""
    raise ValueError(f"{where} must be a finite number{bounds}, not {shown(value)}")


def text(value: object, where: str, longest: int = 4096) -> str:
    """A text of one line.

    Raises:
        ValueError: It is none, empty, too long or holds a control character; `where` names it.
    """
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        raise ValueError(f"{where} must be a text of 1 to {longest} characters, not {shown(value)}")
    if any(ord(one) < 32 or ord(one) == 127 or 0xD800 <= ord(one) < 0xE000 for one in value):
        raise ValueError(f"{where} holds a control character: {shown(value)}")
    return value


def table(value: object, where: str) -> dict[str, Any]:
    """An object.

    Raises:
        ValueError: It is none; `where` names it.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be an object, not {shown(value)}")
    return value


def array(value: object, where: str) -> list[Any]:
    """An array.

    Raises:
        ValueError: It is none; `where` names it.
    """
    if not isinstance(value, list):
        raise ValueError(f"{where} must be an array, not {shown(value)}")
    return value
