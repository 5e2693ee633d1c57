"""Older x86-64 processors, emulated by QEMU in user mode."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

PROCESSORS = {"haswell": "Haswell", "ivybridge": "IvyBridge"}
"""QEMU's models by our name: AVX2 without AVX-512 and VNNI, and AVX without AVX2.

torch does not start without AVX.
"""
_QEMU = ("qemu-x86_64", "qemu-x86_64-static")
_PACKAGE = "qemu-user-static"


def qemu(folder: Path) -> Path | None:
    """QEMU for x86-64: the installed one, or Debian's, fetched into `folder`.

    Nothing is installed; a second call finds what the first one fetched.

    Returns:
        The program; None where there is none and none can be fetched.
    """
    if platform.machine() != "x86_64":
        return None
    fetched = folder / "usr" / "bin" / _QEMU[1]
    found = [fetched] if fetched.is_file() else [Path(p) for p in map(shutil.which, _QEMU) if p]
    if not found and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        _fetch(folder)
        found = [fetched] if fetched.is_file() else []
    return found[0] if found else None


def _fetch(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if os.getuid() == 0:  # a fresh machine may have no lists yet
        subprocess.run(["apt-get", "update", "--quiet=2"], check=False)
    download = ["apt-get", "download", "--quiet=2", _PACKAGE]
    subprocess.run(download, cwd=folder, check=False)
    for archive in folder.glob(f"{_PACKAGE}_*.deb"):
        subprocess.run(["dpkg-deb", "--extract", archive, folder], check=True)
        archive.unlink()
