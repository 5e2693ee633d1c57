"""What a person sees of an export while it runs."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic

from tqdm import tqdm

from ortho_export.writing import Written


class Stages:
    """A progress bar over named stages, on standard error."""

    def __init__(self, total: int) -> None:
        """Shows the empty bar."""
        self._bar = tqdm(total=total, unit="stage", leave=False)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Shows the stage while it runs, then how long it took."""
        start = monotonic()
        self._bar.set_description(name)
        try:
            yield
        except BaseException:
            self._bar.close()
            raise
        self._end(name, monotonic() - start)

    def written(self, artefacts: Iterator[Written], names: Sequence[str]) -> Iterator[Written]:
        """Shows that artefacts of these names are written, each a stage, and yields them."""
        self._bar.set_description(f"writing {', '.join(names)}")
        try:
            for one in artefacts:
                yield one
                self._end(f"writing {one.file}", one.seconds)
        except BaseException:
            self._bar.close()
            raise

    def _end(self, name: str, seconds: float) -> None:
        tqdm.write(f"{name}: {seconds:.1f} s", file=sys.stderr)
        self._bar.update(1)
        if self._bar.n == self._bar.total:
            self._bar.close()
