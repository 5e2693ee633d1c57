"""Decoding with a language model by the command: greedy beside it, weights from other data."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ortho_edge import evaluate
from ortho_edge.beam_search import LanguageModel, SearchOptions
from ortho_edge.data.corpora import synthetic
from ortho_edge.lexicon import Lexicon, lexicon_tokens
from ortho_edge.ngrams import estimate
from ortho_edge.tokens import Tokens, character_tokens
from ortho_edge.training.lm_decoding import LM_WEIGHTS, beam_search, tuned
from tests.training.conftest import write_tones

WORDS = ("LOW", "MIDDLE", "HIGH")


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    path = tmp_path / "lm.arpa"
    path.write_text("".join(estimate(["LOW MIDDLE HIGH", "LOW HIGH", "MIDDLE"], 2).arpa()))
    return path


def sure(tokens: Tokens, ids: list[int]) -> np.ndarray:
    """Frames that say these symbols, with blanks between."""
    log_probs = np.full((2 * len(ids) + 1, len(tokens)), np.log(0.01 / len(tokens)))
    log_probs[::2, 0] = log_probs[range(1, 2 * len(ids), 2), ids] = np.log(0.99)
    return log_probs


@pytest.mark.parametrize(
    "tokens",
    [
        character_tokens(WORDS),
        character_tokens(characters="DEGHILMOW"),
        character_tokens(["LOW"], "DEGHILMOW"),
        lexicon_tokens(Lexicon.parse(["LOW L OW", "HIGH HH AY", "MIDDLE M IH D AH L", "HI HH AY"])),
    ],
)
def test_every_kind_of_symbols_is_searched(tokens: Tokens, arpa: Path) -> None:
    search = beam_search(tokens, LanguageModel(arpa), SearchOptions())
    for text in ("LOW MIDDLE HIGH", "HIGH", "LOW LOW", ""):
        assert search.decode(sure(tokens, tokens.encode(text))) == text


def test_words_that_cannot_be_spelled_are_counted(
    arpa: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = character_tokens(["LOW", "HIGH"])
    search = beam_search(tokens, LanguageModel(arpa), SearchOptions())
    assert "1 words cannot be spelled" in caplog.text
    assert search.decode(sure(tokens, [1, 2])) == "LOW HIGH"


def test_tuning_takes_the_weights_of_fewest_errors(arpa: Path, tmp_path: Path) -> None:
    folder = write_tones(tmp_path / "tones", 4)
    table = folder / "transcripts.tsv"
    rows = [line.rsplit("\t", 1)[0] for line in table.read_text().splitlines()]
    # The model prefers what was said; the encoder does not.
    said = ["text", *["LOW MIDDLE HIGH"] * 4]
    table.write_text("".join(f"{row}\t{text}\n" for row, text in zip(rows, said, strict=True)))
    cuts, tokens = synthetic(folder), character_tokens(WORDS)

    def doubtful(features: torch.Tensor, lengths: torch.Tensor):
        """Three words, each LOW, MIDDLE or HIGH, the first a little more likely."""
        count = len(features)
        log_probs = torch.full((count, 7, 4), -20.0)
        log_probs[:, ::2, 0] = 0.0
        log_probs[:, 1::2, 1] = -0.5
        log_probs[:, 1::2, 2:] = -1.2
        return log_probs, torch.full((count,), 7)

    search = beam_search(tokens, LanguageModel(arpa), SearchOptions(lm_weight=0.0))
    greedy = search.decode(doubtful(torch.zeros(1, 1, 80), torch.ones(1))[0][0].numpy())
    best = tuned(search, doubtful, cuts, tokens)
    assert greedy == "LOW LOW LOW"
    assert best.options.lm_weight in LM_WEIGHTS
    assert best.options.lm_weight > 0


def test_greedy_and_lm_stand_side_by_side(
    command: Callable[..., int],
    checkpoint: Path,
    tones: Path,
    arpa: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = write_tones(tmp_path / "dev", 4, seed=3)
    out = tmp_path / "rates.json"
    arguments = [str(checkpoint), "--set", str(tones), "--lm", str(arpa), "--out", str(out)]
    assert command(evaluate, *arguments, "--tune-on", str(other)) == 0
    results = json.loads(out.read_text())["results"]
    assert set(results) == {"s100", "s050", "s100 + LM", "s050 + LM"}
    assert set(results["s100 + LM"]) - set(results["s100"]) == {"lm_weight", "word_score"}
    assert "s050 + LM: lm_weight" in capsys.readouterr().out
    known = {
        word for one in results["s100 + LM"]["transcripts"] for word in one["hypothesis"].split()
    }
    assert known <= set(WORDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lm", "none.arpa"], "no language model at none.arpa"),
        (["--tuning-utterances", "0"], "--tuning-utterances is 0; it must be from 1 to"),
        (["--tune-on", "digits/dev"], "--tune-on chooses the weights of --lm"),
        (["--lexicon", "words"], "--lexicon is of use only with --lm"),
        (["--lm", "LM", "--lm-weight", "-1"], "lm_weight must not be negative"),
        (["--lm", "LM", "--tune-on", "TONES"], "cannot both choose and test"),
        (["--lm", "LM", "--lexicon", "none.txt"], "no lexicon at none.txt"),
    ],
)
def test_a_mistake_is_one_line(
    command: Callable[..., int],
    checkpoint: Path,
    tones: Path,
    arpa: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"LM": str(arpa), "TONES": str(tones)}
    given = [names.get(one, one) for one in arguments]
    assert command(evaluate, str(checkpoint), "--set", str(tones), *given) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert message in error[0]


@pytest.mark.data
def test_a_test_set_chooses_nothing(
    command: Callable[..., int],
    checkpoint: Path,
    tones: Path,
    arpa: Path,
    data_root: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--lm", str(arpa), "--tune-on", "digits/unseen", "--data", str(data_root)]
    assert command(evaluate, str(checkpoint), "--set", str(tones), *arguments) == 2
    assert "digits/unseen is no development set; known: digits/dev" in capsys.readouterr().err
