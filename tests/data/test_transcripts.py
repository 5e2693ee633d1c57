"""Transcripts of every hand become the words that symbols spell; what they cannot is told."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortho_edge.data.transcripts import Normalizer, normalizer, unspelled
from ortho_edge.lexicon import Lexicon, lexicon_tokens
from ortho_edge.tokens import Tokens, character_tokens
from ortho_edge.training.corpora import DIGITS

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ'"
SHIPPED = character_tokens(DIGITS, LETTERS)
CHARACTERS = character_tokens(characters=LETTERS)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("seven two nine", "SEVEN TWO NINE"),
        ("Seven, two \u2014 nine!", "SEVEN TWO NINE"),
        ("729", "SEVEN TWO NINE"),
        ("7 2-9", "SEVEN TWO NINE"),
        ("7,2", "SEVEN TWO"),
        ("  SEVEN\tTWO\u00a0NINE\n", "SEVEN TWO NINE"),
        ("\ufeffsev\u00aden t\u200bwo", "SEVEN TWO"),
        ("\u201cDon\u2019t,\u201d he said, \u2018go there\u2019.", "DON'T HE SAID GO THERE"),
        ("'well' she\u02bcs 'TIS the dogs' bed", "WELL SHE'S 'TIS THE DOGS' BED"),
        ("he said 'go there.' then", "HE SAID GO THERE THEN"),
        ("5 ' 6'", "FIVE SIX"),
        ("A&B 5%", "A AND B FIVE PERCENT"),
    ],
)
def test_the_shipped_models_words(written: str, words: str) -> None:
    assert normalizer(SHIPPED)(written) == words
    assert unspelled(words, SHIPPED) == []


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("42", "FORTY TWO"),
        ("1,250 of 101", "ONE THOUSAND TWO HUNDRED FIFTY OF ONE HUNDRED ONE"),
        ("3.05", "THREE POINT ZERO FIVE"),
        ("the 22nd, the 1ST", "THE TWENTY SECOND THE FIRST"),
        ("007", "ZERO ZERO SEVEN"),
        ("1234567890123", "ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE ZERO ONE TWO THREE"),
    ],
)
def test_figures_are_read_as_numbers_where_digits_are_no_symbols(written: str, words: str) -> None:
    assert normalizer(CHARACTERS)(written) == words
    assert Normalizer()(written) == words


def test_case_and_punctuation_are_those_of_the_symbols() -> None:
    lower = character_tokens(characters="abcdefghijklmnopqrstuvwxyz-")
    mixed = character_tokens(characters="abcABC0123456789")
    assert normalizer(lower)("IT'S Well-Known 5") == "its well-known five"
    assert normalizer(mixed)("Ab 42, c") == "Ab 42 c"
    phonemes = lexicon_tokens(Lexicon.parse(["DON'T D OW N T", "GO G OW"]))
    assert normalizer(phonemes)("don\u2019t go, now") == "DON'T GO NOW"
    assert unspelled("DON'T GO NOW", phonemes) == ["NOW"]
    cyrillic = character_tokens(characters="\u0430\u0431\u0432")
    assert normalizer(cyrillic)("\u0410\u0411 \u0412") == "\u0430\u0431 \u0432"


def test_what_cannot_be_spelled_stays_and_is_told() -> None:
    text = normalizer(SHIPPED)("cafe\u0301 $5 na\u00efve Z\u00fcrich")
    assert text == "CAF\u00c9 $ FIVE NA\u00cfVE Z\u00dcRICH"
    assert unspelled(text, SHIPPED) == ["\u00c9", "$", "\u00cf", "\u00dc"]
    whole_words = Tokens(("<blk>", "\u2581ONE", "\u2581ON"))
    assert unspelled("ONE ONO ON", whole_words) == ["ONO"]


@given(st.text(max_size=60))
def test_normalising_twice_changes_nothing_and_composition_does_not_matter(text: str) -> None:
    for tokens in (SHIPPED, CHARACTERS):
        normalized = normalizer(tokens)
        once = normalized(text)
        assert normalized(once) == once
        assert normalized(unicodedata.normalize("NFD", text)) == once
        assert once == " ".join(once.split())


@given(st.lists(st.text(LETTERS.replace("'", ""), min_size=1, max_size=8), max_size=6))
def test_words_that_symbols_spell_are_left_alone(words: list[str]) -> None:
    text = " ".join(words)
    assert normalizer(CHARACTERS)(text) == text
    assert unspelled(text, CHARACTERS) == []
