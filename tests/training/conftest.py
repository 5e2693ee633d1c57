"""A corpus that anyone can make: three 'words' as tones, in noise."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet

from ortho_edge.checkpoint import Checkpoint, TrainedSubnet, save_checkpoint
from ortho_edge.cli import run
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.data.augmentation import Augmentation
from ortho_edge.data.corpora import synthetic
from ortho_edge.subnet import Subnet
from ortho_edge.supernet import Supernet
from ortho_edge.tokens import character_tokens
from ortho_edge.training.config import TrainingConfig
from ortho_edge.training.corpora import Corpus
from ortho_edge.training.recipes import Recipe

TONES = {"LOW": 300.0, "MIDDLE": 900.0, "HIGH": 2500.0}


def write_tones(folder: Path, num_utterances: int, seed: int = 0) -> Path:
    """A corpus folder of tone sequences, one to three words each, by two speakers."""
    rng = np.random.default_rng(seed)
    (folder / "audio").mkdir(parents=True)
    rows = ["utterance\tspeaker\tseconds\ttext"]
    for number in range(num_utterances):
        words = rng.choice(list(TONES), size=int(rng.integers(1, 4)))
        parts = []
        for word in words:
            time = np.arange(int(16000 * rng.uniform(0.25, 0.4))) / 16000
            parts += [0.3 * np.sin(2 * np.pi * TONES[word] * time), np.zeros(1600)]
        samples = np.concatenate(parts)
        samples = samples + 0.003 * rng.standard_normal(len(samples))
        soundfile.write(folder / "audio" / f"u{number}.flac", samples, 16000)
        rows.append(
            f"u{number}\tspeaker{number % 2}\t{len(samples) / 16000:.3f}\t{' '.join(words)}"
        )
    (folder / "transcripts.tsv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tone corpus."""
    return write_tones(tmp_path_factory.mktemp("tones") / "corpus", 48)


@pytest.fixture(scope="session")
def tone_cuts(tones: Path) -> CutSet:
    """Its cuts."""
    return synthetic(tones).to_eager()


@pytest.fixture(scope="session")
def tone_corpus(tone_cuts: CutSet) -> Corpus:
    """Training and development on the tone cuts."""
    return corpus_of(tone_cuts)


def corpus_of(tone_cuts: CutSet) -> Corpus:
    """What the fixture `tone_corpus` is, for processes of their own."""
    return Corpus(
        tokens=character_tokens(TONES),
        training_cuts=lambda epoch, progress: tone_cuts,
        development={"dev": tone_cuts.subset(first=12)},
        test={"test": lambda: tone_cuts.subset(last=6)},
    )


@pytest.fixture
def tone_recipe() -> Recipe:
    """A supernet of two blocks that trains in seconds."""
    return small_recipe()


def small_recipe() -> Recipe:
    """What the fixture `tone_recipe` is, for processes of their own."""
    return Recipe(
        name="tones",
        architecture=lambda vocab_size: Architecture(
            vocab_size=vocab_size, dim=32, num_blocks=2, num_heads=2, head_dim=16, ffn_dim=64,
            kernel_size=7, front_end="strided", front_end_channels=(4, 8),
            feature_normalization="utterance",
        ),
        corpus=lambda options: pytest.fail("the corpus is given to the trainer directly"),
        training=TrainingConfig(
            num_steps=12,
            targets=(0.8, 0.6),
            batch_seconds=8.0,
            num_buckets=2,
            peak_learning_rate=3e-3,
            initial_learning_rate=1e-3,
            score_learning_rate_factor=10.0,
            initial_temperature=1.0,
            ffn_dropout=0.1,
            attention_dropout=0.1,
            residual_dropout=0.1,
            layer_drop=0.2,
            log_every=1,
            evaluate_every=1000,
            save_every=1000,
        ),
        augmentation=replace(Augmentation.none(), speed_probability=0.5, noise_probability=0.5),
    )  # fmt: skip


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a command in this process and returns its exit status."""

    def call(module, *arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        try:
            run(module.main, module.Arguments, prog="command")
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return call


@pytest.fixture
def checkpoint(tone_recipe: Recipe, tmp_path: Path) -> Path:
    """An untrained checkpoint of two sizes for the tones."""
    torch.manual_seed(0)
    tokens = character_tokens(["LOW", "MIDDLE", "HIGH"])
    supernet = Supernet(tone_recipe.architecture(len(tokens)), 2).eval()
    full = TrainedSubnet(name="s100", subnet=supernet.space.full(), head=0, target=1.0)
    half = TrainedSubnet(
        name="s050", subnet=Subnet.of(len(supernet.space), range(0, 22, 2)), head=1, target=0.5
    )
    save_checkpoint(
        Checkpoint(supernet=supernet, tokens=tokens, subnets=(full, half)), tmp_path / "model"
    )
    return tmp_path / "model"
