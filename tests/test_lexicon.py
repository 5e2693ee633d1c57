"""Lexicon files of every kind are read alike, and phonemes spell words and give them back."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortho_edge.cli import UserError
from ortho_edge.lexicon import Lexicon, LexiconTokens, lexicon_tokens, with_lexicon
from ortho_edge.tokens import Tokens

LIBRISPEECH = ["READ  R EH1 D", "READ  R IY1 D", "RED  R EH1 D", "'TIS  T IH1 Z"]
TEDLIUM = ["read R EH D", "read(2) R IY D", "red R EH D", "'tis T IH Z", "'tis(2) T IH Z"]
CMUDICT = [
    ";;; comment",
    "",
    *LIBRISPEECH[:1],
    "read(1) R IY1 D # past",
    "red R EH1 D",
    "'tis T IH1 Z",
]


@pytest.mark.parametrize("lines", [LIBRISPEECH, TEDLIUM, CMUDICT])
def test_the_three_kinds_of_file_say_the_same(lines: list[str]) -> None:
    lexicon = Lexicon.parse(lines)
    assert lexicon.pronunciations == {
        "READ": (("R", "EH", "D"), ("R", "IY", "D")),
        "RED": (("R", "EH", "D"),),
        "'TIS": (("T", "IH", "Z"),),
    }
    assert lexicon.phonemes == ("D", "EH", "IH", "IY", "R", "T", "Z")
    assert Lexicon.parse(lexicon.lines().splitlines()) == lexicon


@given(st.lists(st.sampled_from(["READ", "'TIS"])))
def test_words_come_back_from_their_phonemes(words: list[str]) -> None:
    tokens = lexicon_tokens(Lexicon.parse(LIBRISPEECH))
    assert tokens.decode(tokens.encode(" ".join(words))) == " ".join(words)


def test_a_phoneme_that_ends_a_word_is_a_symbol_of_its_own() -> None:
    tokens = lexicon_tokens(Lexicon.parse(LIBRISPEECH))
    assert len(tokens) == 1 + 2 * 7
    spelled = [tokens.symbols[index] for index in tokens.encode("RED 'TIS")]
    assert spelled == ["R", "EH", "D#", "T", "IH", "Z#"]
    # Words that sound alike are the one listed first; what is no word stays as it was heard.
    assert tokens.decode(tokens.encode("RED")) == "READ"
    ids = [tokens.symbols.index(symbol) for symbol in ("Z", "IY#", "R", "EH", "D#", "T")]
    assert tokens.decode(ids) == "Z-IY READ T"


def test_a_word_without_pronunciation_is_named() -> None:
    tokens = lexicon_tokens(Lexicon.parse(LIBRISPEECH))
    with pytest.raises(ValueError, match="no pronunciation of 'BLUE' in 'READ BLUE'"):
        tokens.encode("READ BLUE")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["READ R EH D", "BLUE"], "file, line 2: 'BLUE' is not 'WORD PHONEME ...'"),
        ([";;; nothing"], "file holds no pronunciation"),
        (["READ R 1 D"], "line 1"),
    ],
)
def test_a_bad_line_is_named(lines: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Lexicon.parse(lines, "file")


def test_a_checkpoints_symbols_must_have_every_phoneme(tmp_path: Path) -> None:
    tokens = lexicon_tokens(Lexicon.parse(LIBRISPEECH))
    plain = Tokens.parse(tokens.lines())
    again = with_lexicon(plain, Lexicon.parse(TEDLIUM))
    assert isinstance(again, LexiconTokens)
    assert again.encode("READ") == tokens.encode("READ")
    with pytest.raises(UserError, match="'BLUE' cannot be spelled: no symbol for phoneme 'B'"):
        with_lexicon(plain, Lexicon.parse(["BLUE B L UW"]))
    path = tmp_path / "lexicon"
    path.write_bytes(b"\xff\xe9")
    with pytest.raises(UserError, match="lexicon, line 1: byte 0xff is no UTF-8"):
        Lexicon.load(path)
