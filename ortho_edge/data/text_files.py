"""Text files of others: UTF-8 with or without a byte order mark, or UTF-16 with one.

Anything else is one line that names the file, the line in it and what to do.
"""

import codecs
from pathlib import Path

from ortho_edge.cli import UserError

MOST_BYTES = 2**30
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    # Before UTF-16, whose mark begins alike.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_PACKED = ((b"\x1f\x8b", "gzip"), (b"PK\x03\x04", "zip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"))


def read_text(path: Path, what: str = "text") -> str:
    """The text of a file, without its byte order mark; line ends stay as they are.

    Args:
        path: The file.
        what: What it should be, for messages.

    Raises:
        UserError: It is missing, packed, too large or in another encoding.
    """
    content = _content(path, what)
    for magic, kind in _PACKED:
        if content.startswith(magic):
            raise UserError(f"the {what} {path} is packed by {kind}: unpack it first")
    encoding = "utf-8"
    for mark, name in _MARKS:
        if content.startswith(mark):
            content, encoding = content[len(mark) :], name
            break
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(encoding, errors="replace")
        hint = f": convert it with iconv -f LATIN1 -t UTF-8 {path}" * (encoding == "utf-8")
        raise UserError(
            f"{path}, line {before.count(chr(10)) + 1}: byte 0x{content[error.start]:02x} "
            f"is no {encoding.upper()}{hint}"
        ) from error
    if "\0" in text:
        number = text[: text.index("\0")].count("\n") + 1
        raise UserError(
            f"{path}, line {number} holds a NUL: the {what} must be UTF-8, or UTF-16 with a byte "
            "order mark"
        )
    return text


def _content(path: Path, what: str) -> bytes:
    if not path.exists():
        raise UserError(f"no {what} at {path}")
    if not path.is_file():
        raise UserError(f"cannot read the {what} {path}: it is no file")
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UserError(f"the {what} {path} has {size} bytes; at most {MOST_BYTES} are read")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the {what} {path}: {error.strerror}") from error
