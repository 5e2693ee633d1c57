"""Damage to files that hold trees: JSON, lines of JSON, TOML, the headers of safetensors."""

import gzip
import json
import struct
from random import Random
from typing import Any

from tests.attack.mutations import BYTES, TEXT, Mutation, recoded

NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 2**31, 2**63, 2**70, -(2**70), 1e308, -1e308, 1e-320, 0.5, float("nan"),
    float("inf"), float("-inf"), 10**400,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    *NUMBERS, None, True, False, "", "0", "nan", "../../escaped", "/etc/passwd", "\0", "a\nb",
    "\ud7ff\U0001f600", "<script>alert(1)</script>", "x" * 70_000, [], {}, [[]], [None], {"a": 1},
    [0] * 5000,
)  # fmt: skip
DEPTH = 50_000
"""Deeper than any parser goes."""


def _places(tree: Any, path: tuple = ()) -> list[tuple]:
    """Paths of everything in a tree of JSON but long arrays' insides."""
    found = [path] if path else []
    if isinstance(tree, dict):
        for key, value in tree.items():
            found += _places(value, (*path, key))
    elif isinstance(tree, list):
        for index in (*range(min(3, len(tree))), *range(max(3, len(tree) - 1), len(tree))):
            found += _places(tree[index], (*path, index))
    return found


def damaged_tree(tree: Any, random: Random) -> Any:
    """A tree of JSON with one value replaced, dropped, added, repeated or made of another type."""
    tree = json.loads(json.dumps(tree))
    places = _places(tree)
    if not places or random.random() < 0.02:
        return random.choice(VALUES)
    for _ in range(random.choice((1, 1, 1, 2))):
        *way, last = random.choice(places)
        holder = tree
        try:
            for step in way:
                holder = holder[step]
            old = holder[last]
            holder[last] = old
        except (KeyError, IndexError, TypeError):
            continue
        action = random.random()
        if action < 0.15:
            del holder[last]
        elif action < 0.25 and isinstance(holder, dict):
            holder[random.choice((f"{last}_", "unknown", ""))] = old
        elif action < 0.35 and isinstance(holder, list):
            holder.append(old)
        elif action < 0.6 and isinstance(old, int | float) and not isinstance(old, bool):
            holder[last] = random.choice((*NUMBERS, old + 1, -old, old * 1000, str(old), [old]))
        else:
            holder[last] = random.choice(VALUES)
    return tree


def _json_text(tree: Any, random: Random) -> bytes:
    text = json.dumps(tree)
    way = random.random()
    if way < 0.04:
        return text.encode().replace(b":", b":" + b"[" * DEPTH, 1)
    if way < 0.08 and text.startswith("{") and len(text) > 2:
        # The same key twice: which of the two counts?
        first = text[1 : text.index(":")]
        return f"{text[:-1]}, {first}: 7}}".encode()
    return text.encode("utf-8", "surrogatepass")


def _tree(content: bytes, random: Random) -> bytes:
    return _json_text(damaged_tree(json.loads(content), random), random)


JSON: tuple[Mutation, ...] = (_tree,) * 15 + (recoded, *BYTES)


def _command(line: bytes) -> bytes:
    """A cut whose audio is what a shell command prints."""
    cut = json.loads(line)
    cut["recording"]["sources"][0] |= {"type": "command", "source": "touch executed; cat"}
    return json.dumps(cut).encode()


def _jsonl_gz(content: bytes, random: Random) -> bytes:
    """One line of a gzipped file of JSON lines, or its lines."""
    lines = gzip.decompress(content).splitlines()
    at = random.randrange(len(lines))
    if b'"sources"' in lines[at] and random.random() < 0.03:
        lines[at] = _command(lines[at])
        changed = b"\n".join(lines)
    elif random.random() < 0.85:
        lines[at] = _tree(lines[at], random)
        changed = b"\n".join(lines)
    else:
        changed = random.choice(TEXT)(b"\n".join(lines), random)
    return gzip.compress(changed, 1, mtime=0)


JSONL_GZ: tuple[Mutation, ...] = (_jsonl_gz,) * 30 + (recoded, *BYTES)
JSONL: tuple[Mutation, ...] = (
    lambda content, random: gzip.decompress(_jsonl_gz(gzip.compress(content, 1), random)),
) * 8 + TEXT


TOML_VALUES = (
    "0", "-1", "1e308", "nan", "inf", "-inf", "99999999999999999999999", "true", '""', '"x"',
    '"../../escaped"', '"\\u0000"', "[]", "[[]]", "{}", "[1, 2]", "1979-05-27", "0.0", "1e-320",
    '"<script>"', "'''\n'''", f'"{"x" * 70_000}"', "[" * DEPTH,
)  # fmt: skip


def _toml_value(content: bytes, random: Random) -> bytes:
    lines = content.decode().split("\n")
    with_value = [index for index, line in enumerate(lines) if " = " in line]
    at = random.choice(with_value)
    key, _, _ = lines[at].partition(" = ")
    way = random.random()
    if way < 0.1:
        del lines[at]
    elif way < 0.2:
        lines.insert(at, lines[at])
    elif way < 0.3:
        lines[at] = lines[at].replace(key, random.choice(("unknown", f"{key}x", '""')), 1)
    else:
        lines[at] = f"{key} = {random.choice(TOML_VALUES)}"
    return "\n".join(lines).encode()


TOML: tuple[Mutation, ...] = (_toml_value,) * 15 + TEXT


def _split(content: bytes) -> tuple[Any, bytes]:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _joined(header: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def _header(content: bytes, random: Random) -> bytes:
    header, data = _split(content)
    return _joined(_json_text(damaged_tree(header, random), random), data)


def _header_length(content: bytes, random: Random) -> bytes:
    length = random.choice(
        (0, 1, 7, 2**31, 2**40, 2**63, 2**64 - 1, len(content), len(content) - 8)
    )
    return struct.pack("<Q", length) + content[8:]


def _data(content: bytes, random: Random) -> bytes:
    """Numbers among the tensors become infinite, not a number or random."""
    header, data = _split(content)
    at = 4 * random.randrange(max(1, len(data) // 4))
    patch = random.choice(
        (struct.pack("<f", float("nan")), struct.pack("<f", float("inf")), random.randbytes(4),
         struct.pack("<f", -1.0), struct.pack("<f", 1e38))
    )  # fmt: skip
    return _joined(json.dumps(header).encode(), data[:at] + patch + data[at + 4 :])


SAFETENSORS: tuple[Mutation, ...] = (_header,) * 8 + (_header_length, _data, _data, *BYTES)


def _metadata(content: bytes, random: Random) -> bytes:
    """Damages the JSON inside the header's texts."""
    header, data = _split(content)
    metadata = header["__metadata__"]
    inner = [name for name, text in metadata.items() if text.startswith("{")]
    name = random.choice(inner)
    if random.random() < 0.7:
        # A digest would refuse all of it: what is checked besides?
        metadata.pop("sha256", None)
    metadata[name] = _json_text(damaged_tree(json.loads(metadata[name]), random), random).decode(
        "utf-8", "replace"
    )
    return _joined(json.dumps(header).encode(), data)


def _undigested_data(content: bytes, random: Random) -> bytes:
    header, data = _split(content)
    header["__metadata__"].pop("sha256", None)
    return _data(_joined(json.dumps(header).encode(), data), random)


def _undigested_header(content: bytes, random: Random) -> bytes:
    header, data = _split(content)
    header["__metadata__"].pop("sha256", None)
    return _header(_joined(json.dumps(header).encode(), data), random)


STATE: tuple[Mutation, ...] = (
    *(_metadata,) * 12, *(_undigested_data,) * 3, *(_undigested_header,) * 4, *SAFETENSORS,
)  # fmt: skip
