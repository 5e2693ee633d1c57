"""Pronunciations: words as phonemes, and phonemes as CTC symbols.

The files are those of LibriSpeech (`librispeech-lexicon.txt`), TED-LIUM (`TEDLIUM.152k.dic`) and
CMUdict: a word and its phonemes on each line, variants as further lines or as `WORD(2)`. Stress is
dropped. As in the paper a phoneme that ends a word is a symbol of its own, marked with `#`; so
CMUdict's 39 phonemes make 78 symbols besides blank.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ortho_edge.cli import UserError
from ortho_edge.data.text_files import read_text
from ortho_edge.json_files import shown
from ortho_edge.tokens import BLANK, LONGEST_SYMBOL, WORD_END, Tokens, phoneme_words

LONGEST_PHONEME = 100
_COMMENT = re.compile(r"^;;;.*|\s#.*")
_VARIANT = re.compile(r"\(\d+\)$")
_STRESS = re.compile(r"\d$")


@dataclass(frozen=True)
class Lexicon:
    """Pronunciations of words.

    Attributes:
        pronunciations: Of each word in upper case, the most usual one first.
    """

    pronunciations: Mapping[str, tuple[tuple[str, ...], ...]]

    @classmethod
    def parse(cls, lines: Iterable[str], what: str = "the lexicon") -> "Lexicon":
        """Reads `WORD PHONEME ...` lines.

        Raises:
            UserError: A line has no phoneme, or there is no line at all; `what` names the file.
        """
        found: dict[str, list[tuple[str, ...]]] = {}
        for number, line in enumerate(lines, 1):
            parts = _COMMENT.sub("", line).split()
            if not parts:
                continue
            word = _VARIANT.sub("", parts[0]).upper()
            sounds = tuple(_STRESS.sub("", sound.upper()) for sound in parts[1:])
            # A mark at a phoneme's end is ours, and what is recognised is printed as it is.
            clean = word.isprintable() and all(
                0 < len(one) <= LONGEST_PHONEME and one.isprintable() and WORD_END not in one
                for one in sounds
            )
            if not sounds or not word or not clean or len(word) > LONGEST_SYMBOL:
                raise UserError(
                    f"{what}, line {number}: {shown(line.strip())} is not 'WORD PHONEME ...'"
                )
            variants = found.setdefault(word, [])
            if sounds not in variants:
                variants.append(sounds)
        if not found:
            raise UserError(f"{what} holds no pronunciation")
        return cls({word: tuple(variants) for word, variants in found.items()})

    @classmethod
    def load(cls, path: Path) -> "Lexicon":
        """Reads a file.

        Raises:
            UserError: It is missing, is no UTF-8 text or is no lexicon.
        """
        return cls.parse(read_lines(path, "lexicon"), str(path))

    def lines(self) -> str:
        """The text of a lexicon file."""
        return "".join(
            f"{word} {' '.join(sounds)}\n"
            for word, variants in self.pronunciations.items()
            for sounds in variants
        )

    @cached_property
    def phonemes(self) -> tuple[str, ...]:
        """Every phoneme once, sorted."""
        every = self.pronunciations.values()
        return tuple(sorted({sound for variants in every for one in variants for sound in one}))

    @cached_property
    def words(self) -> Mapping[tuple[str, ...], str]:
        """The word of a pronunciation; of those that sound alike the one listed first."""
        found: dict[tuple[str, ...], str] = {}
        for word, variants in self.pronunciations.items():
            for sounds in variants:
                found.setdefault(sounds, word)
        return found


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a text file.

    Raises:
        UserError: It is missing or no text, see `ortho_edge.data.text_files`; `what` says what it
            should be.
    """
    return read_text(path, what).splitlines()


@dataclass(frozen=True)
class LexiconTokens(Tokens):
    """Phonemes that a lexicon turns into words and back.

    Attributes:
        lexicon: Its first pronunciation of a word is the one that is trained; a recognised
            pronunciation becomes the first word that has it, or stays `HH-AY` where none has.
    """

    lexicon: Lexicon = field(compare=False, repr=False)

    def encode(self, text: str) -> list[int]:
        """Ids of the words' first pronunciations.

        Raises:
            ValueError: A word is not in the lexicon.
        """
        ids: list[int] = []
        for word in text.split():
            variants = self.lexicon.pronunciations.get(word)
            if variants is None:
                raise ValueError(f"no pronunciation of {word!r} in {text!r}")
            ids += self.spell(variants[0])
        return ids

    def spell(self, sounds: tuple[str, ...]) -> list[int]:
        """Ids of one word's phonemes.

        Raises:
            ValueError: One is not among the symbols.
        """
        symbols = (*sounds[:-1], sounds[-1] + WORD_END)
        unknown = [symbol for symbol in symbols if symbol not in self._ids]
        if unknown:
            raise ValueError(f"no symbol for phoneme {unknown[0]!r}")
        return [self._ids[symbol] for symbol in symbols]

    def decode(self, ids: Iterable[int]) -> str:
        """The words of symbol ids; blanks are left out."""
        spoken = phoneme_words(self.symbols[index] for index in ids if index)
        return " ".join(self.lexicon.words.get(sounds, "-".join(sounds)) for sounds in spoken)


def lexicon_tokens(lexicon: Lexicon) -> LexiconTokens:
    """A table of all phonemes of a lexicon, each within and at the end of words."""
    phonemes = lexicon.phonemes
    ending = (sound + WORD_END for sound in phonemes)
    return LexiconTokens((BLANK, *phonemes, *ending), lexicon)


def with_lexicon(tokens: Tokens, lexicon: Lexicon) -> LexiconTokens:
    """The symbols of a checkpoint with the words that they spell.

    Raises:
        UserError: The lexicon has a phoneme that is not among the symbols.
    """
    paired = LexiconTokens(tokens.symbols, lexicon)
    for word, variants in lexicon.pronunciations.items():
        for sounds in variants:
            try:
                paired.spell(sounds)
            except ValueError as error:
                raise UserError(
                    f"the lexicon's word {word!r} cannot be spelled: {error}"
                ) from error
    return paired
