"""How a command reports a user's mistake, and a defect of ours."""

import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from ortho_edge.cli import UserError, run


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Arguments of a command.

    Attributes:
        device: Which device.
        number: How many.
        colour: Which colour.
    """

    device: str = "host"
    number: int = 1
    colour: Literal["red", "blue"] = "red"

    def __post_init__(self) -> None:
        if self.device == "forbidden":
            raise UserError("device 'forbidden' is not allowed; known: host")


@pytest.fixture(autouse=True)
def keep_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)


def start(monkeypatch: pytest.MonkeyPatch, main, *argv: str) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *argv])
    run(main, Arguments, prog="python -m ortho_edge.command")


def test_passes_the_parsed_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[Arguments] = []
    start(monkeypatch, received.append, "--device", "pixel8")
    assert received == [Arguments(device="pixel8")]


@pytest.mark.parametrize(
    "message", ["unknown device 'pixel99'; known: host", "two\n  lines\tof\r\n message"]
)
def test_a_users_mistake_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], message: str
) -> None:
    def main(_: Arguments) -> None:
        raise UserError(message)

    with pytest.raises(SystemExit) as stop:
        start(monkeypatch, main)
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", f"error: {' '.join(message.split())}\n")


def test_a_mistake_found_while_parsing_is_reported_alike(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        start(monkeypatch, pytest.fail, "--device", "forbidden")
    assert stop.value.code == 2
    assert "device 'forbidden' is not allowed; known: host" in capsys.readouterr().err


LONG = "/a/folder/whose/path/is/longer/than/any/terminal/is/wide" + 8 * "/and-goes-on"


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--devise", "host"], "Unrecognized options: --devise, host; did you mean --device?"),
        (["--device"], "Missing value for argument '--device'. Expected 1 values; see "),
        (["--number", LONG], f"invalid literal for int() with base 10: {LONG!r}; see "),
        (["host", "more"], "Unrecognized options: host, more; see "),
        (["--colour", "grey"], "invalid choice 'grey' for argument '--colour'. Expected one of ("),
    ],
)
def test_a_command_line_that_cannot_be_parsed_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    line: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    with pytest.raises(SystemExit) as stop:
        start(monkeypatch, pytest.fail, *argv)
    said = capsys.readouterr()
    assert stop.value.code == 2
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert line in said.err
    assert said.err.isascii()
    assert said.err.count("\n") == 1
    assert os.environ["COLUMNS"] == "40"


def test_help_is_no_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        start(monkeypatch, pytest.fail, "--help")
    assert stop.value.code == 0
    assert "Which device." in capsys.readouterr().out


@pytest.mark.parametrize("defect", [ValueError, KeyError, RuntimeError, OSError, AssertionError])
def test_a_defect_of_ours_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, defect: type[Exception]
) -> None:
    def main(_: Arguments) -> None:
        raise defect("ours")

    with pytest.raises(defect, match="ours"):
        start(monkeypatch, main)


def test_an_interrupt_is_status_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(_: Arguments) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        start(monkeypatch, main)
    assert stop.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("error", "status", "last_lines"),
    [("UserError('no')", 2, ["error: no"]), ("ValueError('no')", 1, ["ValueError: no"])],
)
def test_a_process_ends_as_its_command_did(
    repository: Path, error: str, status: int, last_lines: list[str]
) -> None:
    program = f"""
import dataclasses
from ortho_edge.cli import UserError, run

@dataclasses.dataclass
class Arguments:
    '''Nothing.'''

def main(arguments):
    raise {error}

run(main, Arguments, prog="command")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, check=False
    )
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout, lines[-1:]) == (status, "", last_lines)
    assert (len(lines) == 1) == (status == 2)
