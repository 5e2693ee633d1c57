"""The ranges of options, checked for every command by `ortho_edge.cli` as soon as it is parsed.

A number without a range of its own must be finite and of a size that nothing overflows by.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

LONGEST_PATH, LONGEST_NAME = 4095, 255
"""Bytes, as Linux has it."""
SHOWN = 60
"""Characters of a value that a message quotes."""


@dataclass(frozen=True)
class Range:
    """Numbers between two, both included; `above` leaves the lower one out."""

    low: float
    high: float
    above: bool = False

    def __contains__(self, value: float) -> bool:
        """Whether a number, which NaN is not, lies in it."""
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        """In words that follow 'must be'."""
        if self.high == math.inf:
            return f"{'above' if self.above else 'at least'} {self.low:.10g}; inf lifts the limit"
        if self.above:
            return f"above {self.low:.10g} and at most {self.high:.10g}"
        return f"from {self.low:.10g} to {self.high:.10g}"


_ANY = {int: Range(-(2**31), 2**31 - 1), float: Range(-1e12, 1e12)}

Threads = Annotated[int, Range(1, 1024)]
Workers = Annotated[int, Range(0, 256)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Count = Annotated[int, Range(1, 10**9)]
"""Of things that are made, used or done one after the other."""
Limit = Annotated[float, Range(0, math.inf, above=True)]
"""Of a budget; infinity lifts it."""
AudioSeconds = Annotated[float, Range(0.1, 3600)]


def check_options(arguments: object) -> None:
    """Checks every number and path of a command's arguments.

    Args:
        arguments: An instance of its dataclass.

    Raises:
        ValueError: One is out of its range; names option, value and range.
    """
    hints = get_type_hints(type(arguments), include_extras=True)
    for one in fields(arguments):  # pyright: ignore[reportArgumentType] - of a dataclass
        option = f"--{one.name.replace('_', '-')}"
        own = next(_ranges(hints[one.name]), None)
        value = getattr(arguments, one.name)
        for single in value if isinstance(value, tuple) else (value,):
            if isinstance(single, Path):
                _check_path(option, single)
            elif isinstance(single, int | float) and not isinstance(single, bool):
                allowed = own or _ANY[type(single)]
                if single not in allowed:
                    raise ValueError(f"{option} is {shortened(single)}; it must be {allowed}")


def shortened(value: object) -> str:
    """A value as a message quotes it: a long one by its beginning and length."""
    text = str(value)
    if len(text) <= SHOWN:
        return text
    return f"{text[:SHOWN]}... ({len(text)} characters)"


def _check_path(option: str, path: Path) -> None:
    longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    if longest > LONGEST_NAME or len(os.fsencode(path)) > LONGEST_PATH:
        raise ValueError(
            f"{option} must have at most {LONGEST_PATH} bytes and {LONGEST_NAME} in each name, "
            f"not {shortened(path)}"
        )


def _ranges(hint: Any) -> Iterator[Range]:
    """Those that stand anywhere in a type hint."""
    for one in getattr(hint, "__metadata__", ()):
        if isinstance(one, Range):
            yield one
    for part in get_args(hint):
        if not isinstance(part, Range):
            yield from _ranges(part)
