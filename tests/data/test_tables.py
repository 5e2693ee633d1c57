"""Tables in every form that spreadsheets and corpora write; anything else is one line."""

import codecs
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ortho_edge.cli import UserError
from ortho_edge.data.tables import LONGEST_FIELD, check_unique, read_table

REQUIRED = (("utterance", "path"), "text")


def table(folder: Path, content: str | bytes, name: str = "table.tsv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


PLAIN = "utterance\tspeaker\ttext\nu1\ta\tIT WAS, TOO\nu2\tb\tCAF\u00c9 \u2019S\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.tsv", PLAIN.encode()),
        ("mark.tsv", codecs.BOM_UTF8 + PLAIN.encode()),
        ("crlf.tsv", PLAIN.replace("\n", "\r\n").encode()),
        ("old-mac.tsv", PLAIN.replace("\n", "\r").encode()),
        ("utf16.tsv", codecs.BOM_UTF16_LE + PLAIN.encode("utf-16-le")),
        ("utf16be.tsv", codecs.BOM_UTF16_BE + PLAIN.encode("utf-16-be")),
        ("utf32.tsv", codecs.BOM_UTF32_LE + PLAIN.encode("utf-32-le")),
        ("blank-lines.tsv", ("\n" + PLAIN.replace("\n", "\n\n")).encode()),
        ("no-end.tsv", PLAIN.rstrip().encode()),
        ("trailing.tsv", PLAIN.replace("\n", "\t\n").encode()),
        ("named.tsv", PLAIN.replace("utterance", "UTT ID").replace("text", "Sentence").encode()),
        ("tabs-in.csv", PLAIN.encode()),
        (
            "commas.csv",
            'text,utterance,spk\r\n"IT WAS, TOO",u1,a\r\nCAF\u00c9 \u2019S,u2,b\r\n'.encode(),
        ),
        (
            "semicolons.csv",
            codecs.BOM_UTF8
            + "Speaker;Transcript;ID;note\na;IT WAS, TOO;u1;\nb;CAF\u00c9 \u2019S;u2;x\n".encode(),
        ),
    ],
)
def test_every_form_of_a_table_reads_alike(tmp_path: Path, name: str, content: bytes) -> None:
    rows = read_table(table(tmp_path, content, name), REQUIRED)
    found = [tuple(row.fields[key] for key in ("utterance", "speaker", "text")) for row in rows]
    assert found == [("u1", "a", "IT WAS, TOO"), ("u2", "b", "CAF\u00c9 \u2019S")]


def test_quotes_in_a_tab_separated_text_are_text(tmp_path: Path) -> None:
    path = table(tmp_path, 'utterance\ttext\nu1\t"HE SAID\nu2\tNO" HE SAID\n')
    assert [row.fields["text"] for row in read_table(path, REQUIRED)] == ['"HE SAID', 'NO" HE SAID']


def test_lines_are_counted_through_quoted_line_ends(tmp_path: Path) -> None:
    path = table(tmp_path, 'id,text,age\nu1,"A\nB",7\n\nu2,C,x\n', "a.csv")
    rows = read_table(path, REQUIRED)
    assert [row.line for row in rows] == [2, 5]
    assert rows[0].whole_number("age") == 7
    assert rows[0].whole_number("take") is None
    with pytest.raises(UserError, match=r"a\.csv, line 5: age is 'x', no whole number"):
        rows[1].whole_number("age")


def test_a_column_of_the_name_itself_goes_before_its_synonyms(tmp_path: Path) -> None:
    path = table(tmp_path, "utterance\tid\ttext\tsentence\nu1\t7\tA\tB\n")
    (row,) = read_table(path, REQUIRED)
    assert (row.fields["utterance"], row.fields["text"]) == ("u1", "A")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ("table.tsv", "empty")),
        (b"\xef\xbb\xbf \n", ("table.tsv", "empty")),
        (b"utterance\ttext\n", ("table.tsv", "no rows")),
        (b"utterance\tspeaker\nu1\ta\n", ("no column text", "has utterance, speaker", "sentence")),
        (b"text\tspeaker\nA\ta\n", ("no column utterance or path", "has text, speaker")),
        (b"utterance\ttext\nu1\tA\nu2\n", ("line 3", "1 of 2 fields", "no text")),
        (b"utterance\ttext\nu1\tA\tB\n", ("line 2", "3 fields", "2 columns")),
        (b"utterance\ttext\nu1\tCAF\xc9\n", ("line 2", "0xc9", "UTF-8", "iconv -f LATIN1")),
        (b"utterance\ttext\nu1\tA\0B\n", ("line 2", "NUL")),
        ("utterance\ttext\nu1\tA\n".encode("utf-16-le"), ("line 1", "NUL", "byte order mark")),
        (codecs.BOM_UTF16_LE + b"a\0\n\0\0\xd8\n\0", ("line 2", "UTF-16")),
        (b"\x1f\x8b\x08\0\0\0", ("table.tsv", "gzip", "unpack")),
        (b"utterance\ttext\nu1\t" + b"A" * (LONGEST_FIELD + 1), ("line 2", "100001 characters")),
        (b"utterance\ttext\nu1\t" + b"A" * 200_000, ("line 2", "field")),
        (b"utterance\ttext\ttext\nu1\tA\tB\n", ("line 1", "'text' and 'text'", "both mean text")),
        (b"id\tutt\ttext\nu1\tu1\tA\n", ("line 1", "'id' and 'utt'", "both mean utterance")),
        (b'utterance,text\nu1,"A\nu2,B\n', ("line 2", "unexpected end of data")),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line_with_its_place(
    tmp_path: Path, content: bytes, parts: tuple[str, ...]
) -> None:
    with pytest.raises(UserError) as caught:
        read_table(table(tmp_path, content), REQUIRED)
    message = str(caught.value)
    assert "table.tsv" in message
    assert "\n" not in message
    assert len(message) < 1000
    for part in parts:
        assert part in message


def test_a_name_that_comes_twice_is_named_with_both_lines(tmp_path: Path) -> None:
    rows = read_table(table(tmp_path, "id\ttext\nu1\tA\nu2\tB\nu1\tC\n"), REQUIRED)
    with pytest.raises(UserError, match="line 4: utterance 'u1' stands in line 2 already"):
        check_unique(rows, [row.fields["utterance"] for row in rows])


@pytest.mark.parametrize("name", ["table.tsv", "table.csv"])
@settings(deadline=None)  # a busy machine is not a failure
@given(data=st.data())
def test_a_mutated_table_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    content = bytearray(PLAIN.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        stop = at + data.draw(st.sampled_from([0, 0, 1, 8]))
        content[at:stop] = data.draw(
            st.sampled_from([b"", b"\t", b"\n", b"\r", b'"', b",", b"\0", b"\xff\xfe", b"\xe9"])
            | st.binary(max_size=8)
        )
    path = table(tmp_path_factory.getbasetemp(), bytes(content), name)
    refusal, rows = "", []
    try:
        rows = read_table(path, REQUIRED)
    except UserError as error:
        refusal = str(error)
    assert all("text" in row.fields for row in rows)
    assert bool(rows) != (name in refusal)
    assert "\n" not in refusal
