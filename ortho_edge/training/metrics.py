"""Where a run writes its numbers: `metrics.jsonl` and TensorBoard."""

import json
from pathlib import Path

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
        self._path.write_text("".join(line + "\n" for line in kept))
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


def _step(line: str) -> float:
    """The step of a line; a line that an interruption cut short belongs to no step."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return float("inf")
