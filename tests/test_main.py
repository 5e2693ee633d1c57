"""`python -m ortho_edge` knows every command."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ortho_edge.__main__ import COMMANDS


def started(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ortho_edge", *arguments],
        cwd=repository, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_every_command_is_listed_with_what_it_does(repository: Path) -> None:
    done = started(repository)
    assert (done.returncode, done.stderr) == (0, "")
    lines = re.findall(r"^  python -m ortho_edge\.(\w+) +(\S.{20,})$", done.stdout, re.MULTILINE)
    commands = {
        path.stem
        for path in (repository / "ortho_edge").glob("*.py")
        if re.search(
            r"^    run\(main, Arguments, prog=\"python -m ortho_edge\.",
            path.read_text(),
            re.MULTILINE,
        )
    }
    assert {name for name, _ in lines} == commands
    assert len(lines) == len(commands) == len(COMMANDS)


def test_a_command_can_be_named_as_an_argument(repository: Path) -> None:
    done = started(repository, "lm", "--order", "1", "--text", "x", "--out", "y")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --order is 1; it must be from 2 to 6\n"


@pytest.mark.parametrize("argument", ["trian", "--device", "x" * 300])
def test_an_unknown_command_is_one_line(repository: Path, argument: str) -> None:
    done = started(repository, argument)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
