"""Flatbuffers in which every part that repeats is written once.

`flatc` writes the shape of a tensor as often as there are tensors of that shape, though the format
lets all of them point to one.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import flatbuffers
from flatbuffers import number_types

NUMBERS = {
    "byte": number_types.Int8Flags,
    "ubyte": number_types.Uint8Flags,
    "bool": number_types.BoolFlags,
    "short": number_types.Int16Flags,
    "ushort": number_types.Uint16Flags,
    "int": number_types.Int32Flags,
    "uint": number_types.Uint32Flags,
    "int64": number_types.Int64Flags,
    "uint64": number_types.Uint64Flags,
    "float": number_types.Float32Flags,
    "double": number_types.Float64Flags,
}
"""What the language of schemas calls numbers."""
OFFSET = number_types.UOffsetTFlags
"""What points to a string, list or table."""
Number = Any
"""One of these; the library has no common type for them."""


class Schema:
    """What a schema file says, without structs and without defaults other than zero.

    Attributes:
        root: The table that a whole buffer is.
        identifier: The four letters in front of it.
    """

    def __init__(self, text: str) -> None:
        """Reads the text of a `.fbs` file."""
        text = re.sub(r"//[^\n]*", "", text)
        self._fields = {
            name: re.findall(r"(\w+)\s*:\s*(\[?\w+\]?)", re.sub(r"\(.*?\)", "", body))
            for name, body in re.findall(r"table\s+(\w+)\s*\{(.*?)\}", text, re.DOTALL)
        }
        self._unions = {
            name: [
                (one, table or one) for one, table in re.findall(r"(\w+)(?:\s*:\s*(\w+))?", body)
            ]
            for name, body in re.findall(r"union\s+(\w+)\s*\{(.*?)\}", text, re.DOTALL)
        }
        self._enums = dict(re.findall(r"enum\s+(\w+)\s*:\s*(\w+)\s*\{", text))
        (self.root,) = re.findall(r"root_type\s+(\w+)", text)
        (self.identifier,) = re.findall(r'file_identifier\s+"(.{4})"', text)

    def fields(self, table: str) -> Iterator[tuple[int, str, str]]:
        """Slot, name and type of every field of a table; a union takes two and has the second."""
        slot = 0
        for name, kind in self._fields[table]:
            slot += kind in self._unions
            yield slot, name, kind
            slot += 1

    def num_slots(self, table: str) -> int:
        """How many slots a table has."""
        return 1 + max((slot for slot, _, _ in self.fields(table)), default=-1)

    def number(self, kind: str) -> Number | None:
        """A number's type as the library has it; None where the type is none of numbers."""
        return NUMBERS.get(self._enums.get(kind, kind))

    def member(self, union: str, name: str) -> tuple[int, str] | None:
        """The number and the table of a union's member; None where the type is no union."""
        members = self._unions.get(union)
        if members is None:
            return None
        place = [one for one, _ in members].index(name)
        return place + 1, members[place][1]


def flatbuffer(schema: Schema, tree: Mapping[str, Any]) -> bytes:
    """The flatbuffer of a tree of tables.

    Args:
        schema: Of the tree.
        tree: The root table as `flatc` takes it: numbers (an infinite one may be a string, for JSON
            has none), strings, lists and tables by the names of their fields. Beside a union, the
            field with `_type` behind its name says which member it is.
    """
    writing = _Writing(schema)
    root = writing.table(schema.root, tree)
    writing.builder.Finish(root, schema.identifier.encode("ascii"))
    return bytes(writing.builder.Output())


class _Writing:
    """A buffer under construction, and where its parts are."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.builder = flatbuffers.Builder()
        self.places: dict[Any, int] = {}

    def table(self, name: str, tree: Mapping[str, Any]) -> int:
        """Where a table is, written if it is new."""
        slots = []
        for slot, field, kind in self.schema.fields(name):
            value = tree.get(field)
            if value is None:
                continue
            number = self.schema.number(kind)
            if number is not None:
                slots.append((slot, number, number.py_type(value)))
                continue
            member = self.schema.member(kind, tree.get(f"{field}_type", ""))
            if member is not None:
                slots.append((slot - 1, number_types.Uint8Flags, member[0]))
                kind = member[1]
            slots.append((slot, OFFSET, self.part(kind, value)))
        key = tuple(slots)
        if key not in self.places:
            self.builder.StartObject(self.schema.num_slots(name))
            # The widest last, which is in front: nothing is filled up between them.
            for slot, kind, value in sorted(slots, key=lambda one: one[1].bytewidth):
                self._put(kind, value, slot)
            self.places[key] = self.builder.EndObject()
        return self.places[key]

    def _put(self, kind: Number, value: Any, slot: int) -> None:
        """Adds a field to the table that is being written; what is zero is left out."""
        if kind is OFFSET:
            self.builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        else:
            self.builder.PrependSlot(kind, slot, value, 0)

    def part(self, kind: str, value: Any) -> int:
        """Where a string, list or table is, written if it is new."""
        if kind == "string":
            return self.builder.CreateSharedString(value)
        if not kind.startswith("["):
            return self.table(kind, value)
        element = kind[1:-1]
        number = self.schema.number(element)
        if number is None:
            values = tuple(self.part(element, one) for one in value)
        else:
            values = tuple(number.py_type(one) for one in value)
        if (kind, values) not in self.places:
            width = (number or OFFSET).bytewidth
            self.builder.StartVector(width, len(values), width)
            for one in reversed(values):
                if number is None:
                    self.builder.PrependUOffsetTRelative(one)
                else:
                    self.builder.Prepend(number, one)
            self.places[kind, values] = self.builder.EndVector()
        return self.places[kind, values]
