"""Tables of utterances: the one reader of every command.

Tab-separated, or separated by commas, semicolons or bars with the quotes of spreadsheets. Columns
go by their usual names in any case and order, others are ignored. Whatever is wrong is one line
that names the file, the line in it and what was found.
"""

import csv
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ortho_edge.cli import UserError
from ortho_edge.data.text_files import read_text
from ortho_edge.options import shortened

NAMES: Mapping[str, tuple[str, ...]] = {
    "utterance": ("utterance", "utterance_id", "utt", "utt_id", "id", "uttid"),
    "path": ("path", "file", "audio", "filename", "file_name", "audio_path", "audio_file",
             "audio_filepath", "wav"),
    "text": ("text", "transcript", "sentence", "transcription", "transcripts", "words"),
    "speaker": ("speaker", "speaker_id", "spk", "spk_id", "client_id"),
    "age": ("age",),
    "gender": ("gender", "sex"),
    "seconds": ("seconds", "duration"),
}  # fmt: skip
"""What columns mean, by the names that they are known by, the first of which is ours."""

LONGEST_FIELD = 100_000
_SEPARATORS = "\t,;|"
_SHOWN_COLUMNS = 12


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table.

    Attributes:
        path: The table.
        line: Number of its first line in the file, from 1.
        fields: By the names of `NAMES`, or by a column's own where it is none of these.
    """

    path: Path
    line: int
    fields: Mapping[str, str]

    def error(self, what: str) -> UserError:
        """An error that names file and line."""
        return UserError(f"{self.path}, line {self.line}: {what}")

    def whole_number(self, column: str) -> int | None:
        """A field as a whole number; None where it is empty or the column is absent.

        Raises:
            UserError: It is none.
        """
        value = self.fields.get(column, "").strip()
        if not value:
            return None
        # Python would take digits of other scripts, underscores, and thousands of digits.
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", value):
            raise self.error(f"{column} is {shortened(value)!r}, no whole number")
        return int(value)


def read_table(
    path: Path, required: Collection[str | tuple[str, ...]], what: str = "table"
) -> list[Row]:
    """Reads a table with a line of column names.

    Args:
        path: The file: UTF-8 or, with a byte order mark, UTF-16.
        required: Columns that must be there, as in `NAMES`; of a tuple one is enough.
        what: What the table is, for messages.

    Returns:
        At least one row, without those that are blank.

    Raises:
        UserError: The file cannot be read, is no table, lacks a column or has no row.
    """
    text = read_text(path, what)
    if not text.strip():
        raise UserError(f"the {what} {path} is empty")
    separator = _separator(path, text)
    records = _records(path, text, separator)
    line, header = next(records, (1, []))
    columns = _columns(path, line, header)
    _check_columns(path, header, columns, required)
    rows = [
        Row(path=path, line=line, fields=_fields(path, line, record, columns, required))
        for line, record in records
    ]
    if not rows:
        raise UserError(f"the {what} {path} has column names but no rows")
    return rows


def check_unique(rows: Sequence[Row], names: Sequence[str]) -> None:
    """Checks that no two rows have one name.

    Raises:
        UserError: Two have; names both lines.
    """
    first: dict[str, int] = {}
    for row, name in zip(rows, names, strict=True):
        if name in first:
            raise row.error(f"utterance {shortened(name)!r} stands in line {first[name]} already")
        first[name] = row.line


def _separator(path: Path, text: str) -> str:
    """What most parts the first line that is not blank; the extension's own where none does."""
    start = text.lstrip("\r\n")
    header = re.split(r"[\r\n]", start, maxsplit=1)[0]
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    if usual in header:
        return usual
    best = max(_SEPARATORS, key=header.count)
    return best if best in header else usual


def _records(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Line and fields of every record that is not blank."""
    # Spreadsheets quote where they must; tab-separated corpora hold quotes as they were typed.
    quoting = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, quoting=quoting, strict=True
    )
    line = 1
    while True:
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"{path}, line {line}: {error}") from error
        if any(map(str.strip, record)):
            longest = max(map(len, record))
            if longest > LONGEST_FIELD:
                raise UserError(
                    f"{path}, line {line} has a field of {longest} characters; at most "
                    f"{LONGEST_FIELD} are read"
                )
            yield line, record
        line = reader.line_num + 1


def _columns(path: Path, line: int, header: Sequence[str]) -> list[str]:
    """What each column is called here; empty for one without a name."""
    meanings = {name: meaning for meaning, names in NAMES.items() for name in names}
    plain = [re.sub(r"[\s-]+", "_", name.strip().strip('"').lower()) for name in header]
    columns = []
    for name in plain:
        meaning = meanings.get(name, name)
        # Beside a column of the very name its synonyms are further columns like any other.
        columns.append(name if meaning != name and meaning in plain else meaning)
    for meaning in columns:
        if meaning in NAMES and columns.count(meaning) > 1:
            alike = [name for name, one in zip(header, columns, strict=True) if one == meaning]
            raise UserError(
                f"{path}, line {line}: columns {' and '.join(map(repr, alike))} both mean {meaning}"
            )
    return columns


def _check_columns(
    path: Path,
    header: Sequence[str],
    columns: Sequence[str],
    required: Collection[str | tuple[str, ...]],
) -> None:
    for wanted in required:
        choices = (wanted,) if isinstance(wanted, str) else wanted
        if not any(one in columns for one in choices):
            known = [name for one in choices for name in NAMES.get(one, (one,))]
            found = [shortened(name.strip()) for name in header[:_SHOWN_COLUMNS]]
            more = ", ..." if len(header) > _SHOWN_COLUMNS else ""
            raise UserError(
                f"{path} has no column {' or '.join(choices)}: it has {', '.join(found)}{more}; "
                f"wanted is one of {', '.join(known)}"
            )


def _fields(
    path: Path,
    line: int,
    record: Sequence[str],
    columns: Sequence[str],
    required: Collection[str | tuple[str, ...]],
) -> dict[str, str]:
    if any(map(str.strip, record[len(columns) :])):
        raise UserError(
            f"{path}, line {line} has {len(record)} fields where there are {len(columns)} columns"
        )
    fields = {name: value.strip() for name, value in zip(columns, record, strict=False) if name}
    for wanted in required:
        choices = (wanted,) if isinstance(wanted, str) else wanted
        if not any(one in fields for one in choices):
            raise UserError(
                f"{path}, line {line} has {len(record)} of {len(columns)} fields: "
                f"no {' or '.join(choices)}"
            )
    return fields
