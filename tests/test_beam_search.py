"""Beam search against every alignment and every sequence of words, written out one by one."""

import gzip
import itertools
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from ortho_edge.beam_search import BeamSearch, LanguageModel, SearchOptions
from ortho_edge.cli import UserError
from ortho_edge.ngrams import NgramModel, estimate

EXACT = {"beam": 10**6, "beam_threshold": math.inf, "token_threshold": -math.inf}

# A single symbol, a longer word that begins alike, one symbol twice, two spellings, sound-alikes.
SPELLINGS = {"A": [[1]], "AB": [[1, 2]], "BB": [[2, 2]], "C": [[3], [1, 3]], "SEE": [[3]]}
TEXT = ["A AB C", "C A", "SEE A AB", "A C BB", "BB BB A", "AB SEE", "C C A"]


def written(model: NgramModel, path: Path) -> Path:
    path.write_text("".join(model.arpa()))
    return path


@pytest.fixture(scope="module")
def text_model() -> NgramModel:
    return estimate(TEXT, 3)


@pytest.fixture(scope="module")
def lm(text_model: NgramModel, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return LanguageModel(written(text_model, tmp_path_factory.mktemp("lm") / "lm.arpa"))


def log_p(model: NgramModel, words: tuple[str, ...]) -> float:
    """The definition of a back-off model, without KenLM."""
    total, history = 0.0, ("<s>",)
    for word in (*words, "</s>"):
        context = history[-(model.order - 1) :] if model.order > 1 else ()
        while (*context, word) not in model.probabilities[len(context)]:
            if not context:
                word = "<unk>"
                continue
            total += math.log(model.backoffs[len(context) - 1].get(context, 1.0))
            context = context[1:]
        total += math.log(model.probabilities[len(context)][*context, word])
        history = (*history, word)
    return total


def best_words(
    log_probs: np.ndarray, spellings: dict, model: NgramModel, options: SearchOptions
) -> str:
    """The best words by enumeration; fails where the second best is too close to tell."""
    chances: dict[tuple[int, ...], float] = defaultdict(float)
    frames, symbols = log_probs.shape
    for path in itertools.product(range(symbols), repeat=frames):
        said = tuple(symbol for symbol, _ in itertools.groupby(path) if symbol)
        chances[said] += math.exp(sum(log_probs[range(frames), path]))
    scores = {}
    for length in range(frames + 1):
        for words in itertools.product(spellings, repeat=length):
            ways = itertools.product(*(spellings[word] for word in words))
            chance = sum(chances.get(tuple(itertools.chain(*way)), 0.0) for way in ways)
            if chance > 0:
                scores[words] = (
                    math.log(chance)
                    + options.lm_weight * log_p(model, words)
                    + options.word_score * length
                )
    first, second = sorted(scores.values(), reverse=True)[:2]
    assert first - second > 1e-9
    return " ".join(max(scores, key=scores.__getitem__))


@pytest.mark.parametrize("seed", range(24))
def test_the_search_finds_what_enumeration_finds(
    seed: int, lm: LanguageModel, text_model: NgramModel
) -> None:
    rng = np.random.default_rng(seed)
    logits = 2.5 * rng.standard_normal((1 + seed % 5, 4))
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    weight, score = float(rng.choice([0.0, 0.5, 1.5])), float(rng.choice([-1.0, 0.0, 2.0]))
    options = SearchOptions(lm_weight=weight, word_score=score, **EXACT)
    if weight == 0:
        # Without a language model nothing tells words that sound alike apart.
        spellings = {word: ways for word, ways in SPELLINGS.items() if word != "SEE"}
    else:
        spellings = SPELLINGS
    expected = best_words(log_probs, spellings, text_model, options)
    assert BeamSearch(spellings, lm, options).decode(log_probs) == expected


def held(*symbols: int, confidence: float = 0.99) -> np.ndarray:
    """Log-probabilities of frames that say these symbols almost surely."""
    log_probs = np.full((len(symbols), 4), math.log((1 - confidence) / 3))
    log_probs[range(len(symbols)), symbols] = math.log(confidence)
    return log_probs


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ((1, 1, 1, 1, 0, 0), "A"),
        ((1, 1, 0, 1, 1), "A A"),
        ((2, 2, 0, 2, 2, 2), "BB"),
        ((1, 2, 2, 2, 1), "AB A"),
        ((0, 0, 0), ""),
        ((), ""),
    ],
)
def test_a_word_is_as_long_as_its_last_symbol_is_held(
    frames: tuple[int, ...], words: str, lm: LanguageModel
) -> None:
    search = BeamSearch(SPELLINGS, lm, SearchOptions(lm_weight=0.1))
    assert search.decode(held(*frames)) == words


def test_the_model_tells_words_that_sound_alike_apart(lm: LanguageModel) -> None:
    search = BeamSearch(SPELLINGS, lm, SearchOptions(lm_weight=1.0))
    assert search.decode(held(3, 0, 1, 0, 1, 2)) == "SEE A AB"
    assert search.decode(held(3, 0, 3, 0, 1)) == "C C A"


def test_a_narrow_beam_finds_what_a_wide_one_does_where_the_encoder_is_sure(
    lm: LanguageModel,
) -> None:
    rng = np.random.default_rng(5)
    wide = BeamSearch(SPELLINGS, lm, SearchOptions(beam=400, beam_threshold=1e9))
    narrow = wide.weighed(SearchOptions())
    for _ in range(4):
        log_probs = held(*rng.integers(0, 4, 12), confidence=0.9)
        assert narrow.decode(log_probs) == wide.decode(log_probs)


def test_what_a_model_reads_is_checked_and_named(tmp_path: Path, text_model: NgramModel) -> None:
    path = written(text_model, tmp_path / "lm.arpa")
    zipped = tmp_path / "lm.arpa.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    for one in (path, zipped):
        assert sorted(LanguageModel(one).words()) == ["A", "AB", "BB", "C", "SEE"]
    (tmp_path / "no.arpa").write_text("import os\n")
    (tmp_path / "cut.arpa").write_bytes(path.read_bytes()[:200])
    (tmp_path / "bad.arpa.gz").write_text("text")
    for name, message in (
        ("none.arpa", "no language model at"),
        ("no.arpa", "neither ARPA text nor KenLM's binary form"),
        ("cut.arpa", "cannot read the language model"),
        ("bad.arpa.gz", "cannot read the language model"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            LanguageModel(tmp_path / name)
        assert name in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_nothing_to_look_for_is_an_error(lm: LanguageModel) -> None:
    with pytest.raises(UserError, match="no word that the symbols can spell"):
        BeamSearch({}, lm, SearchOptions())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lm_weight": -1.0}, "lm_weight must not be negative, but is -1.0"),
        ({"lm_weight": math.nan}, "lm_weight"),
        ({"word_score": math.inf}, "finite"),
        ({"beam": 0}, "beam must be at least 1, but is 0"),
    ],
)
def test_options_out_of_range_are_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchOptions(**change)
