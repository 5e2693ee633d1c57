"""What every command shares: parsing, logging and how a user's mistake is reported."""

import logging
import sys
from collections.abc import Callable
from typing import TypeVar

import tyro

Arguments = TypeVar("Arguments")

USER_ERROR_STATUS = 2


class UserError(Exception):
    """A mistake that the user can mend; the message is one line with the value and the choices."""


def run(main: Callable[[Arguments], None], arguments: type[Arguments], *, prog: str) -> None:
    """Parses the command line into `arguments` and calls `main` with it.

    A `UserError` becomes one line on stderr and exit status 2; any other exception is a defect of
    ours and keeps its traceback.

    Args:
        main: The command.
        arguments: Its dataclass of arguments; the docstring is the help text.
        prog: The name shown in the help, such as `python -m ortho_edge.export`.
    """
    try:
        parsed = tyro.cli(arguments, prog=prog)
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
        main(parsed)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(USER_ERROR_STATUS)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
