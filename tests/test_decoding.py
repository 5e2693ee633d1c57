"""Greedy CTC decoding against its definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ortho_edge.decoding import greedy_ids, greedy_text
from ortho_edge.tokens import character_tokens

TABLE = character_tokens(["ONE", "TWO", "SIX"])


def scores_of(best: list[int], num_symbols: int = 4) -> np.ndarray:
    """Log-probabilities (T, V) whose best symbols are these."""
    rng = np.random.default_rng(len(best))
    logits = rng.standard_normal((len(best), num_symbols))
    logits[np.arange(len(best)), best] += 10
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def naive_ids(best: list[int]) -> list[int]:
    ids = []
    previous = None
    for symbol in best:
        if symbol not in (previous, 0):
            ids.append(symbol)
        previous = symbol
    return ids


frames = st.lists(st.integers(0, 3), max_size=30)


@given(frames)
@settings(deadline=None)
def test_merges_repeats_then_drops_blanks(best: list[int]) -> None:
    assert greedy_ids(scores_of(best)) == naive_ids(best)


def test_a_blank_parts_repeated_symbols() -> None:
    assert greedy_ids(scores_of([1, 1, 0, 1, 2, 2, 0])) == [1, 1, 2]


@pytest.mark.parametrize("best", [[], [0], [0, 0, 0]])
def test_silence_is_no_text(best: list[int]) -> None:
    assert greedy_text(scores_of(best), TABLE) == ""


def test_ids_are_plain_integers() -> None:
    assert [type(index) for index in greedy_ids(scores_of([3, 0, 1]))] == [int, int]
