"""Error rates against a direct edit distance, and the bootstrap against a known spread."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortho_edge.data.examples import Omission
from ortho_edge.training.evaluation import Transcript, error_rates, rates_by_group

WORDS = st.lists(st.sampled_from(["ONE", "TWO", "THREE"]), max_size=6).map(" ".join)


def distance(a: list[str], b: list[str]) -> int:
    """Levenshtein distance by the textbook recursion, row by row."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


@given(st.lists(st.tuples(WORDS.filter(bool), WORDS), min_size=1, max_size=5))
def test_wer_and_cer_equal_edit_distances(pairs: list[tuple[str, str]]) -> None:
    rates = error_rates([Transcript(str(i), "a", *pair) for i, pair in enumerate(pairs)])
    wrong = sum(distance(a.split(), b.split()) for a, b in pairs)
    assert rates.wer == pytest.approx(100 * wrong / sum(len(a.split()) for a, _ in pairs))
    wrong = sum(distance(list(a), list(b)) for a, b in pairs)
    assert rates.cer == pytest.approx(100 * wrong / sum(len(a) for a, _ in pairs))


def test_an_empty_hypothesis_counts_every_word() -> None:
    assert error_rates([Transcript("a", "x", "ONE TWO", "")]).wer == 100


def test_nothing_to_compare_with_is_an_error() -> None:
    with pytest.raises(ValueError, match="no reference words"):
        error_rates([Transcript("a", "x", "", "ONE")])


def test_the_interval_covers_chance_and_draws_speakers_when_there_are_enough() -> None:
    rng = np.random.default_rng(0)
    transcripts = [
        Transcript(str(i), f"speaker{i % 20}", "ONE", "ONE" if rng.random() < 0.8 else "TWO")
        for i in range(400)
    ]
    rates = error_rates(transcripts)
    # Binomial: a standard deviation of sqrt(0.2 * 0.8 / 400) = 2 points.
    assert rates.resampled == "speakers"
    assert 2.5 < rates.wer_interval[1] - rates.wer < 6
    assert 2.5 < rates.wer - rates.wer_interval[0] < 6
    low, high = rates.cer_interval
    assert low < rates.cer < high
    assert error_rates(transcripts[::20]).resampled == "utterances"


def test_speakers_that_differ_widen_the_interval() -> None:
    transcripts = [
        Transcript(str(i), f"speaker{i % 20}", "ONE", "TWO" if i % 20 < 4 else "ONE")
        for i in range(400)
    ]
    by_speaker = error_rates(transcripts)
    as_one = error_rates(
        [Transcript(o.cut_id, "a", o.reference, o.hypothesis) for o in transcripts]
    )
    assert by_speaker.wer == as_one.wer
    width = by_speaker.wer_interval[1] - by_speaker.wer_interval[0]
    assert width > 3 * (as_one.wer_interval[1] - as_one.wer_interval[0])


def test_words_where_nothing_is_said_count_per_minute_and_in_no_rate() -> None:
    said = [Transcript("a", "x", "ONE TWO", "ONE TWO", 2.0)]
    silent = [Transcript("b", "x", "", "NINE NINE", 30.0), Transcript("c", "x", " ", "", 15.0)]
    rates = error_rates(said + silent)
    assert (rates.wer, rates.cer, rates.utterances, rates.seconds) == (0.0, 0.0, 1, 2.0)
    assert (rates.inserted_words, rates.wordless_seconds) == (2, 45.0)
    assert rates.inserted_words_per_minute == pytest.approx(2 / 0.75)
    assert error_rates(said).inserted_words_per_minute is None
    groups = {"a": "adults", "b": "children"}
    assert list(rates_by_group(said + silent, groups)) == ["adults"]


def test_what_was_not_scored_is_counted_by_reason_with_its_seconds() -> None:
    omitted = [
        Omission(utterance=name, reason=reason, seconds=seconds, detail=reason)
        for name, reason, seconds in [
            ("a", "truncated", 1.5), ("b", "missing", None), ("c", "truncated", 2.0),
        ]
    ]  # fmt: skip
    rates = error_rates([Transcript("d", "x", "ONE", "ONE")], omitted=omitted)
    assert rates.not_scored == {"truncated": 2, "missing": 1}
    assert rates.not_scored_seconds == 3.5
