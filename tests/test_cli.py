"""How a command reports a user's mistake, and a defect of ours."""

import errno
import logging
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from ortho_edge.cli import UserError, run
from ortho_edge.options import Limit, Range, Seed
from ortho_edge.progress import Progress


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


@pytest.mark.parametrize("defect", [ValueError, KeyError, RuntimeError, AssertionError])
def test_a_defect_of_ours_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, defect: type[Exception]
) -> None:
    def main(_: Arguments) -> None:
        raise defect("ours")

    with pytest.raises(defect, match="ours"):
        start(monkeypatch, main)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left", "/x/lm"), "No space left: /x/lm"),
        (OSError(errno.EROFS, "Read-only", b"/x\xff"), "Read-only: /x\\udcff"),
        (OSError(errno.EXDEV, "No", "/x", None, "/y"), "No: /x: /y"),
        (OSError("not a gzipped file"), "not a gzipped file"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe", "/x/pipe"), "Broken pipe: /x/pipe"),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "n" * 5000),
            f"File name too long: {'n' * 60}... (5000 characters)",
        ),
    ],
)  # fmt: skip
def test_what_the_system_refuses_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: OSError,
    line: str,
) -> None:
    def main(_: Arguments) -> None:
        raise error

    with pytest.raises(SystemExit) as stop:
        start(monkeypatch, main)
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", f"error: {line}\n")


@dataclass(frozen=True)
class Numbers:
    """Numbers with and without a range.

    Attributes:
        file: A path.
        share: Of something.
        limit: Of a budget.
        counts: Of things.
        seed: Of chance.
    """

    file: Path = Path("x")
    share: float = 0.5
    limit: Limit | None = None
    counts: tuple[Annotated[int, Range(1, 9)], ...] = ()
    seed: Seed = 0


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--share", "nan"], "--share is nan; it must be from -1e+12 to 1e+12"),
        (["--share", "-inf"], "--share is -inf; it must be from -1e+12 to 1e+12"),
        (["--share", "1e308"], "--share is 1e+308; it must be from -1e+12 to 1e+12"),
        (["--limit", "0"], "--limit is 0.0; it must be above 0; inf lifts the limit"),
        (["--limit", "nan"], "--limit is nan; it must be above 0"),
        (["--counts", "3", "10"], "--counts is 10; it must be from 1 to 9"),
        (["--seed", "-1"], "--seed is -1; it must be from 0 to 4294967295"),
        (["--seed", "9" * 90], f"--seed is {'9' * 60}... (90 characters); it must be"),
        (["--seed", "1e3"], "invalid literal for int() with base 10: '1e3'"),
        (["--file", "x" * 5000], f"and 255 in each name, not {'x' * 60}... (5000 characters)"),
        (["--file", "x/" * 2100], "--file must have at most 4095 bytes"),
        (["--quiet", "--verbose"], "--quiet and --verbose do not go together"),
    ],
)  # fmt: skip
def test_a_value_out_of_its_range_is_named_with_the_range(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str], line: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *argv])
    with pytest.raises(SystemExit) as stop:
        run(lambda _: pytest.fail("ran"), Numbers, prog="command")
    said = capsys.readouterr()
    assert (stop.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert line in said.err


def test_values_at_the_ends_of_their_ranges_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["--limit", "inf", "--counts", "1", "9", "--seed", "4294967295", "--share", "-1e12"]
    monkeypatch.setattr(sys, "argv", ["command", *argv])
    received: list[Numbers] = []
    run(received.append, Numbers, prog="command")
    assert received == [Numbers(limit=math.inf, counts=(1, 9), seed=2**32 - 1, share=-1e12)]


def speak(_: Arguments) -> None:
    """What a command and the libraries under it have to say."""
    logging.getLogger("ortho_edge.part").info("ours")
    logging.getLogger("ortho_export.part").warning("our warning")
    logging.getLogger("library").warning("its warning")
    logging.getLogger("library").error("its error")
    with Progress("work", unit="steps"):
        pass
    raise UserError("mistake")


@pytest.mark.parametrize(
    ("argv", "present", "absent"),
    [
        ([], {"ours", "our warning", "its error", "work: 0 steps in"}, {"its warning", "speak"}),
        (["--quiet"], {"our warning", "its error"}, {"ours\n", "its warning", "work:"}),
        (["--verbose"], {"ours", "its warning", "its error", "in speak", "work:"}, set()),
    ],
)
def test_how_much_is_said_is_up_to_quiet_and_verbose(
    repository: Path, argv: list[str], present: set[str], absent: set[str]
) -> None:
    program = "from tests.test_cli import *; run(speak, Arguments, prog='command')"
    done = subprocess.run(
        [sys.executable, "-c", program, *argv],
        cwd=repository, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("error: mistake\n")
    assert all(one in done.stderr for one in present), done.stderr
    assert not any(one in done.stderr for one in absent), done.stderr


def test_logging_is_as_it_was_after_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    names = (None, "ortho_edge", "ortho_export", "ortho_kernels")
    before = [logging.getLogger(name).level for name in names]
    start(monkeypatch, lambda _: None, "--verbose")
    assert [logging.getLogger(name).level for name in names] == before


@pytest.mark.parametrize(
    "main", ["print('x' * 100_000)", "print('x')", "sys.argv.append('--help')"]
)
def test_who_closes_the_pipe_ends_the_command_without_a_word(repository: Path, main: str) -> None:
    # Closed before anything is written, so that chance decides nothing.
    program = f"import sys; from tests.test_cli import *\ndef main(_): {main}\n"
    if "argv" in main:
        program += "main(0)\n"
    program += "run(main, Arguments, prog='command')"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=repository, stdout=writing, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_standard_output_that_is_full_is_one_line(repository: Path) -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("this system has no /dev/full")
    program = "from tests.test_cli import *; run(print, Arguments, prog='command')"
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=repository, stdout=full, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
    line = b"error: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, line)


def test_what_standard_output_cannot_encode_is_escaped(repository: Path) -> None:
    program = (
        "from tests.test_cli import *\n"
        "run(lambda _: print('b\\u00e4r \\udcff'), Arguments, prog='command')"
    )
    for encoding, shown in (("ascii", b"b\\xe4r \\udcff\n"), ("utf-8", b"b\xc3\xa4r \\udcff\n")):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=repository, env={**os.environ, "PYTHONIOENCODING": encoding},
            capture_output=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, shown, b"")


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
