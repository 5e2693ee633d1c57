"""Damage to real files: the same bytes for the same name of a case, on every machine."""

import gzip
from collections.abc import Callable, Sequence
from random import Random

Mutation = Callable[[bytes, Random], bytes]

WORDS = (
    "", "0", "-1", "1", "1e308", "-1e308", "nan", "inf", "-inf", "99999999999999999999", "0x10",
    "../../escaped", "/dev/zero", "\0", "\ufeff", "\u2028", "\u0660", "=", "\t", "\\", '"', "[",
    "{", "<s>", "<unk>", "true", "x" * 70_000, "\u00e9" * 40,
)  # fmt: skip
BOMB = b"cposix\nsystem\n(S'touch executed'\ntR."
"""A pickle that makes a file where it is loaded."""


def _span(content: bytes, random: Random, most: int = 64) -> tuple[int, int]:
    start = random.randrange(len(content) + 1)
    return start, min(len(content), start + random.randint(1, most))


def _flip(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 8, 64)) if changed else 0):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _flip_early(content: bytes, random: Random) -> bytes:
    """Where headers are."""
    head = random.choice((64, 512, 4096))
    return _flip(content[:head], random) + content[head:]


def _truncate(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def _delete(content: bytes, random: Random) -> bytes:
    start, stop = _span(content, random, 4096)
    return content[:start] + content[stop:]


def _repeat(content: bytes, random: Random) -> bytes:
    start, stop = _span(content, random, 4096)
    return content[:stop] + content[start:stop] * random.choice((1, 2, 100)) + content[stop:]


def _splice(content: bytes, random: Random) -> bytes:
    (start, stop), (other, end) = _span(content, random, 512), _span(content, random, 512)
    return content[:start] + content[other:end] + content[stop:]


def _overwrite(content: bytes, random: Random) -> bytes:
    patch = random.choice(
        (b"\0" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff" * 8, b"\0" * 64)
    )
    start = random.randrange(max(1, len(content) - len(patch)))
    start -= start % random.choice((1, 4))
    return content[:start] + patch + content[start + len(patch) :]


def _append(content: bytes, random: Random) -> bytes:
    return content + random.choice((b"\0", b"\n", random.randbytes(100), content))


def _another_file(content: bytes, random: Random) -> bytes:
    return random.choice(
        (b"", b"\0" * 1000, BOMB, random.randbytes(300), b"\x7fELF" + content, b"PK\3\4" + content)
    )


def recoded(content: bytes, random: Random) -> bytes:
    text = content.decode("utf-8", "replace")
    way = random.choice(("utf-16", "utf-8-sig", "utf-32", "gzip", "latin-1", "crlf"))
    if way == "gzip":
        return gzip.compress(content, 1, mtime=0)
    if way == "latin-1":
        return text.replace("E", "\u00c9").replace("o", "\u00f6").encode("latin-1", "replace")
    if way == "crlf":
        return text.replace("\n", "\r\n").encode()
    return text.encode(way, "replace")


BYTES: tuple[Mutation, ...] = (
    _flip, _flip, _flip_early, _flip_early, _truncate, _delete, _repeat, _splice, _overwrite,
    _overwrite, _append, _another_file,
)  # fmt: skip


def _lines(content: bytes, random: Random) -> bytes:
    lines = content.split(b"\n")
    at, other = random.randrange(len(lines)), random.randrange(len(lines))
    way = random.randrange(5)
    if way == 0:
        del lines[at]
    elif way == 1:
        lines.insert(other, lines[at])
    elif way == 2:
        lines[at], lines[other] = lines[other], lines[at]
    elif way == 3:
        lines[at] = b""
    else:
        lines[at] = lines[at] * random.choice((2, 3, 5000 // (1 + len(lines[at])) + 1))
    return b"\n".join(lines)


def _word(content: bytes, random: Random) -> bytes:
    """One word of a line becomes another, or goes."""
    lines = content.split(b"\n")
    at = random.randrange(len(lines))
    separator = random.choice(
        [one for one in (b"\t", b" ", b"=", b",") if one in lines[at]] or [b" "]
    )
    words = lines[at].split(separator)
    place = random.randrange(len(words))
    if random.random() < 0.2:
        del words[place]
    else:
        words[place] = random.choice(WORDS).encode()
    lines[at] = separator.join(words)
    return b"\n".join(lines)


TEXT: tuple[Mutation, ...] = (_lines, _lines, _word, _word, _word, _word, recoded, *BYTES)


def _gzipped_text(content: bytes, random: Random) -> bytes:
    return gzip.compress(random.choice(TEXT)(gzip.decompress(content), random), 1, mtime=0)


TEXT_GZ: tuple[Mutation, ...] = (_gzipped_text,) * 12 + BYTES


def damaged(content: bytes, mutations: Sequence[Mutation], random: Random) -> bytes:
    """A file's content after one or two mutations."""
    changed = random.choice(mutations)(content, random)
    if random.random() < 0.1:
        changed = random.choice(BYTES)(changed, random)
    return changed
