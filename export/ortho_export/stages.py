"""What a person sees of an export while it runs."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic

from ortho_edge.progress import Progress, say
from ortho_export.writing import Written

logger = logging.getLogger(__name__)


class Stages:
    """Named stages, each a line with its seconds when it ends; a bar over them on a terminal."""

    def __init__(self, total: int) -> None:
        """Nothing is shown before the block begins."""
        self._progress = Progress("export", total=total, unit="stages")

    def __enter__(self) -> "Stages":
        """Shows the empty bar."""
        self._progress.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the bar."""
        self._progress.__exit__(*error)  # pyright: ignore[reportArgumentType]

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Shows the stage while it runs, then how long it took."""
        start = monotonic()
        self._begin(name)
        yield
        self._end(name, monotonic() - start)

    def written(self, artefacts: Iterator[Written], names: Sequence[str]) -> Iterator[Written]:
        """Shows that artefacts of these names are written, each a stage, and yields them."""
        self._begin(f"writing {', '.join(names)}")
        for one in artefacts:
            yield one
            self._end(f"writing {one.file}", one.seconds)

    def _begin(self, name: str) -> None:
        logger.debug("%s begins", name)
        self._progress.name(name)

    def _end(self, name: str, seconds: float) -> None:
        say(f"{name}: {seconds:.1f} s")
        self._progress.advance()
