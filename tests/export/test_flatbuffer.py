"""Flatbuffers hold what those of `flatc` do, with every part that repeats once."""

import json
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ortho_export.flatbuffer import Schema, flatbuffer

pytestmark = pytest.mark.export

TEXT = """
// A table in a comment: table Wrong { number: int; }
file_identifier "TEST";
enum Kind : short { none = 0, some = 1 }
union Shape { Round, Square: Edges }
table Round { radius: float; }
table Edges {
  lengths: [uint]; // not: this
  gone: [ubyte] (deprecated, force_align: 16);
  many: uint64;
}
table Root {
  byte: ubyte; kind: Kind; shape: Shape;
  all: [Edges];
  name: string; flag: bool; small: byte; exact: double; same: Edges;
}
root_type Root;
"""
SCHEMA = Schema(TEXT)

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
unsigned = st.integers(0, 2**32 - 1)
edges = st.fixed_dictionaries(
    {}, optional={"lengths": st.lists(unsigned, max_size=3), "many": st.integers(0, 2**64 - 1)}
)
fields = {
    "byte": st.integers(0, 255),
    "kind": st.integers(0, 1),
    "all": st.lists(edges, max_size=4),
    "name": st.text("abc", max_size=5),
    "flag": st.booleans(),
    "small": st.integers(-128, 127),
    "exact": st.floats(allow_nan=False, allow_infinity=False),
    "same": edges,
}
shapes = st.one_of(
    st.just({}),
    st.builds(lambda one: {"shape_type": "Round", "shape": {"radius": one}}, finite),
    st.builds(lambda one: {"shape_type": "Square", "shape": one}, edges),
)
trees = st.builds(
    lambda one, shape: one | shape, st.fixed_dictionaries({}, optional=fields), shapes
)


def run_flatc(*arguments: str | Path) -> None:
    """The `flatc` that ExecuTorch brings."""
    from executorch.exir._serialize._flatbuffer import _get_flatc_path

    subprocess.run([_get_flatc_path(), *arguments], check=True, capture_output=True)


def by_flatc(tree: dict[str, Any], folder: Path) -> bytes:
    (folder / "schema.fbs").write_text(TEXT, "ascii")
    (folder / "tree.json").write_text(json.dumps(tree), "ascii")
    run_flatc("--binary", "-o", folder, folder / "schema.fbs", folder / "tree.json")
    return (folder / "tree.bin").read_bytes()


def read(content: bytes, folder: Path) -> str:
    """What `flatc` finds in a buffer."""
    (folder / "found.bin").write_bytes(content)
    options = ("--json", "--defaults-json", "--strict-json")
    run_flatc(*options, "-o", folder, folder / "schema.fbs", "--", folder / "found.bin")
    return (folder / "found.json").read_text("utf-8")


@settings(deadline=None, max_examples=60)
@given(tree=trees)
def test_any_tree(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tree")
    theirs, ours = by_flatc(tree, folder), flatbuffer(SCHEMA, tree)
    assert ours[4:8] == b"TEST"
    assert read(ours, folder) == read(theirs, folder)


def test_what_repeats_is_written_once(tmp_path: Path) -> None:
    edge = {"lengths": [3, 4, 5], "many": 7}
    tree = {"all": 50 * [edge], "same": edge, "shape_type": "Square", "shape": edge}
    theirs, ours = by_flatc(tree, tmp_path), flatbuffer(SCHEMA, tree)
    assert read(ours, tmp_path) == read(theirs, tmp_path)
    # Of 52 tables with 16 bytes of lengths each, one is left.
    assert len(ours) < len(theirs) - 51 * 28


def test_numbers_keep_their_digits_and_infinities_are_words() -> None:
    tree = {"shape_type": "Round", "shape": {"radius": "-inf"}, "exact": 1.2e-7 + 1e-20}
    content = flatbuffer(SCHEMA, tree)
    assert struct.pack("<f", float("-inf")) in content
    assert struct.pack("<d", 1.2e-7 + 1e-20) in content
