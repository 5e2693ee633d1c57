"""ARPA files are read as KenLM reads them, and what is wrong is named by its line."""

import gzip
from collections.abc import Callable
from pathlib import Path

import kenlm
import pytest

from ortho_edge.arpa import check_arpa
from ortho_edge.cli import UserError
from ortho_edge.ngrams import estimate

TEXT = "".join(estimate(["A AB C", "C A", "SEE A AB", "A C BB", "BB BB A", "C C A"], 3).arpa())


def test_the_words_stand_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text(TEXT)
    words = check_arpa(path)
    listed = TEXT.partition("\\1-grams:\n")[2].partition("\n\n")[0].splitlines()
    assert words == [line.split("\t")[1] for line in listed if "<" not in line]
    assert all(word in kenlm.Model(str(path)) for word in words)


def test_windows_lines_and_gzip_under_any_name_are_read(tmp_path: Path) -> None:
    (tmp_path / "crlf.arpa").write_bytes(TEXT.replace("\n", "\r\n").encode())
    (tmp_path / "packed").write_bytes(gzip.compress(TEXT.encode()))
    assert check_arpa(tmp_path / "crlf.arpa") == check_arpa(tmp_path / "packed")


def line(start: str) -> int:
    """Number of the first line that begins so."""
    return 1 + [one.startswith(start) for one in TEXT.splitlines()].index(True)


FIRST = line("\\1-grams:") + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("ngram 1=", "ngram 1=9"), "is no 1-gram"),
        (lambda t: t.replace("ngram 1=8", "ngram 1=7"), r"stands where \\2-grams: should"),
        (lambda t: t.replace("ngram 2=", "ngram 3="), r"line 3: .* is not 'ngram 2=COUNT'"),
        (lambda t: t.replace("\\data\\", "\\date\\"), "it begins with"),
        (lambda t: t.replace("\n\\end\\", ""), r"stands where \\end\\ should"),
        (lambda t: t + "0.1\tA\n", r"stands after \\end\\"),
        (lambda t: t.replace("<s>", "<x>"), "it has no <s>"),
        (lambda t: t.replace("\tAB\t", "\tA\t", 1), "the word b'A' stands there twice"),
        (lambda t: t.replace("A AB\t", "A AX\t", 1), "the word b'AX' is no 1-gram"),
        (lambda t: t.replace("\tSEE\t", "\tS\0EE\t"), "holds a control character"),
        (lambda t: t.replace("\tSEE\t", f"\t{'S' * 70_000}\t"), "is longer than 65,536 bytes"),
    ],
)
def test_what_is_wrong_is_named(change: Callable[[str], str], message: str, tmp_path: Path) -> None:
    changed = change(TEXT)
    assert changed != TEXT
    path = tmp_path / "lm.arpa"
    path.write_text(changed)
    with pytest.raises(UserError, match=message) as refused:
        check_arpa(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("number", ["nan", "-inf", "0.5", "-1e308", "1_0", "x", "0x1p3"])
def test_a_logarithm_is_a_finite_number_of_at_most_0(number: str, tmp_path: Path) -> None:
    lines = TEXT.splitlines(keepends=True)
    lines[FIRST - 1] = f"{number}\t{lines[FIRST - 1].partition(chr(9))[2]}"
    (tmp_path / "lm.arpa").write_text("".join(lines))
    with pytest.raises(UserError, match=f"line {FIRST}: .* is no 1-gram"):
        check_arpa(tmp_path / "lm.arpa")


@pytest.mark.parametrize("left", [0.1, 0.5, 0.95])
def test_a_truncated_archive_is_named(left: float, tmp_path: Path) -> None:
    content = gzip.compress(TEXT.encode())
    path = tmp_path / "lm.arpa.gz"
    path.write_bytes(content[: int(left * len(content))])
    with pytest.raises(UserError, match="cannot read the language model"):
        check_arpa(path)
