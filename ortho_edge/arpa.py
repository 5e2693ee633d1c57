"""ARPA files, checked line by line before KenLM reads them.

KenLM trusts the counts in the head, and an infinite number in a line becomes the score of every
sentence with it. A gzipped file is told by its content, whatever its name.
"""

import gzip
import io
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ortho_edge.cli import UserError
from ortho_edge.json_files import shown

DATA, END = b"\\data\\", b"\\end\\"
GZIP_BEGINS = b"\x1f\x8b"
LONGEST_LINE = 2**16
HIGHEST_ORDER = 6
"""What KenLM is built for."""
LOWEST = -1000.0
"""Logarithms are written as -99 where there is no mass at all."""
MARKS = (b"<s>", b"</s>")
_COUNT = re.compile(rb"ngram ([1-9])=([0-9]{1,15})")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

Numbered = Iterator[tuple[int, bytes]]


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """A file, unpacked where it is gzipped.

    Raises:
        UserError: It cannot be read, or what is packed is damaged.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == GZIP_BEGINS
        if path.suffix == ".gz" and not packed:
            raise UserError(f"cannot read the language model {path}: it is not gzipped")
        with gzip.open(path) if packed else path.open("rb") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read the language model {path}: {error}") from error


def check_arpa(path: Path) -> list[str]:
    """Checks a whole ARPA file.

    Returns:
        Its words, without marks such as `<s>`.

    Raises:
        UserError: It is none; the message names the line.
    """
    with opened(path) as file:
        lines = _lines(file)
        number = 0
        try:
            counts = _counts(lines)
            words: dict[bytes, None] = {}
            for order, count in enumerate(counts, 1):
                _section(lines, order, count, len(counts), words)
            number, line = next(_filled(lines), (0, b""))
            if line != END:
                raise ValueError(f"line {number}: {shown(line)} stands where {END.decode()} should")
            for number, line in _filled(lines):
                raise ValueError(f"line {number}: {shown(line)} stands after {END.decode()}")
            if missing := [mark for mark in MARKS if mark not in words]:
                raise ValueError(f"it has no {missing[0].decode()}")
            return [
                word.decode("utf-8")
                for word in words
                if not (word.startswith(b"<") and word.endswith(b">"))
            ]
        except ValueError as error:
            raise UserError(f"cannot read the language model {path}: {error}") from error


def _lines(file: io.BufferedIOBase) -> Numbered:
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise ValueError(f"line {number} is longer than {LONGEST_LINE:,} bytes")
        if _CONTROL.search(line):
            raise ValueError(f"line {number} holds a control character: {shown(line)}")
        yield number, line.rstrip(b"\r\n")


def _filled(lines: Numbered) -> Numbered:
    return ((number, line) for number, line in lines if line.strip())


def _counts(lines: Numbered) -> list[int]:
    """N-grams of every order from 1, as the head states them."""
    number, line = next(_filled(lines), (0, b""))
    if line.strip() != DATA:
        raise ValueError(f"it begins with {shown(line)}, not {DATA.decode()}")
    counts: list[int] = []
    for number, line in lines:
        if not line.strip():
            break
        found = _COUNT.fullmatch(line.strip())
        if found is None or int(found[1]) != len(counts) + 1:
            raise ValueError(f"line {number}: {shown(line)} is not 'ngram {len(counts) + 1}=COUNT'")
        counts.append(int(found[2]))
    if not 2 <= len(counts) <= HIGHEST_ORDER:
        raise ValueError(f"its order is {len(counts)}; KenLM reads 2 to {HIGHEST_ORDER}")
    return counts


def _section(
    lines: Numbered, order: int, count: int, highest: int, words: dict[bytes, None]
) -> None:
    """Checks the n-grams of one order; those of order 1 are added to `words`."""
    number, line = next(_filled(lines), (0, b""))
    if line.strip() != b"\\%d-grams:" % order:
        raise ValueError(f"line {number}: {shown(line)} stands where \\{order}-grams: should")
    for _ in range(count):
        number, line = next(lines, (0, b""))
        try:
            probability, *gram = line.split()
            last = gram.pop() if len(gram) == order + 1 and order < highest else b"0"
            if len(gram) != order:
                raise ValueError("it has another number of words")
            _logarithm(probability, 0.0)
            _logarithm(last, -LOWEST)
        except ValueError as error:
            raise ValueError(f"line {number}: {shown(line)} is no {order}-gram: {error}") from error
        if order == 1:
            if gram[0] in words:
                raise ValueError(f"line {number}: the word {shown(gram[0])} stands there twice")
            gram[0].decode("utf-8")
            words[gram[0]] = None
        elif unknown := [word for word in gram if word not in words]:
            raise ValueError(f"line {number}: the word {shown(unknown[0])} is no 1-gram")


def _logarithm(text: bytes, most: float) -> None:
    value = float(text)
    if not LOWEST <= value <= most or not math.isfinite(value) or b"_" in text:
        raise ValueError(f"{text.decode('ascii', 'replace')} is not from {LOWEST:g} to {most:g}")
