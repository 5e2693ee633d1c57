"""What stood at a path stays until what replaces it is complete, whatever fails in between."""

import ctypes
import json
import os
import platform
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ortho_edge import atomic
from ortho_edge.atomic import atomic_folder, write_atomically
from tests import killed

REPOSITORY = Path(__file__).resolve().parent.parent

INTERRUPTIONS = (OSError, KeyboardInterrupt, SystemExit)


def contents(folder: Path) -> dict[str, str]:
    """Every file below `folder`, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def fail_at_call(
    monkeypatch: pytest.MonkeyPatch, method: str, number: int, error: type[BaseException]
) -> None:
    """Makes the `number`-th call (from 0) of `Path.<method>` raise instead."""
    original: Callable[..., object] = getattr(Path, method)
    calls = iter(range(1000))

    def wrapper(path: Path, *args: object, **kwargs: object) -> object:
        if next(calls) == number:
            raise error("injected")
        return original(path, *args, **kwargs)

    monkeypatch.setattr(Path, method, wrapper)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with old content; nothing else stands beside it."""
    path = tmp_path / "exports"
    (path / "sub").mkdir(parents=True)
    (path / "sub" / "a.txt").write_text("old a")
    (path / "b.txt").write_text("old b")
    return path


OLD = {"exports/sub/a.txt": "old a", "exports/b.txt": "old b"}


def replace_with_new(path: Path) -> None:
    with atomic_folder(path) as folder:
        (folder / "c.txt").write_text("new c")
        assert not (path / "c.txt").exists()


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    replace_with_new(tmp_path / "deep" / "er" / "exports")
    assert contents(tmp_path) == {"deep/er/exports/c.txt": "new c"}
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["exports"]


def test_a_folder_is_replaced_whole(old: Path) -> None:
    replace_with_new(old)
    assert contents(old.parent) == {"exports/c.txt": "new c"}
    assert [path.name for path in old.parent.iterdir()] == ["exports"]


def test_a_relative_path_means_where_the_block_began(
    old: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(old)
    with atomic_folder(Path("sub/../made")) as folder:
        (folder / "c.txt").write_text("new c")
        monkeypatch.chdir(elsewhere)
    assert contents(tmp_path) == {**OLD, "exports/made/c.txt": "new c"}


@pytest.mark.parametrize("error", INTERRUPTIONS)
def test_an_error_inside_the_block_keeps_the_old(old: Path, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with atomic_folder(old) as folder:
            (folder / "c.txt").write_text("half")
            raise error("injected")

    with pytest.raises(error):
        interrupted()
    assert contents(old.parent) == OLD
    assert [path.name for path in old.parent.iterdir()] == ["exports"]


@pytest.mark.parametrize("error", INTERRUPTIONS)
@pytest.mark.parametrize("step", ["mkdir", "_flush", "exchange"])
def test_an_interruption_at_any_step_keeps_the_old(
    old: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: type[BaseException]
) -> None:
    def interrupt(*args: object) -> None:
        raise error("injected")

    if step == "mkdir":
        fail_at_call(monkeypatch, "mkdir", 1, error)
    else:
        monkeypatch.setattr(atomic, step, interrupt)
    with pytest.raises(error, match="injected"):
        replace_with_new(old)
    monkeypatch.undo()
    assert contents(old.parent) == OLD
    assert [path.name for path in old.parent.iterdir()] == ["exports"]


@pytest.mark.parametrize("error", INTERRUPTIONS)
@pytest.mark.parametrize("number", [0, 1], ids=["move the old away", "move the new in"])
def test_an_interruption_of_two_steps_keeps_the_old(
    old: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[BaseException]
) -> None:
    monkeypatch.setattr(atomic, "exchange", lambda one, other: False)
    fail_at_call(monkeypatch, "rename", number, error)
    with pytest.raises(error, match="injected"):
        replace_with_new(old)
    monkeypatch.undo()
    assert contents(old.parent) == OLD
    assert [path.name for path in old.parent.iterdir()] == ["exports"]


@pytest.mark.parametrize("scheme", ["exchange", "two-steps"])
def test_a_kill_before_any_line_leaves_the_old_or_the_new(tmp_path: Path, scheme: str) -> None:
    if scheme == "exchange" and not exchanges(tmp_path):
        pytest.skip("this file system cannot exchange two folders")
    path = tmp_path / "swap" / "exports"
    roots = [str(REPOSITORY), *sys.path]
    result = subprocess.run(
        [sys.executable, "-B", killed.__file__, path, scheme],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    *kills, end = map(json.loads, result.stdout.splitlines())
    assert len(kills) > 40
    assert (end["ended"], end["killed"]) == (True, killed.NEW)
    seen = [one["killed"] for one in kills]
    # The old until the swap and the new ever after, with at most the gap of two steps between.
    firsts = [seen.index(killed.OLD), seen.index(killed.NEW)]
    gap = seen[firsts[0] : firsts[1]].count(None)
    assert seen == [killed.OLD] * (firsts[1] - gap) + [None] * gap + [killed.NEW] * (
        len(seen) - firsts[1]
    )
    assert (gap > 0) == (scheme == "two-steps")
    for one in kills:
        assert one["recovered"] == (one["killed"] or killed.OLD)
        assert one["beside"] == ["exports"], "nothing hidden is left"
        assert one["again"] == killed.NEW


def exchanges(folder: Path) -> bool:
    """Whether the kernel exchanges two folders here, asked by the number of its system call."""
    number = {"x86_64": 316, "aarch64": 276}.get(platform.machine())
    names = [folder / "a", folder / "b"]
    for name in names:
        name.mkdir()
    before = [name.stat().st_ino for name in names]
    one, other = map(os.fsencode, names)
    if number is not None:
        ctypes.CDLL(None).syscall(number, -100, one, -100, other, 2)
    after = [name.stat().st_ino for name in names]
    for name in names:
        name.rmdir()
    return before != after


def test_the_exchange_swaps_two_folders_where_the_system_can(old: Path, tmp_path: Path) -> None:
    possible = exchanges(tmp_path)
    other = old.parent / "other"
    other.mkdir()
    assert atomic.exchange(old, other) == possible
    swapped = {name.replace("exports", "other"): text for name, text in OLD.items()}
    assert contents(old.parent) == (swapped if possible else OLD)


def test_what_a_living_process_writes_is_left_alone(old: Path) -> None:
    with atomic_folder(old) as folder:
        (folder / "c.txt").write_text("new c")
        atomic.recover(old)
        replace_with_new(old)
        assert (folder / "c.txt").exists()
    assert contents(old.parent) == {"exports/c.txt": "new c"}
    assert [path.name for path in old.parent.iterdir()] == ["exports"]


def test_only_remains_of_the_same_name_are_removed(old: Path) -> None:
    for name in (".exports.notes", ".exports.2.abcdefgh.partial", ".other.abcdefgh.partial"):
        (old.parent / name / "new").mkdir(parents=True)
    (old.parent / ".exports.abcdefgh.partial").touch()
    (old.parent / ".exports.hgfedcba.partial" / "new").mkdir(parents=True)
    replace_with_new(old)
    assert sorted(path.name for path in old.parent.iterdir()) == [
        ".exports.2.abcdefgh.partial", ".exports.abcdefgh.partial", ".exports.notes",
        ".other.abcdefgh.partial", "exports",
    ]  # fmt: skip


def test_what_is_complete_is_on_the_disk_before_it_gets_its_name(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    monkeypatch.setattr(atomic, "_sync", lambda path: steps.append(path.name))
    monkeypatch.setattr(atomic, "exchange", lambda one, other: steps.append("exchange"))
    replace_with_new(old)
    assert steps == ["c.txt", "new", "exchange", old.parent.name]


@pytest.mark.parametrize("error", INTERRUPTIONS)
def test_an_interruption_where_nothing_stood_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    fail_at_call(monkeypatch, "rename", 0, error)
    with pytest.raises(error, match="injected"):
        replace_with_new(tmp_path / "exports")
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())


def test_an_interruption_after_the_last_step_keeps_the_new(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = shutil.rmtree

    def interrupted(path: Path, ignore_errors: bool) -> None:
        original(path, ignore_errors)
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace_with_new(old)
    assert contents(old.parent) == {"exports/c.txt": "new c"}


def test_a_link_stays_and_what_it_points_to_is_replaced(old: Path) -> None:
    link = old.parent / "latest"
    link.symlink_to(old)
    replace_with_new(link)
    assert contents(old.parent) == {"exports/c.txt": "new c"}
    assert link.readlink() == old
    assert contents(link) == {"c.txt": "new c"}


@pytest.mark.parametrize("content", ["neu: \u2581\u00e4\n", b"\x00\xff\r\n"])
def test_a_file_is_written_whole(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "deep" / "state.bin"
    write_atomically(path, "old")
    write_atomically(path, content)
    expected = content.encode() if isinstance(content, str) else content
    assert path.read_bytes() == expected
    assert [path.name for path in path.parent.iterdir()] == ["state.bin"]


@pytest.mark.parametrize("error", INTERRUPTIONS)
@pytest.mark.parametrize("method", ["write_bytes", "replace"])
def test_an_interrupted_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, error: type[BaseException]
) -> None:
    path = tmp_path / "state.bin"
    write_atomically(path, "old")
    fail_at_call(monkeypatch, method, 0, error)
    with pytest.raises(error, match="injected"):
        write_atomically(path, "new")
    monkeypatch.undo()
    assert contents(tmp_path) == {"state.bin": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["state.bin"]


def test_what_appears_has_the_permissions_of_any_other_file(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "file").touch()
    replace_with_new(tmp_path / "atomic")
    write_atomically(tmp_path / "file", "new")

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(tmp_path / "atomic") == mode(tmp_path / "plain")
    assert mode(tmp_path / "file") == mode(tmp_path / "plain" / "file")
