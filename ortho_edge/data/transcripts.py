"""Transcripts as models spell them: the one normaliser of prepare, train, evaluate and lm.

Unicode is composed (NFC), quotes and dashes of all kinds become plain ones, figures become English
words, punctuation that no symbol spells goes, and the case is that of the symbols. What symbols
cannot spell even then stays in the text, so that it can be counted and named.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol, runtime_checkable

from ortho_edge.tokens import WORD_START, Tokens

Case = Literal["upper", "lower", "kept"]

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_LONGEST_NUMBER = 12
"""Digits; longer figures are names of things and are read digit by digit."""
_APOSTROPHES = re.compile("[\u2018\u2019\u02bc\u02b9\u2032\uff07\u00b4`]")
_QUOTED = re.compile(
    "\u2018([^\u2018\u2019]*)\u2019(?!\\w)"
    # A straight one opens no quotation before a word that begins with an apostrophe.
    r"|(?<!\w)'(?!(?:tis|twas|twere|twill|em|til|cause|bout|round|gainst|n)\b)([^']*)'(?!\w)",
    re.IGNORECASE,
)
_LONE = re.compile(r"(?<![^\W\d_])'(?![^\W\d_])")
_FIGURES = re.compile(
    r"(?P<ordinal>\b[0-9]{1,12}(?=(?:st|nd|rd|th)\b)(?:st|nd|rd|th))"
    r"|(?P<grouped>(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,]))"
    r"|(?P<whole>[0-9]+)(?:\.(?P<part>[0-9]+)(?![0-9.]))?",
    re.IGNORECASE,
)
_SPOKEN = {"&": " and ", "%": " percent ", WORD_START: " "}


@runtime_checkable
class Symbols(Protocol):
    """What is needed of a symbol table, see `ortho_edge.tokens.Tokens`."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """Blank first."""
        ...

    def encode(self, text: str) -> list[int]:
        """Returns ids; raises ValueError where a character has none."""
        ...


@dataclass(frozen=True, kw_only=True)
class Normalizer:
    """How transcripts become words.

    Attributes:
        case: Of the result.
        kept: Punctuation that stays, such as the apostrophe.
        figures: Whether figures become words.
        digit_by_digit: Whether figures are read as single digits, `42` as `FOUR TWO`.
    """

    case: Case = "upper"
    kept: frozenset[str] = frozenset("'")
    figures: bool = True
    digit_by_digit: bool = False

    def __call__(self, text: str) -> str:
        """The words of a text, one space between them."""
        text = unicodedata.normalize("NFC", text)
        text = _QUOTED.sub(lambda found: found[1] or found[2] or "", text)
        text = _LONE.sub(" ", _APOSTROPHES.sub("'", text))
        if self.figures:
            text = _FIGURES.sub(self._spoken, text)
        for written, spoken in _SPOKEN.items():
            if written not in self.kept:
                text = text.replace(written, spoken)
        if self.case != "kept":
            text = unicodedata.normalize(
                "NFC", text.upper() if self.case == "upper" else text.lower()
            )
        return " ".join("".join(map(self._symbol, text)).split())

    def _symbol(self, symbol: str) -> str:
        """What stands for a character."""
        if symbol in self.kept:
            return symbol
        kind = unicodedata.category(symbol)
        # Marks such as the soft hyphen part no words, and neither does an apostrophe.
        if symbol == "'" or kind == "Cf":
            return ""
        return " " if kind[0] in "PZC" else symbol

    def _spoken(self, found: re.Match[str]) -> str:
        return f" {self._figure(found)} "

    def _figure(self, found: re.Match[str]) -> str:
        whole, part = found["whole"] or "", found["part"]
        if self.digit_by_digit and whole and part is None:
            return _digits(whole)
        if found["ordinal"]:
            return _number(found["ordinal"][:-2], ordinal=True)
        if found["grouped"]:
            return _number(found["grouped"].replace(",", ""))
        alone = len(whole) > _LONGEST_NUMBER or (len(whole) > 1 and whole[0] == "0")
        spoken = _digits(whole) if alone or self.digit_by_digit else _number(whole)
        return spoken if part is None else f"{spoken} point {_digits(part)}"


def normalizer(tokens: Symbols) -> Normalizer:
    """The normaliser for what symbols spell: their case, their punctuation, their digits."""
    return _normalizer(tokens.symbols)


@lru_cache(maxsize=8)
def _phonemic(symbols: tuple[str, ...]) -> bool:
    return Tokens(symbols).phonemic


@lru_cache(maxsize=8)
def _normalizer(symbols: tuple[str, ...]) -> Normalizer:
    if _phonemic(symbols):
        # Lexicons are in upper case and have words like O'CLOCK.
        return Normalizer()
    spelled = "".join(symbols[1:])
    upper, lower = (any(map(test, spelled)) for test in (str.isupper, str.islower))
    kept = {one for one in spelled if unicodedata.category(one)[0] in "PS"} - {WORD_START}
    digits = {WORD_START + word.upper() for word in DIGIT_WORDS}
    return Normalizer(
        case="kept" if upper == lower else "upper" if upper else "lower",
        kept=frozenset(kept),
        figures=not any(map(str.isdecimal, spelled)),
        digit_by_digit=digits <= {one.upper() for one in symbols},
    )


def unspelled(text: str, tokens: Symbols) -> list[str]:
    """What of a normalised text the symbols cannot spell: words of a lexicon, else characters."""
    found: list[str] = []
    known = set("".join(tokens.symbols[1:]))
    for word in text.split():
        if not _spells(word, tokens):
            wrong = [] if _phonemic(tokens.symbols) else [one for one in word if one not in known]
            # Characters that symbols have within a word need not be one at its beginning.
            found += wrong or [word]
    return found


def _spells(text: str, tokens: Symbols) -> bool:
    try:
        tokens.encode(text)
    except ValueError:
        return False
    return True


def _digits(figures: str) -> str:
    return " ".join(DIGIT_WORDS[int(one)] for one in figures)


def _number(figures: str, *, ordinal: bool = False) -> str:
    """A whole number in words, as Americans read it: without `and`."""
    if len(figures) > _LONGEST_NUMBER:
        return _digits(figures)
    if len(figures) == 1 and not ordinal:
        return _digits(figures)
    from num2words import num2words

    spoken = num2words(int(figures), lang="en", to="ordinal" if ordinal else "cardinal")
    return " ".join(spoken.replace(" and ", " ").replace("-", " ").replace(",", " ").split())
