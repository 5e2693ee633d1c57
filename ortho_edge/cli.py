"""What every command shares: parsing, logging and how a mistake or a full disk is reported."""

import contextlib
import dataclasses
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar

import tyro

from ortho_edge import progress
from ortho_edge.options import check_options, shortened

Arguments = TypeVar("Arguments")

USER_ERROR_STATUS = 2
INTERRUPTED_STATUS = 128 + signal.SIGINT
CLOSED_PIPE_STATUS = 128 + signal.SIGPIPE
"""As of a program that the signal ends."""
OWN_PACKAGES = ("ortho_edge", "ortho_export", "ortho_kernels")
ENDLESS = "10000"
LONGEST_LINE = 2000
"""Characters of a message; one that quotes a damaged file could have millions."""
SIDE, RULE = "\u2502", r"^ *[\u2500-\u257f-]{3}[ \u2500-\u257f-]*$"
"""What tyro draws its boxes with; without Unicode they have no sides."""
ANNOTATED = r"typing\.Annotated\[(\w+), Range\([^)]*\)\]"
"""How it names the type of a number with a range."""

logger = logging.getLogger(__name__)


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Output:
    """What every command takes besides its own options."""

    quiet: bool = False
    verbose: bool = False


_HELP = {
    "quiet": "Say results, warnings and errors alone: no progress.",
    "verbose": "Also say what libraries warn of, and where in the code an error came from.",
}


def run(main: Callable[[Arguments], None], arguments: type[Arguments], *, prog: str) -> None:
    """Parses the command line into `arguments` and calls `main` with it.

    A `UserError`, a command line that cannot be parsed, and what the system refuses (a full disk, a
    folder that is read-only) become one line on stderr and exit status 2. Whoever closes the pipe
    that standard output goes to ends the command without a word. Any other exception is a defect of
    ours and keeps its traceback. Every command has `--quiet` and `--verbose`.

    Args:
        main: The command.
        arguments: Its dataclass of arguments; the docstring is the help text.
        prog: The name shown in the help, such as `python -m ortho_edge.export`.
    """
    _escape_what_cannot_be_encoded()
    try:
        try:
            parsed, output = _parsed(arguments, prog)
            with _logging(output):
                main(parsed)
        finally:
            # A full disk or a closed pipe shows now and not when Python ends.
            if sys.stdout is not None:
                sys.stdout.flush()
    except UserError as error:
        _end(f"error: {one_line(error)}", USER_ERROR_STATUS)
    except KeyboardInterrupt:
        _end("interrupted", INTERRUPTED_STATUS)
    except OSError as error:
        if error.filename is None:
            _drop_stdout()
        if isinstance(error, BrokenPipeError) and error.filename is None:
            sys.exit(CLOSED_PIPE_STATUS)
        _end(f"error: {_said_by_the_system(error)}", USER_ERROR_STATUS)


def _end(line: str, status: int) -> None:
    with contextlib.suppress(OSError):
        print(" ".join(line.split()), file=sys.stderr)
    sys.exit(status)


def _said_by_the_system(error: OSError) -> str:
    if error.strerror is None:
        return str(error) or type(error).__name__
    names = [one for one in (error.filename, error.filename2) if one is not None]
    return ": ".join([error.strerror, *(shortened(os.fsdecode(one)) for one in names)])


def _escape_what_cannot_be_encoded() -> None:
    """Lets ASCII output, or a name that is no text, show escapes and not end the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_stdout() -> None:
    """Drops what standard output did not take; Python would complain once more when it ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


@contextlib.contextmanager
def _logging(output: Output) -> Iterator[None]:
    """Logs to standard error while a command runs: ours, and of libraries what is wrong.

    What a library warns of concerns us and not the user, who cannot change it.
    """
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    ours, others = logging.INFO, logging.ERROR
    if output.quiet:
        ours = logging.WARNING
    if output.verbose:
        ours, others = logging.DEBUG, logging.WARNING
    levels = {None: others, **dict.fromkeys(OWN_PACKAGES, ours)}
    loggers = {name: logging.getLogger(name) for name in levels}
    before = {name: one.level for name, one in loggers.items()}
    for name, one in loggers.items():
        one.setLevel(levels[name])
    logging.captureWarnings(True)
    try:
        with progress.shown(not output.quiet):
            yield
    except (UserError, OSError):
        logger.debug("the error came from here:", exc_info=True)
        raise
    finally:
        logging.captureWarnings(False)
        for name, one in loggers.items():
            one.setLevel(before[name])


def _parsed(arguments: type[Arguments], prog: str) -> tuple[Arguments, Output]:
    """The command line as `arguments`, and what every command takes.

    Raises:
        UserError: It cannot be parsed, or a number is out of its range.
    """
    both = _with_output(arguments)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            found = tyro.cli(both, prog=prog)
    except SystemExit as stop:
        if stop.code != USER_ERROR_STATUS:
            raise
    else:
        try:
            check_options(found)
        except ValueError as error:
            raise UserError(str(error)) from error
        output = Output(quiet=found.quiet, verbose=found.verbose)
        if output == Output(quiet=True, verbose=True):
            raise UserError("--quiet and --verbose do not go together")
        own = [one.name for one in dataclasses.fields(arguments)]  # pyright: ignore[reportArgumentType]
        return arguments(**{name: getattr(found, name) for name in own}), output
    raise UserError(_in_one_line(_box(both, prog), prog))


def _with_output(arguments: type) -> Any:
    """The dataclass with the options of every command added to its own."""
    added = [
        (
            one.name,
            Annotated[bool, tyro.conf.arg(help=_HELP[one.name]), tyro.conf.FlagCreatePairsOff],
            dataclasses.field(default=one.default, kw_only=True),
        )
        for one in dataclasses.fields(Output)
    ]
    return dataclasses.make_dataclass(
        arguments.__name__,
        added,
        bases=(arguments,),
        frozen=arguments.__dataclass_params__.frozen,
        namespace={"__doc__": arguments.__doc__},
    )


def _box(arguments: Any, prog: str) -> str:
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
    text = re.sub(ANNOTATED, r"\1", text)
    mistake, *others = filter(str.strip, re.split(RULE, text, flags=re.MULTILINE))
    hint = f"; see {prog} --help"
    if "Perhaps you meant" in others[0]:
        names = re.findall(r"^ {5,6}(--[a-z-]+)", others[0], flags=re.MULTILINE)
        hint = f"; did you mean {' or '.join(names)}?"
    return " ".join(mistake.split()).rstrip(".") + hint
