"""metrics.jsonl holds every step once, whatever happened between."""

import json
from pathlib import Path

from ortho_edge.training.metrics import MetricLogger


def test_resuming_removes_later_and_broken_lines(tmp_path: Path) -> None:
    logger = MetricLogger(tmp_path, 0)
    for step in range(4):
        logger.log(step, {"loss": float(step)})
    logger.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 1, "lo')
    logger = MetricLogger(tmp_path, 2)
    logger.log(2, {"loss": 9.0})
    logger.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"step": s, "loss": loss} for s, loss in [(0, 0.0), (1, 1.0), (2, 9.0)]]
    assert list((tmp_path / "tensorboard").glob("events.*"))
