"""Stands in for `adb` and `ssh`: a device that is a folder of this machine.

Called with either name, it takes the arguments that the real one takes, hands the line for the
device to a shell as the real one does, and logs what it was given. System files that the line names
are those of the folder; a loader for Arm that arrives there is run by QEMU.
"""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(os.environ["STANDIN_ROOT"])
LOADER = "ld-linux-aarch64.so.1"
SYSTEM = ("/proc/cpuinfo", "/proc/meminfo", "/proc/device-tree", "/sys/")


def main(name: str, arguments: list[str]) -> int:
    with (ROOT / "log").open("a") as log:
        log.write(json.dumps([name, *arguments]) + "\n")
    return adb(arguments) if name == "adb" else ssh(arguments)


def adb(arguments: list[str]) -> int:
    if arguments == ["devices"]:
        sys.stdout.write((ROOT / "devices").read_text())
        return 0
    option, _, verb, *rest = arguments
    assert option == "-s"
    if verb == "shell":
        return shell(" ".join(rest))
    assert verb == "push"
    file, there = map(Path, rest)
    try:
        there.write_bytes(file.read_bytes())
    except OSError as error:
        sys.stderr.write(f"adb: error: failed to copy: {error.strerror}\n")
        return 1
    there.chmod(0o600)
    emulate()
    return 0


def ssh(arguments: list[str]) -> int:
    _, *rest = arguments[arguments.index("--") + 1 :]
    return shell(" ".join(rest))


def shell(line: str) -> int:
    drop = os.environ.get("STANDIN_DROP")
    if drop and drop in line:
        sys.stdout.write('{"round":1,"seconds":0.5}\n')
        sys.stderr.write("Connection reset by peer\n")
        return 255
    for path in SYSTEM:
        line = line.replace(path, f"{ROOT}{path}")
    environment = {"PATH": f"{ROOT}/bin:{os.environ['PATH']}", "TMPDIR": f"{ROOT}/tmp"}
    status = subprocess.run(["sh", "-c", line], env=environment, cwd=ROOT, check=False).returncode
    emulate()
    return status


def emulate() -> None:
    for loader in ROOT.glob(f"tmp/ortho-edge.*/{LOADER}"):
        real = loader.with_suffix(".real")
        if loader.read_bytes()[:4] != b"\x7fELF":
            continue
        loader.rename(real)
        real.chmod(0o700)
        command = shlex.join(["qemu-aarch64", "-cpu", "cortex-a76", "-L", str(ROOT), str(real)])
        loader.write_text(f'#!/bin/sh\nexec {command} "$@"\n')


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
