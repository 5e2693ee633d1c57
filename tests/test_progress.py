"""A terminal has one bar; a file has a line per stage or minute, and never a carriage return."""

import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from ortho_edge import progress
from ortho_edge.progress import Progress, in_words, say, shown, tell, track

NESTED = """
from ortho_edge.progress import *
import logging, time
logging.basicConfig(level="INFO", format="%(message)s")
with shown(True):
    for _ in track(range(3), "outer", unit="sets"):
        for _ in track(range(5), "inner", unit="clips"):
            time.sleep(0.01)
        logging.info("logged")
    say("said")
    tell("told")
"""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test moves."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_pipe_gets_a_line_for_the_outermost_work(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NESTED], cwd=repository, capture_output=True, check=True
    )
    assert done.stdout == b"told\n"
    assert b"\r" not in done.stderr
    assert b"\x1b" not in done.stderr
    *logged, outer, said = done.stderr.decode().splitlines()
    assert logged == ["logged"] * 3
    assert re.fullmatch(r"outer: 3 sets in \d+(\.\d)? s", outer)
    assert said == "said"


def test_a_terminal_gets_one_bar_and_whole_lines(repository: Path) -> None:
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    with subprocess.Popen([sys.executable, "-c", NESTED], cwd=repository, stderr=slave) as process:
        os.close(slave)
        output = b""
        while True:
            try:
                piece = os.read(master, 4096)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            output += piece
    os.close(master)
    assert process.returncode == 0
    text = output.decode()
    assert "outer: " in text
    assert "/3" in text
    assert "inner" not in text
    assert "\x1b[A" not in text, "a second bar would move the cursor up"
    assert len(re.findall(r"(?:^|[\r\n])logged\r\n", text)) == 3


def test_a_line_comes_once_a_minute(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with shown(True), Progress("training", unit="updates", total=100, done=10) as work:
        for _ in range(50):
            clock[0] += 4.0
            work.show(loss=f"{clock[0] - 1000:.0f}")
            work.advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "training: 25 of 100 updates, about 5 min left, loss 60",
        "training: 40 of 100 updates, about 4 min left, loss 120",
        "training: 55 of 100 updates, about 3 min left, loss 180",
        "training: 60 updates in 3 min, loss 200",
    ]


def test_work_inside_other_work_speaks_only_once_a_minute(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with shown(True):
        for _ in track(range(2), "outer", unit="sets"):
            for _ in track(iter("abcd"), "inner", unit="clips"):
                clock[0] += 20
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["inner: 3 clips", "inner: 2 clips", "outer: 2 sets in 3 min"]


def test_nothing_is_shown_unless_a_command_asks(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in track(range(3), "work", unit="steps"):
        say("said")
    with shown(False), Progress("work", unit="steps") as work:
        work.reach(3)
        say("said")
    assert work.done == 3
    tell("a result")
    assert capsys.readouterr() == ("a result\n", "")


def test_failed_work_is_not_said_to_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    with shown(True):
        with pytest.raises(ValueError, match="no"), Progress("work", unit="steps"):
            raise ValueError("no")
        with Progress("more", unit="steps", total=5) as more:
            more.name("a part of it")
            more.reach(9)
    assert re.fullmatch(r"more: 5 steps in 0\.\d s\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (99.4, "99 s"), (100, "2 min"), (3599, "1 h 0 min"),
     (11_100, "3 h 5 min")],
)  # fmt: skip
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
