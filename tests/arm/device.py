"""A device that is a folder, reached through stand-ins of adb and ssh; and a bench to run there."""

import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ortho_export.arm.toolchain import BENCH, LOADER, ONNXRUNTIME_LIBRARY, RUNNER, Bundle

CPUINFO = """\
processor\t: 0
BogoMIPS\t: 38.40
Features\t: fp asimd evtstrm aes crc32
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd03
CPU revision\t: 4

processor\t: 1
BogoMIPS\t: 38.40
Features\t: fp asimd evtstrm aes crc32 asimddp i8mm
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd4e
CPU revision\t: 0
"""
PROPERTIES = """\
[ro.build.version.release]: [14]
[ro.product.manufacturer]: [Example]
[ro.product.model]: [Phone 7 $(touch pwned)]
[ro.soc.manufacturer]: [Maker]
[ro.soc.model]: [Chip "9"; rm -rf /]
"""
CLOCKS = {
    0: {"cpuinfo_max_freq": "1800000", "scaling_max_freq": "1800000", "scaling_governor": "walt"},
    1: {"cpuinfo_max_freq": "2910000", "scaling_max_freq": "2500000", "scaling_governor": "walt"},
}
# Runs the program behind the library path with this Python.
PLAIN_LOADER = f"""\
#!/bin/sh
shift 2
exec {shlex.quote(sys.executable)} -SE "$@"
"""


@dataclass(frozen=True, kw_only=True)
class Device:
    """The device, and what its stand-ins saw."""

    root: Path

    def commands(self) -> list[list[str]]:
        """What adb and ssh were called with."""
        log = self.root / "log"
        lines = log.read_text().splitlines() if log.is_file() else []
        return [json.loads(line) for line in lines]

    def left(self) -> list[str]:
        """What is in its temporary folder."""
        return sorted(one.name for one in (self.root / "tmp").iterdir())

    def files(self) -> set[str]:
        """Everything on it."""
        return {str(one.relative_to(self.root)) for one in self.root.rglob("*")} - {"log"}

    def program(self, name: str, script: str) -> None:
        """Installs a program there."""
        executable(self.root / "bin" / name, script)


def executable(path: Path, script: str) -> None:
    path.write_text(script)
    path.chmod(0o700)


def make_device(root: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    """A phone with two cores; the stand-ins come first on the path."""
    for folder in ("bin", "tmp", "tools", "proc", "sys/class/thermal/thermal_zone0"):
        (root / folder).mkdir(parents=True)
    device = Device(root=root)
    # The first line of a script takes neither a long path nor one with a space.
    standin = shlex.join([sys.executable, "-SE", str(Path(__file__).with_name("standin.py"))])
    for name in ("adb", "ssh"):
        executable(root / "tools" / name, f'#!/bin/sh\nexec {standin} {name} "$@"\n')
    device.program("uname", '#!/bin/sh\n[ "$1" = -m ] && echo aarch64 || echo Linux 6.1\n')
    (root / "properties").write_text(PROPERTIES)
    device.program("getprop", f"#!/bin/sh\ncat {shlex.quote(str(root))}/properties\n")
    (root / "proc" / "cpuinfo").write_text(CPUINFO)
    (root / "proc" / "meminfo").write_text("MemTotal:        7812500 kB\n")
    (root / "sys/class/thermal/thermal_zone0/temp").write_text("41500\n")
    for core, values in CLOCKS.items():
        folder = root / f"sys/devices/system/cpu/cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        for name, value in values.items():
            (folder / name).write_text(f"{value}\n")
    (root / "devices").write_text("List of devices attached\nPHONE1\tdevice\n\n")
    monkeypatch.setenv("STANDIN_ROOT", str(root))
    monkeypatch.setenv("PATH", f"{root / 'tools'}:{os.environ['PATH']}")
    return device


def plain_bundle(folder: Path, bench: str) -> Bundle:
    """A bundle whose bench is a Python script and needs no Arm core."""
    folder.mkdir()
    files = {LOADER: PLAIN_LOADER, BENCH: bench, RUNNER: "", ONNXRUNTIME_LIBRARY: "", "lib.so": ""}
    for name, content in files.items():
        executable(folder / name, content)
    return Bundle(folder=folder, executorch="1.5.1", sha256=dict.fromkeys(files, ""))
