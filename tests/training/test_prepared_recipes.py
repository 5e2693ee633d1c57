"""From an unpacked archive to error rates, by the commands and under the recipes' own names."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ortho_edge import evaluate, lm, prepare, train
from ortho_edge.checkpoint import load_checkpoint
from ortho_edge.training import recipes
from ortho_edge.training.recipes import Recipe
from tests.data import miniatures


@pytest.fixture(
    params=["librispeech_512 bpe", "librispeech_512 phonemes", "tedlium2_384 characters"]
)
def case(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    tone_recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[str, list[str]]:
    """A recipe with a network that trains in seconds, and how its corpus is prepared."""
    name, units = request.param.split()
    corpus = name.split("_")[0]
    make = getattr(miniatures, corpus)
    make(tmp_path)
    options = ["--corpus", str(tmp_path), "--out", str(tmp_path / "prepared"), "--units", units]
    if corpus == "librispeech":
        options += ["--parts", *miniatures.PARTS]
    if units == "bpe":
        options += ["--pieces", "24", "--musan", str(miniatures.musan(tmp_path))]
    if units == "phonemes":
        (tmp_path / "lexicon.txt").write_text(miniatures.LEXICON)
        options += ["--lexicon", str(tmp_path / "lexicon.txt")]
    own = recipes.recipe(name)
    training = replace(tone_recipe.training, num_steps=3, batch_seconds=4.0)
    tiny = replace(own, architecture=tone_recipe.architecture, training=training)
    monkeypatch.setitem(recipes.RECIPES, name, lambda: tiny)
    return name, [corpus, *options]


def test_a_recipe_trains_from_an_archive_to_error_rates(
    case: tuple[str, list[str]],
    tmp_path: Path,
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, options = case
    assert command(prepare, *options) == 0
    assert f"prepared: {tmp_path / 'prepared'}" in capsys.readouterr().out
    data = ["--data", str(tmp_path / "prepared")]
    run = [name, *data, "--out", str(tmp_path / "run"), "--threads", "1", "--workers", "0"]
    assert command(train, *run) == 0, capsys.readouterr().err
    checkpoint = tmp_path / "run" / "checkpoint"
    assert load_checkpoint(checkpoint).provenance["recipe"] == name
    log = (tmp_path / "run" / "metrics.jsonl").read_text()
    entries = [json.loads(line) for line in log.splitlines()]
    assert [entry["step"] for entry in entries if "loss/full" in entry] == [0, 1, 2]
    part = "test-clean" if name.startswith("librispeech") else "test"
    rates = tmp_path / "rates.json"
    arguments = [str(checkpoint), "--set", f"{name}/{part}", *data, "--out", str(rates)]
    sizes = {"s100", "s080", "s060"}
    if "phonemes" in options:
        assert command(evaluate, *arguments) == 2
        assert "name their words by --lexicon" in capsys.readouterr().err
        language_model = tmp_path / "lm.arpa"
        text = str(tmp_path / "prepared" / "text.txt")
        assert command(lm, "--text", text, "--order", "3", "--out", str(language_model)) == 0
        arguments += ["--lexicon", str(tmp_path / "lexicon.txt"), "--lm", str(language_model)]
        arguments += ["--tune-on", f"{name}/dev-clean"]
        sizes |= {f"{size} + LM" for size in sizes}
    assert command(evaluate, *arguments) == 0, capsys.readouterr().err
    results = json.loads(rates.read_text())["results"]
    assert set(results) == sizes
    utterances = 2 if name.startswith("librispeech") else 1
    assert all(one["utterances"] == utterances for one in results.values())
