"""A run's folder: whose it is, what it was trained on, and what Ctrl-C leaves in it."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lhotse import CutSet, MonoCut
from safetensors import safe_open
from safetensors.torch import save_file

from ortho_edge import train
from ortho_edge.cli import UserError
from ortho_edge.data.waveforms import each_cut
from ortho_edge.training import recipes, run_lock
from ortho_edge.training.corpora import Corpus
from ortho_edge.training.provenance import training_data
from ortho_edge.training.recipes import Recipe
from ortho_edge.training.run_lock import LOCK_FILE
from ortho_edge.training.state import DIGEST, STATE_FILE, read_progress
from ortho_edge.training.trainer import Trainer
from tests.training.conftest import corpus_of, small_recipe
from tests.training.test_trainer import losses, trainer

Command = Callable[..., int]


@pytest.fixture
def tones_command(
    monkeypatch: pytest.MonkeyPatch, command: Command, tone_corpus: Corpus, tmp_path: Path
) -> Command:
    """`train tones` with the tone corpus, in `run`."""
    recipe = replace(small_recipe(), corpus=lambda options: tone_corpus)
    monkeypatch.setattr(recipes, "recipe", lambda name: recipe)
    monkeypatch.chdir(tmp_path)
    return lambda *options: command(
        train, "tones", "--out", "run", "--device", "cpu", "--workers", "0", *options
    )


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int, times: int) -> None:
    """Sends this process and its loaders SIGINT in an update, as a terminal does."""
    train_step = Trainer._train_step

    def interrupted(self, batch, counts, step):
        if step == at:
            for _ in range(times):
                for one in multiprocessing.active_children():
                    os.kill(one.pid or 0, signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
        return train_step(self, batch, counts, step)

    monkeypatch.setattr(Trainer, "_train_step", interrupted)


@pytest.fixture
def heeded() -> object:
    """A handler of its own: what runs in the background of a shell ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_ctrl_c_saves_and_the_same_command_goes_on(
    tones_command: Command,
    heeded: object,
    tone_corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    workers: str,
) -> None:
    trainer(small_recipe(), tone_corpus, tmp_path / "whole").run()
    with monkeypatch.context() as patch:
        interrupt(patch, at=4, times=1)
        assert tones_command("--workers", workers) == 130
    said = capfd.readouterr()
    assert "stopped by Ctrl-C after update 5, which is saved in run: nothing is lost" in said.out
    assert "Ctrl-C: the update under way is finished" in said.err
    assert "Traceback" not in said.err
    assert not (tmp_path / "run" / LOCK_FILE).exists()
    assert tones_command() == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


@pytest.mark.parametrize(
    ("save_every", "lost"),
    [
        ("3", "update 4 is lost; the same command goes on after update 3, saved in run"),
        ("2", "no update is lost; the same command goes on after update 4, saved in run"),
        ("900", "updates 1 to 4 are lost; nothing is saved in run, the same command begins anew"),
    ],
)
def test_a_second_ctrl_c_ends_at_once_and_says_what_is_lost(
    tones_command: Command,
    heeded: object,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    save_every: str,
    lost: str,
) -> None:
    interrupt(monkeypatch, at=4, times=2)
    assert tones_command("--save-every", save_every) == 130
    said = capfd.readouterr()
    assert lost in said.out
    assert said.err.endswith("interrupted\n")


def test_what_runs_in_the_background_of_a_shell_does_not_heed_ctrl_c(
    tone_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interrupt(monkeypatch, at=1, times=1)
        run = trainer(small_recipe(), tone_corpus, tmp_path)
        run.run(stop_after=3)
    finally:
        signal.signal(signal.SIGINT, before)
    assert run.progress.step == 3


HOLD = """
import sys, time
from pathlib import Path
from ortho_edge.training.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    if "fork" in sys.argv:
        import os
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def hold(repository: Path, folder: Path, *more: str) -> subprocess.Popen[str]:
    """A process that holds a run's folder until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), *more],
        cwd=repository, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_folder_of_a_live_run_is_refused_and_that_of_a_killed_one_is_not(
    tones_command: Command,
    repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # A loader process that outlives the run it belongs to holds nothing.
    holder = hold(repository, tmp_path / "run", "fork")
    try:
        assert tones_command() == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: run is in use by process {holder.pid} on ")
        assert error.endswith("; let it end, or choose another --out\n")
        assert [one.name for one in (tmp_path / "run").iterdir()] == [LOCK_FILE]
        holder.kill()
        holder.wait()
        assert tones_command("--steps", "2") == 0
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.communicate()
    assert not (tmp_path / "run" / LOCK_FILE).exists()


def test_a_run_that_is_refused_leaves_no_folder(
    tones_command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tones_command("--targets", "pixel99@8ms") == 2
    assert "unknown device 'pixel99'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(run_lock.fcntl, "lockf", unknown)
    with run_lock.run_lock(tmp_path):
        assert "cannot be locked" in caplog.text


def changed(cuts: CutSet, **changes: object) -> CutSet:
    """The cuts with another value in the second one."""
    one, other, *more = each_cut(cuts)
    assert isinstance(other, MonoCut)
    assert other.recording is not None
    if "text" in changes:
        (supervision,) = other.supervisions
        changes = {"supervisions": [replace(supervision, text=str(changes["text"]))]}
    if "recording_id" in changes:
        changes = {"recording": replace(other.recording, id=str(changes["recording_id"]))}
    return CutSet.from_cuts([one, replace(other, **changes), *more])


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda cuts: cuts.subset(first=40), r"training data \(48 cuts of .* h there, 40 cuts"),
        (lambda cuts: changed(cuts, text="LOW LOW"), "with other names, lengths or texts"),
        (lambda cuts: changed(cuts, duration=0.3), "training data .* h there"),
        (lambda cuts: changed(cuts, recording_id="another"), "with other names, lengths or texts"),
    ],
)
def test_a_run_does_not_go_on_with_other_data(
    tone_recipe: Recipe,
    tone_corpus: Corpus,
    tone_cuts: CutSet,
    tmp_path: Path,
    change: Callable[[CutSet], CutSet],
    difference: str,
) -> None:
    trainer(tone_recipe, tone_corpus, tmp_path).run(stop_after=1)
    other = change(tone_cuts)
    corpus = replace(tone_corpus, training_cuts=lambda epoch, progress: other)
    with pytest.raises(UserError, match=difference) as caught:
        trainer(tone_recipe, corpus, tmp_path)
    assert "development" not in str(caught.value)
    corpus = replace(tone_corpus, development={"dev": other})
    with pytest.raises(UserError, match="another development data"):
        trainer(tone_recipe, corpus, tmp_path)


def test_data_that_moved_is_the_same_data(
    tones: Path, tone_cuts: CutSet, tone_corpus: Corpus, tmp_path: Path
) -> None:
    from ortho_edge.data.corpora import synthetic

    (tmp_path / "moved").symlink_to(tones)
    moved = corpus_of(synthetic(tmp_path / "moved").to_eager())
    assert training_data(moved) == training_data(tone_corpus)
    assert training_data(moved).cuts == len(tone_cuts)


def test_a_state_from_before_goes_on_and_says_so(
    tone_recipe: Recipe, tone_corpus: Corpus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(tone_recipe, tone_corpus, tmp_path).run(stop_after=2)
    header, tensors = read_state(tmp_path)
    run = json.loads(header["run"])
    for name in ("training data", "development data"):
        del run[name]
    del header[DIGEST]
    save_file(tensors, tmp_path / STATE_FILE, {**header, "run": json.dumps(run)})
    assert trainer(tone_recipe, tone_corpus, tmp_path).progress.step == 2
    assert "does not say what training data it is of" in caplog.text


def read_state(folder: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    with safe_open(folder / STATE_FILE, framework="pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def test_a_state_with_any_other_bit_is_damaged(
    tone_recipe: Recipe, tone_corpus: Corpus, tmp_path: Path
) -> None:
    trainer(tone_recipe, tone_corpus, tmp_path).run(stop_after=2)
    path = tmp_path / STATE_FILE
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 61):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        with pytest.raises(UserError, match=r"damaged|another"):
            trainer(tone_recipe, tone_corpus, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position": -1}, "position must be .* not -1"),
        ({"position": 1e308}, "position must be .* not 1e.308"),
        ({"step": float("inf")}, "step must be .* not inf"),
        ({"step": True}, "step must be .* not True"),
        ({"epoch": 2**70}, "epoch must be .* not 118"),
        ({"epoch_start": 3}, "epoch_start 3 is not from 0 to step 2"),
        ({"entropy": float("nan")}, "entropy must be .* not nan"),
        ({"collisions": -1}, "collisions must be .* not -1"),
        ({"skipped": {"too short": -2}}, "skipped.too short must be .* not -2"),
        ({"selected": [[0, -1]]}, "selected must be .* not -1"),
        ({"more": 1}, "lacks 'more'"),
    ],
)
def test_progress_that_no_run_can_have_is_named(change: dict, message: str) -> None:
    table = {
        "step": 2, "epoch": 0, "epoch_start": 0, "position": 2, "selected": None, "entropy": None,
        "collisions": None, "skipped": {},
    }  # fmt: skip
    assert read_progress(table).step == 2
    with pytest.raises(ValueError, match=message):
        read_progress({**table, **change})
