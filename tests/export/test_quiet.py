"""Chatter is held back; what explains a defect is not."""

import os
import sys

import pytest

from ortho_edge.cli import UserError
from ortho_export.quiet import quiet_stderr


def chatter(then: Exception | None = None) -> None:
    os.write(2, b"native chatter\n")
    if then is not None:
        raise then


def test_chatter_is_held_back(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_stderr():
        chatter()
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"


def test_a_user_error_stays_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError), quiet_stderr():
        chatter(then=UserError("mistake"))
    assert capfd.readouterr().err == ""


def test_a_defect_shows_what_was_held_back(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), quiet_stderr():
        chatter(then=ZeroDivisionError())
    assert capfd.readouterr().err == "native chatter\n"


def test_python_and_native_code_are_both_held_back(capsys: pytest.CaptureFixture[str]) -> None:
    def speak() -> None:
        chatter()
        sys.stderr.write("from Python\n")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), quiet_stderr():
        speak()
    shown = capsys.readouterr().err
    assert "native chatter" in shown
    assert "from Python" in shown
