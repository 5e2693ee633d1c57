"""`python -m ortho_edge`: lists the commands, each with what it does.

`python -m ortho_edge train ...` is `python -m ortho_edge.train ...`.
"""

import importlib
import runpy
import sys
from dataclasses import dataclass

from ortho_edge.cli import run

COMMANDS = (
    "prepare", "synthesize", "train", "evaluate", "lm", "report", "profile", "select", "export",
    "transcribe",
)  # fmt: skip
"""In the order in which they are used."""


@dataclass(frozen=True)
class Arguments:
    """List the commands of ortho_edge."""


def main(_: Arguments) -> None:
    """Prints a line for each."""
    print("ortho_edge trains one speech supernet and exports the subnet that fits a device.\n")
    for name in COMMANDS:
        print(f"  python -m ortho_edge.{name:<12}{summary(name)}")
    print("\nEach explains itself: python -m ortho_edge.train --help")


def summary(command: str) -> str:
    """The first sentence of a command's help."""
    text = importlib.import_module(f"ortho_edge.{command}").Arguments.__doc__
    return text.partition("\n")[0].rstrip(".")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in COMMANDS:
        command = f"ortho_edge.{sys.argv.pop(1)}"
        runpy.run_module(command, run_name="__main__", alter_sys=True)
    else:
        run(main, Arguments, prog="python -m ortho_edge")
