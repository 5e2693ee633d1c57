"""TOML tables as frozen dataclasses, read with one clear line per mistake, and written back.

A field's type says what the table may hold: `str`, `bool`, `int`, `float`, a `Literal`, a dataclass
(a table), a tuple of one of these (an array), a mapping from names to one of these, and any of them
`| None` with a default of None (a key that may be left out). Rules beyond types are
raised as ValueError by the dataclass's `__post_init__`.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from ortho_edge.cli import UserError

Table = TypeVar("Table")


def read_table(kind: type[Table], content: object, where: str) -> Table:
    """The dataclass `kind` from a parsed TOML table.

    Args:
        kind: A dataclass.
        content: What `tomllib` returned.
        where: Named in every error, such as `pixel8.toml: cores[0]`.

    Raises:
        UserError: A key is unknown or missing, a value has another type, or a rule is broken.
    """
    if not isinstance(content, dict):
        raise UserError(f"{where} must be a table, not {content!r}")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]
    types_of = typing.get_type_hints(kind)
    for name in content:
        if name not in fields:
            raise UserError(f"{where}: unknown key {name!r}; known: {', '.join(fields)}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING
        if required and field.default_factory is dataclasses.MISSING and name not in content:
            raise UserError(f"{where}: the key {name!r} is missing")
    values = {
        name: _value(types_of[name], value, f"{where}: {name}") for name, value in content.items()
    }
    try:
        return kind(**values)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _value(expected: Any, value: object, where: str) -> Any:
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (types.UnionType, typing.Union):
        present = next(choice for choice in arguments if choice is not type(None))
        return _value(present, value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise UserError(f"{where} must be one of {', '.join(arguments)}, not {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise UserError(f"{where} must be an array, not {value!r}")
        return tuple(
            _value(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value)
        )
    if origin is Mapping:
        if not isinstance(value, dict):
            raise UserError(f"{where} must be a table, not {value!r}")
        return {name: _value(arguments[1], item, f"{where}.{name}") for name, item in value.items()}
    if dataclasses.is_dataclass(expected):
        return read_table(typing.cast(type, expected), value, where)
    return _scalar(expected, value, where)


def _scalar(expected: type, value: object, where: str) -> Any:
    # TOML writes a whole number for a float; a bool is an int to Python and never meant as one.
    if expected is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isnan(value):
            raise UserError(f"{where} must be a number, not nan")
        return float(value)
    if isinstance(value, expected) and isinstance(value, bool) == (expected is bool):
        return value
    names = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}
    raise UserError(f"{where} must be {names[expected]}, not {value!r}")


def write_table(table: object) -> str:
    """TOML of a dataclass that `read_table` reads back as the same value."""
    return "\n".join(_lines(_items(table), ())).strip() + "\n"


def _items(table: object) -> dict[str, Any]:
    """The keys of a dataclass or mapping that hold something."""
    if isinstance(table, Mapping):
        return dict(table)
    names = [field.name for field in dataclasses.fields(table)]  # pyright: ignore[reportArgumentType]
    return {name: getattr(table, name) for name in names if getattr(table, name) is not None}


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or dataclasses.is_dataclass(value)


def _lines(items: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    """Lines of one table: its own keys first, then its tables under their full names."""
    scalars, tables = [], []
    for name, value in items.items():
        inner = (*path, name)
        header = ".".join(_key(part) for part in inner)
        if _is_table(value):
            lines = _lines(_items(value), inner)
            # A header of its own only where keys follow, or nothing at all.
            tables += lines if lines and not lines[0] else ["", f"[{header}]", *lines]
        elif isinstance(value, tuple) and not any(map(_is_table, value)):
            scalars.append(f"{_key(name)} = {_literal(value)}")
        elif isinstance(value, tuple):
            for item in value:
                tables += ["", f"[[{header}]]", *_lines(_items(item), inner)]
        else:
            scalars.append(f"{_key(name)} = {_literal(value)}")
    return scalars + tables


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if bare else _text(name)


def _literal(value: str | bool | int | float | tuple[Any, ...]) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_literal, value))}]"
    return repr(value)


def _text(value: str) -> str:
    # JSON's escapes are TOML's, except that TOML wants DEL escaped too and has no surrogate pairs.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
