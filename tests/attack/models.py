"""Checkpoints, training states and exports: real files, and what reads them once one is damaged."""

import contextlib
import functools
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ortho_edge.cli import UserError

if TYPE_CHECKING:
    from ortho_export.facts import Facts


def make_checkpoint(folder: Path) -> None:
    from ortho_edge.checkpoint import save_checkpoint
    from tests.export.tiny import tiny_checkpoint

    save_checkpoint(tiny_checkpoint(front_end_chunks=2), folder / "checkpoint")


def read_checkpoint(folder: Path, name: str) -> None:
    """Whatever is accepted computes, too, and can be reported."""
    from ortho_edge.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(folder / "checkpoint")
    one = checkpoint.subnets[-1] if checkpoint.subnets else None
    with torch.no_grad():
        features = torch.zeros(1, 12, checkpoint.supernet.architecture.feature_dim)
        gates = one.subnet.gates()[None] if one else torch.ones(1, len(checkpoint.supernet.space))
        heads = [one.head if one else 0]
        log_probs, _ = checkpoint.supernet(features, torch.tensor([12]), gates, heads)
    assert log_probs.shape == (1, 1, 3, len(checkpoint.tokens))
    assert checkpoint.supernet.space.total_cost("params") > 0


def make_report(folder: Path) -> None:
    from ortho_edge.checkpoint import save_checkpoint
    from tests.export.tiny import tiny_checkpoint

    lines = "".join(
        json.dumps({"step": step, "loss/full": 3.5 / (1 + step), "seconds": 0.25}) + "\n"
        for step in range(6)
    )
    save_checkpoint(tiny_checkpoint(), folder / "checkpoint", {"metrics.jsonl": lines.encode()})


def read_report(folder: Path, name: str) -> None:
    from ortho_edge.reporting.runs import load_run

    run = load_run(folder / "checkpoint")
    assert run.method


def _state_parts() -> tuple[torch.nn.Module, torch.optim.Optimizer, dict]:
    """A model after an update, its optimiser and what identifies the run."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.LayerNorm(3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.ones(2, 5)).square().sum().backward()
    optimizer.step()
    run = {"recipe": "tones", "num_steps": 12, "targets": [0.8, 0.6], "seed": 0}
    return model, optimizer, run


def make_state(folder: Path) -> None:
    from ortho_edge.training.state import Progress, save_state

    progress = Progress(
        step=9, epoch=2, epoch_start=4, position=6, selected=((0, 1, 3), (0, 3)), entropy=0.25,
        collisions=1, skipped={"missing": 2},
    )  # fmt: skip
    model, optimizer, run = _state_parts()
    save_state(folder, model, optimizer, progress, run)


def read_state(folder: Path, name: str) -> None:
    from ortho_edge.training.state import load_state

    model, optimizer, run = _state_parts()
    progress = load_state(folder, model, optimizer, run)
    assert 0 <= progress.epoch_start <= progress.step <= 12
    assert progress.step - progress.epoch_start <= progress.position < 2**40
    assert 0 <= progress.epoch <= progress.step
    assert all(count >= 0 for count in progress.skipped.values())
    assert all(bool(torch.isfinite(one).all()) for one in model.state_dict().values())
    model(torch.ones(2, 5)).square().sum().backward()
    optimizer.step()


@functools.cache
def _exported() -> Mapping[str, bytes]:
    """The files of an export of the tiny checkpoint, made once."""
    from ortho_edge.export import Arguments, main
    from tests.export.conftest import save_tiny

    with tempfile.TemporaryDirectory() as scratch:
        checkpoint, out = save_tiny(Path(scratch) / "tiny"), Path(scratch) / "out"
        with contextlib.redirect_stdout(io.StringIO()):
            main(
                Arguments(
                    device="pixel8", checkpoint=checkpoint, out=out, latency_ms=1e3, size_mb=1.0
                )
            )
        return {path.name: path.read_bytes() for path in out.iterdir()}


def make_artefacts(folder: Path) -> None:
    from ortho_export.targets import to_ort

    for name, content in _exported().items():
        if name.endswith((".pte", ".onnx")):
            (folder / name).write_bytes(content)
    (folder / "model.ort").write_bytes(to_ort(_exported()["model.onnx"])[0])


def make_export(folder: Path) -> None:
    for name, content in _exported().items():
        (folder / name).write_bytes(content)


def read_program(folder: Path, name: str) -> None:
    """Loads and runs, without the process around it that takes a crash."""
    from ortho_export import executorch

    executorch.check_whole(folder / name)
    with _as_in_a_child(folder / name):
        facts, forward = executorch.load(folder / name, 1)
        _check_outputs(forward, facts)


def read_model(folder: Path, name: str) -> None:
    from ortho_export import onnx

    onnx.check_whole(folder / name)
    with _as_in_a_child(folder / name):
        facts, forward = onnx.load(folder / name, 1)
        _check_outputs(lambda x: forward(x, np.array([x.shape[1]]))[0], facts)


def read_export(folder: Path, name: str) -> None:
    """What `--verify` does."""
    from ortho_export.verify import table, verify

    assert table(verify(folder))


@contextlib.contextmanager
def _as_in_a_child(path: Path) -> Iterator[None]:
    """Makes of a runtime's exception what `ortho_export.isolated` makes of it."""
    from ortho_export.isolated import failure

    try:
        yield
    except (UserError, AssertionError):
        raise
    except Exception as error:
        raise failure(path, error) from error


def _check_outputs(forward: Callable[[np.ndarray], np.ndarray], facts: "Facts") -> None:
    for frames in (9, 130):
        output = forward(np.zeros((1, frames, 80), np.float32))
        assert output.shape[::2] == (1, len(facts.tokens))
