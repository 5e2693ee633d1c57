"""CTC symbols: what the encoder's outputs mean, and text to and from them.

A symbol table is enough: characters, whole words and word pieces are all entries of it, and text
is split by longest match. Words begin with U+2581 (as in sentencepiece), blank is symbol 0.
Phonemes instead end words, with a `#` (`ortho_edge.lexicon` spells with them). `tokens.txt` holds
one `symbol id` per line, the form that sherpa-onnx reads.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ortho_edge.json_files import shown

BLANK = "<blk>"
WORD_START = "\u2581"
WORD_END = "#"
"""Marks the phonemes that end a word, in tables of phonemes."""
LONGEST_SYMBOL = 1000
"""Text is split by longest match, which looks at so many characters at most."""


@dataclass(frozen=True)
class Tokens:
    """A symbol table with blank first.

    Attributes:
        symbols: The symbols; the index is the id.
    """

    symbols: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raises ValueError when blank is not first or a symbol is empty, spaced or repeated."""
        if not self.symbols or self.symbols[0] != BLANK:
            raise ValueError(f"symbol 0 must be {BLANK}")
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError("symbols must be distinct")
        for symbol in self.symbols:
            if not symbol or symbol.split() != [symbol]:
                raise ValueError(f"symbol {shown(symbol)} is empty or holds white space")
            # Transcripts are printed as they are.
            if any(ord(one) < 32 or 127 <= ord(one) < 160 for one in symbol):
                raise ValueError(f"symbol {shown(symbol)} holds a control character")
            if len(symbol) > LONGEST_SYMBOL:
                raise ValueError(
                    f"symbol {shown(symbol)} has more than {LONGEST_SYMBOL} characters"
                )

    def __len__(self) -> int:
        """V, the number of symbols, blank included."""
        return len(self.symbols)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {symbol: index for index, symbol in enumerate(self.symbols) if index}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self.symbols))

    @cached_property
    def phonemic(self) -> bool:
        """Whether symbols are phonemes, which spell words only by way of a lexicon."""
        marked = any(len(symbol) > 1 and symbol.endswith(WORD_END) for symbol in self.symbols)
        return marked and not any(symbol.startswith(WORD_START) for symbol in self.symbols)

    def encode(self, text: str) -> list[int]:
        """Ids of `text` by longest match from the left.

        Raises:
            ValueError: A piece of the text is in no symbol.
        """
        marked = "".join(WORD_START + word for word in text.split())
        ids = []
        start = 0
        while start < len(marked):
            for stop in range(min(len(marked), start + self._longest), start, -1):
                index = self._ids.get(marked[start:stop])
                if index is not None:
                    ids.append(index)
                    start = stop
                    break
            else:
                raise ValueError(f"no symbol for {marked[start]!r} in {text!r}")
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of symbol ids; blanks are left out. A word of phonemes reads as `HH-AY`."""
        symbols = [self.symbols[index] for index in ids if index]
        if self.phonemic:
            return " ".join("-".join(sounds) for sounds in phoneme_words(symbols))
        joined = "".join(symbols)
        return " ".join(joined.replace(WORD_START, " ").split())

    @staticmethod
    def minimum_frames(ids: Sequence[int]) -> int:
        """Encoder frames that CTC needs for `ids`: a blank must part repeated symbols."""
        return len(ids) + sum(a == b for a, b in itertools.pairwise(ids))

    def lines(self) -> str:
        """The text of `tokens.txt`."""
        return "".join(f"{symbol} {index}\n" for index, symbol in enumerate(self.symbols))

    @classmethod
    def parse(cls, text: str) -> "Tokens":
        """Reads the text of a `tokens.txt`.

        Raises:
            ValueError: A line is not `symbol id` or the ids are not 0, 1, 2, ...
        """
        symbols = []
        for number, line in enumerate(text.splitlines()):
            parts = line.split()
            if len(parts) != 2 or parts[1] != str(number):
                raise ValueError(
                    f"line {number + 1} of tokens.txt is {shown(line)}, not 'symbol {number}'"
                )
            symbols.append(parts[0])
        return cls(tuple(symbols))


def phoneme_words(symbols: Iterable[str]) -> list[tuple[str, ...]]:
    """Phonemes of each word, unmarked; what follows the last end of a word is a word, too."""
    words: list[tuple[str, ...]] = []
    sounds: list[str] = []
    for symbol in symbols:
        sounds.append(symbol.removesuffix(WORD_END))
        if symbol.endswith(WORD_END):
            words.append(tuple(sounds))
            sounds = []
    return [*words, tuple(sounds)] if sounds else words


def character_tokens(words: Iterable[str] = (), characters: str = "") -> Tokens:
    """A table of whole `words` and, for everything else, single characters.

    Args:
        words: Words that get a symbol of their own.
        characters: Characters that spell all other words, such as `ABC...Z'`.
    """
    spelled = (WORD_START, *characters) if characters else ()
    return Tokens((BLANK, *(WORD_START + word for word in words), *spelled))


def sentencepiece_tokens(model: bytes) -> Tokens:
    """The pieces of a serialised sentencepiece model, without its unknown and control pieces."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [
        processor.id_to_piece(index)
        for index in range(processor.get_piece_size())
        if not (processor.is_unknown(index) or processor.is_control(index))
    ]
    return Tokens((BLANK, *pieces))
