"""Kills a writer before each line it runs, and says what is left; run by `test_atomic.py`.

Usage: python killed.py FOLDER {exchange,two-steps}. Prints one JSON object per line of code:
whether the writer got to its end, what stood at the final name right after the kill and after a
reader's `recover`, and what the next writer left.

A process of its own, for it forks: a kill must not be something that Python can catch.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from ortho_edge import atomic

OLD = {"a.txt": "old a", "sub/b.txt": "old b"}
NEW = {"c.txt": "new c", "sub/d.txt": "new d"}
TRACED = (atomic.__file__, shutil.__file__)


def fill(folder: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def content(folder: Path) -> dict[str, str] | None:
    """Every file of a folder by its name; None where there is no folder."""
    if not folder.is_dir():
        return None
    files = (one for one in folder.rglob("*") if one.is_file())
    return {str(one.relative_to(folder)): one.read_text() for one in files}


def write(path: Path) -> None:
    with atomic.atomic_folder(path) as folder:
        fill(folder, NEW)


def write_and_die(path: Path, lines: int) -> None:
    """Writes, and is killed before the line of that number."""
    left = lines

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in TRACED:
            return None
        if event == "line":
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        return trace

    sys.settrace(trace)
    write(path)


def outcome(path: Path, lines: int) -> dict[str, object]:
    shutil.rmtree(path.parent)
    fill(path, OLD)
    child = os.fork()
    if child == 0:
        write_and_die(path, lines)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    killed = content(path)
    atomic.recover(path)
    recovered = content(path)
    beside = sorted(one.name for one in path.parent.iterdir())
    write(path)
    return {
        "ended": os.waitstatus_to_exitcode(status) == 0,
        "killed": killed,
        "recovered": recovered,
        "beside": beside,
        "again": content(path),
    }


def main(path: Path, scheme: str) -> None:
    os.fsync = lambda descriptor: None  # a kill, unlike a power cut, loses no written data
    if scheme == "two-steps":
        atomic.exchange = lambda one, other: False
    fill(path, OLD)
    for lines in range(1000):
        found = outcome(path, lines)
        sys.stdout.write(json.dumps(found) + "\n")
        if found["ended"]:
            break


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
