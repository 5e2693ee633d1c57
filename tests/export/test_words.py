"""Words that stay the same: counted over many utterances, with an interval, and ties told apart."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortho_edge.decoding import greedy_text
from ortho_edge.tokens import character_tokens
from ortho_export.machine import this_machine
from ortho_export.ties import could_say
from ortho_export.words import ENOUGH_WORDS, utterances_of, word_agreement
from tests.export.tiny import bursts

TOKENS = character_tokens(("ON", "NO"), "ON")


def wilson(same: int, words: int) -> tuple[float, float]:
    z, share = 1.959963984540054, same / words
    centre = (share + z**2 / (2 * words)) / (1 + z**2 / words)
    half = z / (1 + z**2 / words) * math.sqrt(share * (1 - share) / words + z**2 / (4 * words**2))
    return centre - half, centre + half


@given(st.integers(1, 400), st.data())
def test_the_interval_is_wilsons(words: int, data: st.DataObject) -> None:
    same = data.draw(st.integers(0, words))
    found = word_agreement([("A", "A")] * same + [("A", "B")] * (words - same), "speech")
    assert found is not None
    assert (found.words, found.same) == (words, same / words)
    assert (found.low, found.high) == pytest.approx(wilson(same, words), abs=1e-9)


def test_lost_added_and_other_words_count_and_there_are_never_fewer_than_none() -> None:
    pairs = [("A B C", "A C"), ("D", "D E"), ("F G", "F H"), ("", "I"), ("", "")]
    found = word_agreement(pairs, "speech")
    assert found is not None
    assert (found.words, found.utterances, found.same) == (6, 5, pytest.approx(2 / 6))
    many = word_agreement([("A", "B C D")], "speech")
    assert many is not None
    assert many.same == 0
    assert word_agreement([("", "A")], "speech") is None


def test_few_words_never_refuse_and_many_do() -> None:
    for words, refused in ((ENOUGH_WORDS - 1, False), (ENOUGH_WORDS, True)):
        found = word_agreement([("A", "B")] * words, "speech")
        assert found is not None
        assert found.is_below(0.8) is refused
    one_wrong = word_agreement([("A", "A")] * 79 + [("A", "B")] * 21, "speech")
    assert one_wrong is not None
    assert one_wrong.same < 0.8
    assert not one_wrong.is_below(0.8), "the interval reaches beyond the limit"


def test_one_clip_becomes_many_utterances_that_hold_all_of_it() -> None:
    clip = bursts(2.35)
    made = utterances_of(clip)
    assert len(made) == 24
    assert made["words-012-1-0"].tolist() == clip.tolist()
    assert sorted(made["words-210-1-0"].tolist()) == sorted(clip.tolist())
    quiet, slow = made["words-120-1--20"], made["words-120-0.9--6"]
    assert np.abs(quiet).max() == pytest.approx(0.1 * np.abs(clip).max(), rel=1e-5)
    assert len(slow) == pytest.approx(len(clip) * 0.9, abs=2)
    assert all(one.dtype == np.float32 for one in made.values())
    assert len({one.tobytes() for one in made.values()}) == 24


@given(st.integers(0, 10_000), st.sampled_from([0.01, 0.3, 1.0]))
def test_could_say_is_what_some_error_within_the_bound_says(seed: int, error: float) -> None:
    generator = np.random.default_rng(seed)
    log_probs = generator.normal(size=(4, 4))
    corners = [
        greedy_text(log_probs + error * np.array(signs).reshape(4, 4), TOKENS)
        for signs in generator.choice((-1, 1), (50, 16))
    ]
    assert all(could_say(log_probs, one, TOKENS, error) for one in corners)
    margin = 2 * error
    reachable = {
        greedy_text(np.eye(4)[list(path)], TOKENS)
        for path in itertools.product(range(4), repeat=4)
        if all(log_probs[t, one] >= log_probs[t].max() - margin for t, one in enumerate(path))
    }
    for text in ("", "ON", "NO", "O N", "ONO"):
        assert could_say(log_probs, text, TOKENS, error) == (text in reachable)


def test_the_machine_is_named_with_what_kernels_are_chosen_by() -> None:
    found = this_machine()
    assert found == this_machine()
    assert found.endswith(")")
    assert "unknown" not in found
