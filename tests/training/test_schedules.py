"""Schedules against their definitions, and the paper's settings."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from ortho_edge.cli import UserError
from ortho_edge.data.waveforms import each_cut
from ortho_edge.training.config import TrainingConfig
from ortho_edge.training.corpora import DataOptions, speechocean762_corpus
from ortho_edge.training.recipes import RECIPES, recipe
from ortho_edge.training.schedules import learning_rate, penalty_weight, temperature

PAPER = recipe("librispeech_512").training


def test_learning_rate_turns_where_the_paper_turns() -> None:
    steps = PAPER.num_steps
    assert learning_rate(PAPER, 0) == pytest.approx(4e-6)
    assert learning_rate(PAPER, round(0.44 * steps)) == pytest.approx(4e-4, rel=1e-4)
    assert learning_rate(PAPER, round(0.88 * steps)) == pytest.approx(4e-5, rel=1e-3)
    assert learning_rate(PAPER, steps) == pytest.approx(1e-8)
    assert learning_rate(PAPER, round(0.22 * steps)) == pytest.approx(2.02e-4, rel=1e-4)


def test_temperature_and_penalty_span_stage_one() -> None:
    last = PAPER.stage1_steps - 1
    assert temperature(PAPER, 0) == PAPER.initial_temperature
    assert temperature(PAPER, last) == pytest.approx(PAPER.final_temperature)
    assert temperature(PAPER, PAPER.num_steps) == pytest.approx(PAPER.final_temperature)
    halfway = (PAPER.initial_temperature * PAPER.final_temperature) ** 0.5
    assert temperature(PAPER, last // 2) == pytest.approx(halfway, rel=1e-4)
    assert [penalty_weight(PAPER, step) for step in (0, last, last + 5)] == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 1}, "num_steps"),
        ({"targets": (0.5, 0.7)}, "fall"),
        ({"targets": (1.0, 0.7)}, "between 0 and 1"),
        ({"targets": ()}, "between 0 and 1"),
        ({"stage1_fraction": 1.0}, "stage1_fraction"),
        ({"cycle_fractions": (0.5, 0.5, 0.5)}, "add up"),
        ({"final_temperature": 3.0}, "temperature"),
    ],
)
def test_impossible_settings_name_the_value(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**{"num_steps": 10, "targets": (0.5,), **change})


def test_recipes_have_the_papers_shapes() -> None:
    libri = recipe("librispeech_512")
    shape = libri.architecture(80)
    assert (shape.dim, shape.num_blocks, shape.num_heads, shape.head_dim) == (512, 12, 8, 64)
    assert (shape.ffn_dim, shape.num_ffn_chunks, shape.kernel_size) == (2048, 4, 31)
    assert (libri.training.num_steps, libri.training.stage1_fraction) == (732_000, 0.6)
    ted = recipe("tedlium2_384")
    assert ted.architecture(80).ffn_dim == 1536
    assert ted.training.targets == (0.759, 0.578, 0.457, 0.337)
    assert ted.training.adam_epsilon == 1e-16


def test_every_recipe_is_called_by_its_own_name() -> None:
    assert {name: make().name for name, make in RECIPES.items()} == {name: name for name in RECIPES}


def test_short_sentences_come_first(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        folder = tmp_path / "speechocean762" / split
        (folder / "audio").mkdir(parents=True)
        lines = ["utterance\tspeaker\tage\tgender\ttext"]
        for name, seconds in (("short", 2), ("long", 4)):
            path = folder / "audio" / f"{name}.opus"
            noise = 0.1 * np.random.default_rng(0).standard_normal(16000 * seconds)
            soundfile.write(path, noise, 16000, format="OGG", subtype="OPUS")
            lines.append(f"{name}\ta\t7\tf\tYES")
        (folder / "transcripts.tsv").write_text("\n".join(lines) + "\n")
    corpus = recipe("speechocean762_small").corpus(DataOptions(root=tmp_path))
    epochs = [[cut.id for cut in each_cut(corpus.training_cuts(0, done))] for done in (0.0, 0.5)]
    assert epochs == [["short"], ["short", "long"]]
    whole = speechocean762_corpus(DataOptions(root=tmp_path))
    assert len(list(each_cut(whole.training_cuts(0, 0.0)))) == 2


def test_unknown_recipe_names_the_choices() -> None:
    with pytest.raises(
        UserError, match=r"unknown recipe 'digit'; known: digits, digits_small, speech"
    ):
        recipe("digit")
