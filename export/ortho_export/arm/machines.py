"""Machines that run programs, and the one that is always there: an Arm core emulated here.

Every command is a list of arguments; no shell takes it apart here.
"""

import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
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

    def run(self, command: Sequence[str], each_line: Callable[[bytes], None] | None = None) -> str:
        """Runs a command and returns what it prints.

        Args:
            command: A program and its arguments.
            each_line: Called with each line that it prints, as soon as it does.

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

    def run(self, command: Sequence[str], each_line: Callable[[bytes], None] | None = None) -> str:
        """Runs an Arm program and returns what it prints."""
        return run_here(
            [tool(QEMU), "-cpu", self.cpu, *self.options, *command], each_line=each_line
        )


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


def run_here(
    command: Sequence[str],
    *,
    stdin: Path | None = None,
    each_line: Callable[[bytes], None] | None = None,
    timeout: float = TIMEOUT_SECONDS,
) -> str:
    """Runs a command on this machine and returns what it prints.

    Raises:
        MachineError: It fails or takes too long; says what it said last.
    """
    status, said, complaint = start_here(command, stdin=stdin, each_line=each_line, timeout=timeout)
    if status != 0:
        raise MachineError(f"{Path(command[0]).name} ended with status {status}: {complaint}")
    return said.decode(errors="replace")


def start_here(
    command: Sequence[str],
    *,
    stdin: Path | None = None,
    each_line: Callable[[bytes], None] | None = None,
    timeout: float = TIMEOUT_SECONDS,
) -> tuple[int, bytes, str]:
    """Runs a command on this machine: its exit status, what it prints, its last words.

    Args:
        command: A program and its arguments.
        stdin: What it reads; nothing by default.
        each_line: Called with each line that it prints, as soon as it does.
        timeout: Seconds.

    Raises:
        MachineError: It takes too long.
    """
    late = threading.Event()
    with (
        (stdin or Path(os.devnull)).open("rb") as source,
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(command, stdin=source, stdout=subprocess.PIPE, stderr=complaints) as child,
    ):
        assert child.stdout is not None

        def stop() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(timeout, stop)
        timer.start()
        try:
            lines = []
            for line in child.stdout:
                lines.append(line)
                if each_line is not None:
                    each_line(line)
            status = child.wait()
        finally:
            timer.cancel()
            child.kill()
        complaints.seek(0)
        words = complaints.read().decode(errors="replace").strip().splitlines()
    if late.is_set():
        raise MachineError(f"{Path(command[0]).name} took over {timeout:g} s")
    return status, b"".join(lines), words[-1] if words else "nothing was said"
