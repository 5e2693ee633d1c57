"""A batch in parts or over processes trains as a whole one, and stops lose little or nothing."""

import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from lhotse import CutSet

from ortho_edge.cli import UserError
from ortho_edge.conformer.architecture import subsampled_length
from ortho_edge.data.alignment import UNKNOWN
from ortho_edge.data.dataset import Batch, training_batches
from ortho_edge.training.corpora import Corpus
from ortho_edge.training.distributed import ALONE, Ranks, started_ranks
from ortho_edge.training.losses import ctc_losses, distillation_losses, frame_losses
from ortho_edge.training.parts import count, split
from ortho_edge.training.recipes import Recipe
from ortho_edge.training.stopping import STOPPED_STATUS
from ortho_edge.training.trainer import Trainer
from tests.tolerances import tolerance
from tests.training import distributed_run
from tests.training.test_trainer import losses

CPU = torch.device("cpu")


def batches(cuts: CutSet, corpus: Corpus, recipe: Recipe, **options) -> list[Batch]:
    return list(
        training_batches(
            cuts, tokens=corpus.tokens, augmentation=recipe.augmentation, max_duration=8.0,
            num_buckets=2, seed=1, epoch=0, **options,
        )
    )  # fmt: skip


def trainer(corpus: Corpus, folder: Path, **options) -> Trainer:
    return Trainer(
        recipe=distributed_run.recipe(), corpus=corpus, folder=folder, device=CPU, **options
    )


@pytest.fixture(scope="module")
def whole_run(tone_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run that others are compared with: one process, one part."""
    folder = tmp_path_factory.mktemp("distributed") / "whole"
    trainer(tone_corpus, folder).run()
    return folder


class HandedOver(NamedTuple):
    folder: Path
    torchrun: subprocess.CompletedProcess[str]
    saved: int


@pytest.fixture(scope="module")
def handed_over(
    tones: Path, tone_corpus: Corpus, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> HandedOver:
    """A run that one process begins, two go on with under torchrun and one brings to its end.

    One of the two is killed in update 5; they are started again, and one is sent SIGTERM in
    update 6.
    """
    folder = tmp_path_factory.mktemp("distributed") / "handed-over"
    trainer(tone_corpus, folder).run(stop_after=2)
    torchrun = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
            "--max-restarts", "1", "-m", "tests.training.distributed_run", str(tones), str(folder),
        ],
        cwd=repository, capture_output=True, text=True, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    last = trainer(tone_corpus, folder)
    saved = last.progress.step
    last.run()
    return HandedOver(folder, torchrun, saved)


def assert_same_losses(actual: Path, expected: Path) -> None:
    found, wanted = losses(actual), losses(expected)
    assert found.keys() == wanted.keys()
    for step, numbers in wanted.items():
        assert found[step].keys() == numbers.keys()
        for name, value in numbers.items():
            torch.testing.assert_close(
                found[step][name], value, **tolerance("training_float32"), msg=f"{step} {name}"
            )


def test_parts_accumulate_to_the_whole_batch(
    whole_run: Path, tone_corpus: Corpus, tmp_path: Path
) -> None:
    trainer(tone_corpus, tmp_path, accumulate=2).run()
    assert_same_losses(tmp_path, whole_run)


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_and_either_resumes_the_other(
    whole_run: Path, handed_over: HandedOver
) -> None:
    assert_same_losses(handed_over.folder, whole_run)
    assert (handed_over.folder / "checkpoint" / "checkpoint.json").is_file()


@pytest.mark.slow
def test_a_killed_process_costs_the_updates_since_the_last_save(handed_over: HandedOver) -> None:
    done = list(map(int, (handed_over.folder / "steps.txt").read_text().split()))
    # Saved after updates 1 and 3; killed in update 5.
    assert done == [2, 3, 4, 4, 5, 6], handed_over.torchrun.stderr


@pytest.mark.slow
def test_sigterm_to_one_process_stops_all_after_the_update_and_saves(
    handed_over: HandedOver,
) -> None:
    assert handed_over.saved == 7
    assert f"(exitcode: {STOPPED_STATUS})" in handed_over.torchrun.stderr


def test_a_process_that_is_not_the_first_writes_nothing(
    tone_corpus: Corpus, tmp_path: Path
) -> None:
    run = trainer(tone_corpus, tmp_path / "run", ranks=Ranks(rank=1, count=1))
    assert run.run() is None
    assert run.progress.step == 10
    assert not run.folder.exists()


def test_the_processes_of_a_batch_share_out_its_cuts(
    tone_cuts: CutSet, tone_corpus: Corpus, tone_recipe: Recipe
) -> None:
    whole = batches(tone_cuts, tone_corpus, tone_recipe)
    for num_parts in (2, 7):
        parts = [
            batches(tone_cuts, tone_corpus, tone_recipe, part=part, num_parts=num_parts)
            for part in range(num_parts)
        ]
        for number, expected in enumerate(whole):
            shares = [one[number] for one in parts]
            assert {one.position for one in shares} == {expected.position}
            names = [name for one in shares for name in one.cut_ids]
            assert sorted(names) == sorted(expected.cut_ids)
            assert sum(count(one, ALONE, stopping=False).frames for one in shares) == (
                count(expected, ALONE, stopping=False).frames
            )
        assert any(not one.texts for part in parts for one in part) == (num_parts == 7)


def test_parts_hold_every_utterance_once_and_add_up_to_the_losses_of_the_whole(
    tone_cuts: CutSet, tone_corpus: Corpus, tone_recipe: Recipe
) -> None:
    torch.manual_seed(0)
    whole = batches(tone_cuts, tone_corpus, tone_recipe)[0]
    lengths, size = subsampled_length(whole.feature_lengths), len(tone_corpus.tokens)
    targets = torch.randint(-1, size, whole.frame_targets.shape)
    targets[torch.arange(targets.shape[1]) >= lengths[:, None]] = UNKNOWN
    whole = replace(whole, frame_targets=targets)
    counts = count(whole, ALONE, stopping=False)
    table = torch.randn(3, *targets.shape, size).log_softmax(-1)

    def all_losses(batch: Batch) -> torch.Tensor:
        rows = [whole.cut_ids.index(name) for name in batch.cut_ids]
        log_probs = table[:, rows, : batch.frame_targets.shape[1]]
        lengths = subsampled_length(batch.feature_lengths)
        return torch.cat(
            [
                ctc_losses(log_probs, lengths, batch.tokens, batch.token_lengths, counts.frames),
                frame_losses(log_probs, batch.frame_targets, counts.known),
                distillation_losses(log_probs, lengths, counts.frames),
            ]
        )

    for number in (1, 2, 3, len(whole.texts), len(whole.texts) + 3):
        parts = split(whole, number)
        assert len(parts) == min(number, len(whole.texts))
        assert sorted(name for one in parts for name in one.cut_ids) == sorted(whole.cut_ids)
        total = torch.stack([all_losses(one) for one in parts]).sum(0)
        torch.testing.assert_close(total, all_losses(whole), **tolerance("float32_reordered"))


def test_sigterm_is_heeded_between_updates_and_spares_the_loaders(
    tone_corpus: Corpus, tmp_path: Path
) -> None:
    run = trainer(tone_corpus, tmp_path, num_workers=1)
    train_step = run._train_step
    before = signal.getsignal(signal.SIGTERM)

    def signalled(batch, counts, step):
        if step == 4:
            for one in multiprocessing.active_children():
                os.kill(one.pid or 0, signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(batch, counts, step)

    run._train_step = signalled
    assert run.run() is None
    assert run.stopped
    assert signal.getsignal(signal.SIGTERM) == before
    assert trainer(tone_corpus, tmp_path).progress.step == 5
    assert sorted(losses(tmp_path)) == [0, 1, 2, 3, 4]


def test_processes_that_see_different_states_are_told_so(
    tone_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = Ranks(rank=0, count=2)
    for others, same in (([5.0, 25.0], True), ([4.0, 16.0], False), ([0.0, 0.0], False)):
        other = torch.tensor(others, dtype=torch.float64)
        monkeypatch.setattr(Ranks, "total", lambda self, own, other=other: own + other)
        assert ranks.agree(5) == same
    monkeypatch.setattr(Ranks, "agree", lambda self, value: False)
    with pytest.raises(UserError, match=r"different states in .*: it must be shared"):
        trainer(tone_corpus, tmp_path, ranks=ranks)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(UserError, match="asks for GPU 1; this machine has 1"),
        started_ranks(torch.device("cuda")),
    ):
        pass
