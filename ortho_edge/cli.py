"""What every command shares: parsing, logging and how a user's mistake is reported."""

import contextlib
import io
import logging
import os
import re
import sys
from collections.abc import Callable
from typing import TypeVar

import tyro

Arguments = TypeVar("Arguments")

USER_ERROR_STATUS = 2
ENDLESS = "10000"
LONGEST_LINE = 2000
"""Characters of a message; one that quotes a damaged file could have millions."""
SIDE, RULE = "\u2502", r"^ *[\u2500-\u257f-]{3}[ \u2500-\u257f-]*$"
"""What tyro draws its boxes with; without Unicode they have no sides."""


class UserError(Exception):
    """A mistake that the user can mend; the message is one line with the value and the choices."""


def one_line(error: UserError) -> str:
    """A mistake as it is printed: in one line, without control characters, cut where it is long."""
    line = " ".join(str(error).split())
    if len(line) > LONGEST_LINE:
        line = f"{line[: LONGEST_LINE // 2]} ... {line[-LONGEST_LINE // 2 :]}"
    # What a file holds must not move the cursor.
    return "".join(repr(one)[1:-1] if _is_control(one) else one for one in line)


def _is_control(character: str) -> bool:
    return ord(character) < 32 or 127 <= ord(character) < 160 or 0xD800 <= ord(character) < 0xE000


def run(main: Callable[[Arguments], None], arguments: type[Arguments], *, prog: str) -> None:
    """Parses the command line into `arguments` and calls `main` with it.

    A `UserError`, and a command line that cannot be parsed, becomes one line on stderr and exit
    status 2; any other exception is a defect of ours and keeps its traceback.

    Args:
        main: The command.
        arguments: Its dataclass of arguments; the docstring is the help text.
        prog: The name shown in the help, such as `python -m ortho_edge.export`.
    """
    try:
        parsed = _parsed(arguments, prog)
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
        main(parsed)
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(USER_ERROR_STATUS)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _parsed(arguments: type[Arguments], prog: str) -> Arguments:
    """The command line as `arguments`.

    Raises:
        UserError: It cannot be parsed.
    """
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return tyro.cli(arguments, prog=prog)
    except SystemExit as stop:
        if stop.code != USER_ERROR_STATUS:
            raise
    raise UserError(_in_one_line(_box(arguments, prog), prog))


def _box(arguments: type[Arguments], prog: str) -> str:
    """What tyro says, without a right margin: a value that is broken in two is another value."""
    box, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = ENDLESS
    try:
        with contextlib.redirect_stderr(box), contextlib.suppress(SystemExit):
            tyro.cli(arguments, prog=prog)
    finally:
        del os.environ["COLUMNS"]
        if columns is not None:
            os.environ["COLUMNS"] = columns
    return box.getvalue()


def _in_one_line(box: str, prog: str) -> str:
    """What tyro says in a box of many lines: the mistake, and the options that come close."""
    text = "\n".join(line.strip(SIDE) for line in box.splitlines()[1:])
    mistake, *others = filter(str.strip, re.split(RULE, text, flags=re.MULTILINE))
    hint = f"; see {prog} --help"
    if "Perhaps you meant" in others[0]:
        names = re.findall(r"^ {5,6}(--[a-z-]+)", others[0], flags=re.MULTILINE)
        hint = f"; did you mean {' or '.join(names)}?"
    return " ".join(mistake.split()).rstrip(".") + hint
