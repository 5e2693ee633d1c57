"""A training state is what was written, or one line says what is wrong with it."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ortho_edge.cli import UserError
from ortho_edge.training.state import STATE_FILE, Progress, load_state, save_state

RUN = {"recipe": "tones", "num_steps": 12}
PROGRESS = Progress(
    step=9, epoch=2, epoch_start=4, position=6, selected=((0, 1, 3), (0, 3)), entropy=0.25,
    collisions=1, skipped={"missing": 2},
)  # fmt: skip


def parts() -> tuple[torch.nn.Module, torch.optim.AdamW]:
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 3)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model, optimizer = parts()
    model(torch.ones(2, 5)).square().sum().backward()
    optimizer.step()
    save_state(tmp_path, model, optimizer, PROGRESS, RUN)
    return tmp_path


def rewrite(
    folder: Path,
    change: Callable[[dict[str, Any], dict[str, Tensor]], object],
    *,
    with_digest: bool = False,
) -> None:
    """Changes progress and tensors of a state; the digest goes, as in states of old."""
    path = folder / STATE_FILE
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    progress = json.loads(header["progress"])
    change(progress, tensors)
    header["progress"] = json.dumps(progress)
    if not with_digest:
        del header["sha256"]
    save_file(tensors, path, metadata=header)


def test_it_comes_back_and_one_without_digest_does(folder: Path) -> None:
    assert load_state(folder, *parts(), RUN) == PROGRESS
    rewrite(folder, lambda progress, tensors: None)
    assert load_state(folder, *parts(), RUN) == PROGRESS


def test_a_change_of_one_number_is_noticed(folder: Path) -> None:
    rewrite(folder, lambda progress, _: progress.update(position=7), with_digest=True)
    with pytest.raises(UserError, match="its content is not what was written"):
        load_state(folder, *parts(), RUN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position": -1}, "position must be a whole number"),
        ({"position": float("inf")}, "position must be a whole number"),
        ({"position": 4}, "position 4 is less than the 5 updates"),
        ({"epoch_start": 10}, "epoch_start 10 is not from 0 to step 9"),
        ({"epoch": 10}, "epoch 10 is not from 0 to step 9"),
        ({"step": 13, "position": 9}, "it has 13 of 12 updates"),
        ({"step": True}, "step must be a whole number"),
        ({"selected": 3}, "selected must be an array"),
        ({"selected": [[1, 1]]}, "selected must be ascending and distinct"),
        ({"entropy": float("nan")}, "entropy must be a finite number"),
        ({"skipped": {"missing": -1}}, "skipped.missing must be a whole number"),
        ({"": 1}, "progress has or lacks ''"),
    ],
)  # fmt: skip
def test_progress_out_of_range_is_named(folder: Path, change: dict, message: str) -> None:
    rewrite(folder, lambda progress, _: progress.update(change))
    with pytest.raises(UserError, match=message):
        load_state(folder, *parts(), RUN)


def no_moment(_: dict, tensors: dict[str, Tensor]) -> None:
    del tensors["optimizer.0.exp_avg"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _, t: t.pop("model.weight"), "it lacks tensor 'weight'"),
        (lambda _, t: t.update({"model.x": torch.zeros(1)}), "unknown tensor 'x'"),
        (lambda _, t: t.update({"model.bias": torch.zeros(4)}), r"model.bias is .* shape \(4,\)"),
        (lambda _, t: t["model.bias"].fill_(float("nan")), "model.bias is not finite"),
        (lambda _, t: t.update({"optimizer.7.step": torch.zeros(())}), "unknown tensor"),
        (lambda _, t: t["optimizer.0.exp_avg_sq"].neg_(), "exp_avg_sq is negative"),
        (no_moment, "it lacks tensor optimizer.0.exp_avg"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_named_and_nothing_is_changed(
    folder: Path, change: Callable[[dict, dict[str, Tensor]], object], message: str
) -> None:
    rewrite(folder, change)
    model, optimizer = parts()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    with pytest.raises(UserError, match=message):
        load_state(folder, model, optimizer, RUN)
    assert all(before[name].equal(one) for name, one in model.state_dict().items())
    assert not optimizer.state_dict()["state"]


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [pickle.dump, torch.save], ids=["pickle", "torch.save"])
def test_a_pickle_is_refused_and_not_run(
    folder: Path, tmp_path: Path, write: Callable[[object, Any], None]
) -> None:
    exploded = tmp_path / "exploded"
    with (folder / STATE_FILE).open("wb") as file:
        write({"model": Bomb(exploded)}, file)
    with pytest.raises(UserError, match="is damaged"):
        load_state(folder, *parts(), RUN)
    assert not exploded.exists()


def test_progress_contradicting_itself_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="position 1 is less"):
        replace(PROGRESS, position=1)
