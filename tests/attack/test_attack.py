"""Damaged files of every kind are refused in one line or read; and the harness sees what is not."""

import json
import os
import pickle
import subprocess
import time
from pathlib import Path
from random import Random

import pytest

from ortho_edge.cli import UserError
from tests.attack.harness import Count, Target, run_kind
from tests.attack.kinds import Kind, quick_kinds
from tests.attack.mutations import BYTES

CASES = 12


@pytest.mark.parametrize("kind", quick_kinds(), ids=lambda kind: kind.name)
def test_damaged_files_are_refused_or_read(kind: Kind, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    count = run_kind(kind, range(CASES), scratch, tmp_path / "kept")
    assert count.tried == CASES
    assert not count.findings()
    assert count.refused


def test_a_case_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    (kind,) = [one for one in quick_kinds() if one.name == "lexicon"]
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        target = Target(kind, tmp_path / name)
        made.append([target.case(number) for number in range(50)])
    assert made[0] == made[1]
    assert len(set(made[0])) > 40


def _make(folder: Path) -> None:
    (folder / "file").write_bytes(b"good")


def misbehaving(folder: Path, name: str) -> None:
    """A reader with every fault that the harness looks for, by the first byte of its file."""
    first = (folder / name).read_bytes()[:1]
    if first == b"c":
        os.abort()
    if first == b"h":
        time.sleep(60)
    if first == b"m":
        bytearray(2**29)
    if first == b"w":
        (folder.parent / "escaped").write_text("")
    if first == b"x":
        subprocess.run(["true"], check=True)
    if first == b"p":
        pickle.loads(pickle.dumps(Path()))
    if first == b"e":
        raise KeyError("age")
    if first == b"r":
        raise UserError("no such thing")


@pytest.mark.parametrize(
    ("first", "finding"),
    [
        (b"c", "crashed, SIGABRT"),
        (b"h", "failed, took too long"),
        (b"m", "failed, MemoryError"),
        (b"w", "failed, did what no reader does: open"),
        (b"x", "failed, did what no reader does: subprocess.Popen"),
        (b"p", "failed, did what no reader does: pickle.find_class"),
        (b"e", "failed, KeyError"),
    ],
)
def test_the_harness_sees_every_fault_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bytes, finding: str
) -> None:
    kind = Kind(
        name="bad",
        share=1,
        make=_make,
        damage={"file": BYTES},
        read=misbehaving,
    )
    contents = [b"good", first, b"refused", b"good", b"good"]
    monkeypatch.setattr(Target, "case", lambda _, number: ("file", contents[number]))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    count = run_kind(kind, range(5), scratch, tmp_path / "kept", seconds=2.0, more_bytes=2**28)
    assert (count.tried, count.accepted, count.refused, count.failed) == (5, 3, 1, 1), count
    (line,) = count.findings()
    assert finding in line
    assert (tmp_path / "kept" / "bad-1" / "file").read_bytes() == first
    assert "--kind 'bad' --case 1" in line


def test_the_table_adds_up() -> None:
    one = Count("one", tried=3, refused=2, accepted=1)
    other = Count("other", tried=2, refused=1, failed=1, crashed=1)
    total = Count.of_all([one, other])
    assert (total.tried, total.refused, total.accepted, total.failed) == (5, 3, 1, 1)
    assert "(1 crashed contained)" in total.row()


def test_mutations_take_whatever_a_file_holds() -> None:
    for content in (b"", b"\0", json.dumps({"a": [1, {"b": None}]}).encode()):
        for mutation in BYTES:
            for seed in range(20):
                assert isinstance(mutation(content, Random(seed)), bytes)
