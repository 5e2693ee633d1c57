"""What a person sees of work that takes a while: a bar on a terminal, plain lines elsewhere.

A terminal shows one bar, that of the outermost work. A file or pipe gets a line when that is done
and one a minute until then, without carriage returns. Nothing is shown where no command asked for
it, as in a program that uses the packages, or with `--quiet`.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 60.0


class _State:
    """Of the process: whether anything is shown, the open bar, and when the last line came."""

    shown = False
    depth = 0
    bar: Any = None
    last_line = 0.0


@contextmanager
def shown(wanted: bool) -> Iterator[None]:
    """Shows progress, or does not, while the block runs."""
    before, _State.shown = _State.shown, wanted
    _State.last_line = time.monotonic()
    try:
        yield
    finally:
        _State.shown = before


def say(line: str) -> None:
    """Writes a line about the work to standard error, above the bar, where progress is shown."""
    if _State.shown:
        _write(line, sys.stderr)
        _State.last_line = time.monotonic()


def tell(line: str) -> None:
    """Writes a line of results to standard output, above the bar."""
    _write(line, sys.stdout)


def track(
    items: Iterable[Item], label: str, *, unit: str, total: int | None = None
) -> Iterator[Item]:
    """Yields items and shows how many are done.

    Args:
        items: What is worked on.
        label: What is done with them, such as `exporting`.
        unit: What they are, in the plural.
        total: How many; their length by default, if they have one.
    """
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # pyright: ignore[reportArgumentType]
    with Progress(label, unit=unit, total=total) as progress:
        for item in items:
            yield item
            progress.advance()


class Progress:
    """Work of so many units, as a context."""

    def __init__(self, label: str, *, unit: str, total: int | None = None, done: int = 0) -> None:
        """Describes it.

        Args:
            label: What is done.
            unit: What is counted, in the plural.
            total: How many there are, if that is known.
            done: How many were done before.
        """
        self.label, self.unit, self.total, self.done = label, unit, total, done
        self._title, self._first = label, done
        self._facts: dict[str, object] = {}

    def __enter__(self) -> "Progress":
        """Opens the bar where there is a terminal and no other bar."""
        self._start = time.monotonic()
        self._bar = None
        self._stack = ExitStack()
        _State.depth += 1
        self._is_outermost = _State.depth == 1
        if _State.shown and self._is_outermost and _is_terminal():
            from tqdm import tqdm
            from tqdm.contrib.logging import logging_redirect_tqdm

            self._stack.enter_context(logging_redirect_tqdm())
            self._bar = _State.bar = tqdm(
                total=self.total, initial=self.done, desc=self.label, unit=f" {self.unit}",
                leave=False, dynamic_ncols=True,
            )  # fmt: skip
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the bar; the last line tells how long it took."""
        if self._bar is not None:
            self._bar.close()
            _State.bar = None
        self._stack.close()
        _State.depth -= 1
        if kind is None and self._is_outermost and self.total != 0:
            seconds = time.monotonic() - self._start
            say(f"{self._title}: {self.done} {self.unit} in {in_words(seconds)}{self._said()}")

    def advance(self, by: int = 1) -> None:
        """Counts units that are done."""
        self.done += by
        if self._bar is not None:
            self._bar.update(by)
        elif time.monotonic() - _State.last_line >= SECONDS_BETWEEN_LINES and not _is_terminal():
            say(self._line())

    def reach(self, done: int) -> None:
        """Counts units up to `done`, which the total bounds."""
        self.advance(min(done, self.total or done) - self.done)

    def show(self, **facts: object) -> None:
        """Keeps facts that are shown beside the count."""
        self._facts = facts
        if self._bar is not None:
            self._bar.set_postfix(facts, refresh=False)

    def name(self, label: str) -> None:
        """Gives another name to what is done now."""
        self.label = label
        if self._bar is not None:
            self._bar.set_description(label)

    def _line(self) -> str:
        if self.total is None:
            return f"{self.label}: {self.done} {self.unit}{self._said()}"
        line = f"{self.label}: {self.done} of {self.total} {self.unit}"
        done, left = self.done - self._first, self.total - self.done
        if done > 0 and left > 0:
            seconds = left * (time.monotonic() - self._start) / done
            line += f", about {in_words(seconds)} left"
        return line + self._said()

    def _said(self) -> str:
        return "".join(f", {name} {value}" for name, value in self._facts.items())


def in_words(seconds: float) -> str:
    """A duration, such as `4.2 s`, `12 min` or `3 h 5 min`."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _write(line: str, stream: Any) -> None:
    if stream is None:
        return
    if _State.bar is not None:
        _State.bar.write(line, file=stream)
    else:
        stream.write(line + "\n")
        stream.flush()
