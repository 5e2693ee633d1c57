"""JSON of unknown origin is one clear mistake or a value, and never another exception."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortho_edge import json_files
from ortho_edge.json_files import number, parse_json, read_json, text, whole

TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(TREES)
def test_what_json_wrote_comes_back(tree: object) -> None:
    assert parse_json(json.dumps(tree), "x") == tree
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(tree).encode(), "x") == tree


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_a_mistake_that_names_them(content: bytes) -> None:
    try:
        json.loads(content.decode("utf-8-sig"))
    except ValueError:
        with pytest.raises(ValueError, match=r"^checkpoint\.json"):
            parse_json(content, "checkpoint.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' stands there twice"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, "x: "),
        (b"\xff\xfe[]", "no UTF-8 text"),
    ],
)
def test_the_mistake_is_said(content: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(content, "x")


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "MAX_BYTES", 10)
    (tmp_path / "a.json").write_text("[1, 2, 3, 4]")
    with pytest.raises(ValueError, match=r"a\.json has 12 bytes, more than 10"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("value", [True, 1.0, "1", None, -1, 2**60, math.inf])
def test_no_whole_number(value: object) -> None:
    with pytest.raises(ValueError, match="step must be a whole number from 0"):
        whole(value, "step")


@pytest.mark.parametrize("value", [True, "1", None, math.nan, math.inf, 10**400, -0.5, 3])
def test_no_number_in_range(value: object) -> None:
    with pytest.raises(ValueError, match="share must be a finite number from 0 to 1"):
        number(value, "share", 0, 1)


@pytest.mark.parametrize("value", ["", "a\nb", "\x1b[2J", "\0", 7, "x" * 5000, "\ud800"])
def test_no_text(value: object) -> None:
    with pytest.raises(ValueError, match="name") as refused:
        text(value, "name")
    assert len(str(refused.value)) < 200
