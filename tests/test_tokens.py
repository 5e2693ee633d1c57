"""Symbol tables: text to ids and back, and the file that holds them."""

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ortho_edge.tokens import BLANK, WORD_START, Tokens, character_tokens, sentencepiece_tokens

LETTERS = "ABCDE'"
WORDS = ("BAD", "BE", "BEAD", "A")
TABLE = character_tokens(WORDS, LETTERS)
spelled_words = st.lists(st.text(LETTERS, min_size=1, max_size=6) | st.sampled_from(WORDS))
symbol_sets = st.lists(
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=4).filter(
        lambda text: text.split() == [text] and text != BLANK
    ),
    unique=True,
    max_size=8,
)


@given(spelled_words)
@settings(deadline=None)
def test_text_survives_the_round_trip(words: list[str]) -> None:
    text = " ".join(words)
    ids = TABLE.encode(text)
    assert all(0 < index < len(TABLE) for index in ids)
    assert TABLE.decode(ids) == text


def test_encoding_takes_the_longest_symbol() -> None:
    symbols = [TABLE.symbols[index] for index in TABLE.encode("BEAD BEADED  bad".upper())]
    start = WORD_START
    assert symbols == [f"{start}BEAD", f"{start}BEAD", "E", "D", f"{start}BAD"]


def test_white_space_is_folded_and_blanks_are_left_out() -> None:
    assert TABLE.decode([0, *TABLE.encode("\t BE   BAD\n"), 0]) == "BE BAD"
    assert TABLE.encode(" \n") == []
    assert TABLE.decode([]) == ""


def test_text_in_no_symbol_is_refused() -> None:
    with pytest.raises(ValueError, match="no symbol for 'Z' in 'BE Z'"):
        TABLE.encode("BE Z")
    with pytest.raises(ValueError, match="no symbol"):
        TABLE.encode(f"BE {BLANK}")


def test_a_table_of_whole_words_spells_nothing() -> None:
    table = character_tokens(WORDS)
    assert table.symbols == (BLANK, *(WORD_START + word for word in WORDS))
    assert table.decode(table.encode("BE A BEAD")) == "BE A BEAD"
    with pytest.raises(ValueError, match="no symbol"):
        table.encode("BEADED")


@given(symbol_sets)
@settings(deadline=None)
def test_the_file_survives_the_round_trip(symbols: list[str]) -> None:
    table = Tokens((BLANK, *symbols))
    assert Tokens.parse(table.lines()) == table
    assert len(table) == len(symbols) + 1


@pytest.mark.parametrize("symbol", ["\x1b[2J", "a\0", "\x7f", "x" * 1001])
def test_a_symbol_can_be_printed(symbol: str) -> None:
    with pytest.raises(ValueError, match=r"holds a control character|longer than 1000|more than"):
        Tokens((BLANK, symbol))


def test_the_file_holds_a_symbol_and_its_id_per_line() -> None:
    assert character_tokens(["ONE", "TWO"], "ab").lines() == (
        f"<blk> 0\n{WORD_START}ONE 1\n{WORD_START}TWO 2\n{WORD_START} 3\na 4\nb 5\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "symbol 0 must be <blk>"),
        ("a 0\n<blk> 1\n", "symbol 0 must be <blk>"),
        ("<blk> 0\na\n", "line 2 of tokens.txt is 'a', not 'symbol 1'"),
        ("<blk> 0\na b 1\n", "line 2 of tokens.txt is 'a b 1', not 'symbol 1'"),
        ("<blk> 0\na 2\n", "line 2 of tokens.txt is 'a 2', not 'symbol 1'"),
        ("<blk> 0\na 01\n", "line 2 of tokens.txt"),
        ("<blk> 0\n\na 1\n", "line 2 of tokens.txt is '', not 'symbol 1'"),
        ("<blk> 0\na 1\na 2\n", "symbols must be distinct"),
        ("<blk>\t0 extra\n", "line 1 of tokens.txt"),
    ],
)
def test_a_malformed_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tokens.parse(text)


@pytest.mark.parametrize("symbol", ["", " ", "a b", "a\u2028", "\n"])
def test_a_symbol_that_a_line_cannot_hold_is_refused(symbol: str) -> None:
    with pytest.raises(ValueError, match="is empty or holds white space"):
        Tokens((BLANK, symbol))


@given(st.lists(st.integers(1, 3), max_size=6))
@settings(deadline=None)
def test_minimum_frames_is_where_ctc_becomes_feasible(ids: list[int]) -> None:
    frames = Tokens.minimum_frames(ids)
    targets = torch.tensor([ids], dtype=torch.long)

    def loss(num_frames: int) -> torch.Tensor:
        return torch.nn.functional.ctc_loss(
            torch.zeros(num_frames, 1, 4).log_softmax(-1), targets,
            torch.tensor([num_frames]), torch.tensor([len(ids)]), reduction="sum",
        )  # fmt: skip

    assert loss(max(frames, 1)).isfinite()
    if frames > 1:
        assert loss(frames - 1).isinf()


SENTENCES = ["the cat sat on the mat", "a cat and a hat", "that hat sat there", "tea at ten"]


def test_sentencepiece_pieces_become_symbols() -> None:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=model, model_type="bpe",
        vocab_size=32, minloglevel=3,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    table = sentencepiece_tokens(model.getvalue())
    assert table.symbols[0] == BLANK
    assert not {"<unk>", "<s>", "</s>"} & set(table.symbols)
    pieces = {processor.id_to_piece(index) for index in range(processor.get_piece_size())}
    assert set(table.symbols[1:]) == pieces - {"<unk>", "<s>", "</s>"}
    for sentence in SENTENCES:
        assert table.decode(table.encode(sentence)) == sentence
        # The library's own segmentation, too, consists of symbols that spell the sentence.
        own = [table.symbols.index(piece) for piece in processor.encode(sentence, out_type=str)]
        assert table.decode(own) == sentence
    assert any(len(symbol.strip(WORD_START)) > 1 for symbol in table.symbols[1:])


def test_phonemes_are_told_from_spelled_words_and_read_apart() -> None:
    table = Tokens((BLANK, "AY", "HH", "AY#", "N#"))
    assert table.phonemic
    assert table.decode([2, 0, 3, 1, 4, 2]) == "HH-AY AY-N HH"
    assert not character_tokens(["ONE"], "ABC#").phonemic
    assert not Tokens((BLANK, "#", "A")).phonemic
