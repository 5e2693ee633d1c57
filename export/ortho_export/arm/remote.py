"""A phone over adb, or a Linux board over ssh.

Here, every command is a list of arguments. There, both adb and ssh hand one line to a shell: it
holds constants of this module and arguments that are quoted one by one, and files have names that
we make up. What files contain, and what the device says about itself, never becomes part of a line.
"""

import logging
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from ortho_edge.cli import UserError
from ortho_export.arm.machines import TIMEOUT_SECONDS, MachineError, run_here, start_here
from ortho_export.arm.toolchain import tool

logger = logging.getLogger(__name__)

ADB, SSH = "adb", "ssh"
ADB_APT, SSH_APT = "sudo apt-get install adb", "sudo apt-get install openssh-client"
# A password would be asked for at every command; a connection that is silent for 45 s is dead.
SSH_OPTIONS = (
    "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15",
    "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3",
)  # fmt: skip
QUICK_SECONDS = 60.0
COPY_SECONDS = 600.0
END = "ortho-edge-status"
"""Begins the line that ends each answer: where it is missing, the connection was lost."""
TELL_STATUS = f'printf "\\n{END} %s\\n" $?'
FOLDER = re.compile(r"/[\w./-]*/ortho-edge\.\w{8}", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
TARGET = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9_:][A-Za-z0-9_.:%-]*")
SERIAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
"""Of a device on USB, on the network or emulated."""
ARCHITECTURES = ("aarch64", "arm64")


@runtime_checkable
class Transport(Protocol):
    """How a device is reached."""

    @property
    def name(self) -> str:
        """For a person."""
        ...

    @property
    def temporary(self) -> str:
        """Where the device keeps temporary files that may be executed, if it says nothing else."""
        ...

    def shell(self, line: str) -> list[str]:
        """The command that has a shell there read a line."""
        ...

    def put(self, file: Path, there: str) -> None:
        """Copies a file.

        Raises:
            MachineError: It cannot be copied.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Adb:
    """An Android device."""

    serial: str
    temporary: str = "/data/local/tmp"

    @property
    def name(self) -> str:
        """For a person."""
        return f"{self.serial} over adb"

    def shell(self, line: str) -> list[str]:
        """The command that has a shell there read a line."""
        return [tool(ADB, ADB_APT), "-s", self.serial, "shell", line]

    def put(self, file: Path, there: str) -> None:
        """Copies a file; no shell sees its name."""
        command = [tool(ADB, ADB_APT), "-s", self.serial, "push", str(file.absolute()), there]
        run_here(command, timeout=COPY_SECONDS)


@dataclass(frozen=True, kw_only=True)
class Ssh:
    """A Linux board; port, key and the like come from the user's ssh configuration."""

    target: str
    temporary: str = "/tmp"

    @property
    def name(self) -> str:
        """For a person."""
        return f"{self.target} over ssh"

    def shell(self, line: str) -> list[str]:
        """The command that has a shell there read a line."""
        return [tool(SSH, SSH_APT), *SSH_OPTIONS, "--", self.target, line]

    def put(self, file: Path, there: str) -> None:
        """Copies a file over the same connection, for small boards have no server for scp."""
        ask(self, f"cat >{shlex.quote(there)}", stdin=file, timeout=COPY_SECONDS)


def ask(
    transport: Transport,
    script: str,
    *,
    stdin: Path | None = None,
    each_line: Callable[[bytes], None] | None = None,
    timeout: float = QUICK_SECONDS,
) -> bytes:
    """Has a shell there run a script and returns what it prints.

    Args:
        transport: How the device is reached.
        script: A constant, or arguments that are quoted.
        stdin: What the script reads; nothing by default.
        each_line: Called with each line that it prints, as soon as it does.
        timeout: Seconds.

    Raises:
        MachineError: It fails there, or the connection does.
    """
    script_and_status = f"{script}\n{TELL_STATUS}"
    # The login shell may be any; what it must understand is three words.
    line = f"sh -c {shlex.quote(script_and_status)}"
    status, said, complaint = start_here(
        transport.shell(line), stdin=stdin, each_line=each_line, timeout=timeout
    )
    answer, found, end = said.rpartition(f"\n{END} ".encode())
    if not found or re.fullmatch(rb"\d+\r?\n", end) is None:
        raise MachineError(f"the connection to {transport.name} failed: {complaint}")
    if status != 0 or int(end) != 0:
        program = shlex.split(script)[0].rpartition("/")[2]
        raise MachineError(
            f"{program} ended with status {int(end) or status} on {transport.name}: {complaint}"
        )
    return answer


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A folder on a device, and the programs in it."""

    transport: Transport
    folder: str
    emulated: bool = False

    @property
    def name(self) -> str:
        """For a person."""
        return self.transport.name

    def put(self, file: Path, name: str) -> str:
        """Copies a file there under a name and returns its path there."""
        there = self.path(name)
        self.transport.put(file, there)
        if os.access(file, os.X_OK):
            self.run(["chmod", "700", there])
        return there

    def path(self, name: str) -> str:
        """Path there of a file.

        Raises:
            ValueError: The name is none that we make up.
        """
        if NAME.fullmatch(name) is None:
            raise ValueError(f"a file on a device is not called {name!r}")
        return f"{self.folder}/{name}"

    def get(self, name: str) -> bytes:
        """The content of a file there."""
        script = shlex.join(["cat", self.path(name)])
        return ask(self.transport, script, timeout=COPY_SECONDS)

    def run(self, command: Sequence[str], each_line: Callable[[bytes], None] | None = None) -> str:
        """Runs a command there and returns what it prints."""
        script = shlex.join(command)
        said = ask(self.transport, script, each_line=each_line, timeout=TIMEOUT_SECONDS)
        return said.decode(errors="replace")


def is_remote(on: str) -> bool:
    """Whether a machine is named by how it is reached, not by an emulated core."""
    return on.partition(":")[0] in (ADB, SSH)


@contextmanager
def connected(on: str) -> Iterator[Remote]:
    """A fresh folder on a device, which is removed in the end.

    Args:
        on: `adb`, `adb:SERIAL` or `ssh:HOST`.

    Raises:
        UserError: There is no such device, it cannot be reached, or is no 64-bit Arm one.
    """
    transport = _transport(on)
    architecture = ask(transport, "uname -m").decode(errors="replace").strip()
    if architecture not in ARCHITECTURES:
        raise UserError(
            f"{transport.name} is no 64-bit Arm device; it calls itself {architecture[:40]!r}"
        )
    template = f"${{TMPDIR:-{transport.temporary}}}/ortho-edge.XXXXXXXX"
    folder = ask(transport, f'mktemp -d "{template}"').decode(errors="replace").strip()
    if FOLDER.fullmatch(folder) is None or ".." in folder:
        raise MachineError(f"{transport.name} made no folder but says {folder[:80]!r}")
    try:
        yield Remote(transport=transport, folder=folder)
    finally:
        try:
            ask(transport, shlex.join(["rm", "-rf", folder]))
        except MachineError as error:
            logger.warning("%s is left on %s: %s", folder, transport.name, error)


def _transport(on: str) -> Transport:
    way, named, which = on.partition(":")
    if way == ADB:
        return Adb(serial=_serial(which, named=bool(named)))
    if TARGET.fullmatch(which) is None:
        raise UserError(
            f"--on ssh:HOST or ssh:USER@HOST, not {on!r}; port, key and others belong into "
            "~/.ssh/config"
        )
    return Ssh(target=which)


def _serial(wanted: str, *, named: bool) -> str:
    """The serial number of the only device, or the one that is wanted.

    Raises:
        UserError: It is not there or not ready; says what to do.
    """
    if named and wanted and SERIAL.fullmatch(wanted) is None:
        raise UserError(
            f"--on adb:SERIAL takes letters, digits and '.', ':', '-', '_', not {wanted[:80]!r}"
        )
    listed = run_here([tool(ADB, ADB_APT), "devices"], timeout=QUICK_SECONDS)
    states = dict(line.split("\t", 1) for line in listed.splitlines() if "\t" in line)
    known = ", ".join(sorted(states)) or "none"
    if named and wanted not in states:
        raise UserError(f"no device {wanted!r} is connected over adb; connected: {known}")
    if not states:
        raise UserError("no device is connected over adb; connect it and allow USB debugging on it")
    if not named and len(states) > 1:
        raise UserError(f"several devices are connected: {known}; choose by --on adb:SERIAL")
    serial = wanted if named else next(iter(states))
    if SERIAL.fullmatch(serial) is None:
        raise UserError(f"adb lists {serial[:80]!r}, which is no serial number")
    state = states[serial].strip()
    if state == "unauthorized":
        raise UserError(f"{serial} does not trust this machine; allow USB debugging on its screen")
    if state != "device":
        raise UserError(f"{serial} is not ready, adb says {state[:40]!r}; connect it again")
    return serial
