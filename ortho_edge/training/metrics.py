"""Where a run writes its numbers: `metrics.jsonl` and TensorBoard."""

import json
from pathlib import Path

from ortho_edge.atomic import write_atomically
from ortho_edge.progress import Progress

METRICS = "metrics.jsonl"


class MetricLogger:
    """Appends numbers by step to `metrics.jsonl` and a TensorBoard event file.

    On resuming, lines of steps that will be run again are removed, so each step stands there once.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        """Opens the logs of a run that goes on at `first_step`."""
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / METRICS
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        kept = [line for line in lines if _step(line) < first_step]
        write_atomically(self._path, "".join(line + "\n" for line in kept))
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)

    def log(self, step: int, numbers: dict[str, float]) -> None:
        """Writes one line; NaN and infinity stay visible as such."""
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")
        for name, number in numbers.items():
            self._board.add_scalar(name, number, step)

    def close(self) -> None:
        """Flushes the event file."""
        self._board.close()


class RunLog(MetricLogger):
    """The metrics of a run with its progress beside them, as a context."""

    def __init__(self, folder: Path, first_step: int, num_steps: int) -> None:
        """Opens both for a run that goes on at `first_step`."""
        super().__init__(folder, first_step)
        self._progress = Progress("training", total=num_steps, done=first_step, unit="updates")

    def __enter__(self) -> "RunLog":
        """Shows the progress; the logs are open from the start."""
        self._progress.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Closes both."""
        self._progress.__exit__(*error)  # pyright: ignore[reportArgumentType]
        self.close()

    def advance(self) -> None:
        """Counts an update."""
        self._progress.advance()

    def show(self, **facts: object) -> None:
        """Keeps facts to be shown beside the progress."""
        self._progress.show(**facts)


def _step(line: str) -> float:
    """The step of a line; a line that an interruption cut short belongs to no step."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return float("inf")
