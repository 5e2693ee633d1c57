"""Machines that run programs: an emulated Arm core here, a phone over adb, a board over ssh.

Every command is a list of arguments. Where a remote shell takes it apart again, each argument is
quoted; what files contain never becomes part of a command.
"""

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from ortho_edge.cli import UserError
from ortho_export.arm.toolchain import tool

QEMU = "qemu-aarch64"
TIMEOUT_SECONDS = 1800
"""Of one command: an emulator takes minutes for what a core does in a second."""
# Under QEMU 7.2 the core with everything computes int8 products wrongly: its matrix unit (SME).
SAFE = {"max": "max,sme=off"}


@runtime_checkable
class Machine(Protocol):
    """Where programs run."""

    @property
    def name(self) -> str:
        """For a person."""
        ...

    @property
    def emulated(self) -> bool:
        """Whether its times mean nothing."""
        ...

    def put(self, file: Path, name: str) -> str:
        """Copies a file there under a name and returns its path there."""
        ...

    def path(self, name: str) -> str:
        """Path there of a file that a command will write."""
        ...

    def get(self, name: str) -> bytes:
        """The content of a file there."""
        ...

    def run(self, command: Sequence[str]) -> str:
        """Runs a command and returns what it prints.

        Raises:
            MachineError: It cannot be started or fails.
        """
        ...


class MachineError(UserError):
    """A command failed on a machine, or there is no such machine."""


@dataclass(frozen=True, kw_only=True)
class Emulator:
    """A core that QEMU emulates on this machine.

    Attributes:
        cpu: As QEMU's `-cpu` takes it.
        folder: For files.
        options: Further ones of QEMU.
    """

    cpu: str
    folder: Path
    options: tuple[str, ...] = ()
    emulated: bool = True

    @property
    def name(self) -> str:
        """For a person."""
        return f"emulated {self.cpu}"

    def put(self, file: Path, name: str) -> str:
        """Links a file under a name: it is on this machine already."""
        link = self.folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(file.absolute())
        return str(link)

    def path(self, name: str) -> str:
        """Path of a file that a command will write."""
        return str(self.folder / name)

    def get(self, name: str) -> bytes:
        """The content of a file."""
        return (self.folder / name).read_bytes()

    def run(self, command: Sequence[str]) -> str:
        """Runs an Arm program and returns what it prints."""
        return run_here([tool(QEMU), "-cpu", self.cpu, *self.options, *command])


def emulated_cores() -> list[str]:
    """The cores that the installed QEMU knows.

    Raises:
        MissingToolError: QEMU is not installed.
    """
    # It ends with status 1 after having helped.
    told = subprocess.run(
        [tool(QEMU), "-cpu", "help"], capture_output=True, text=True, check=False
    ).stdout
    return [line.strip() for line in told.splitlines() if line.startswith(" ")]


@contextmanager
def emulator(core: str) -> Iterator[Emulator]:
    """An emulated core.

    Args:
        core: One of `emulated_cores`.

    Raises:
        UserError: There is no such core, or QEMU is not installed.
    """
    known = emulated_cores()
    if core not in known:
        raise UserError(f"{QEMU} knows no core {core!r}; known: {', '.join(known)}")
    with tempfile.TemporaryDirectory() as folder:
        yield Emulator(cpu=SAFE.get(core, core), folder=Path(folder))


def run_here(command: Sequence[str]) -> str:
    """Runs a command on this machine and returns what it prints.

    Raises:
        MachineError: It fails or takes too long; says what it said last.
    """
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            check=False, timeout=TIMEOUT_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"{Path(command[0]).name} took over {TIMEOUT_SECONDS} s") from error
    if result.returncode != 0:
        said = result.stderr.strip().splitlines() or ["nothing was said"]
        raise MachineError(
            f"{Path(command[0]).name} ended with status {result.returncode}: {said[-1]}"
        )
    return result.stdout
