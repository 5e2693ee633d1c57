"""A bare system: nothing installed by hand, no network, and a user who may write hardly anywhere.

The source is copied to a folder whose path holds spaces and letters beyond ASCII, and nobody may
write to it. Programs that a fresh machine lacks are not on the PATH. The process runs as a user
without a name or a home, in the C locale and a time zone of odd minutes, on one core.
"""

import fnmatch
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ABSENT = (
    "qemu-*", "*-linux-gnu*-gcc*", "*-linux-gnu*-g++*", "gcc*", "g++*", "cc", "c++", "c89*", "c99*",
    "clang*", "flite*", "espeak*", "festival*", "text2wave", "ffmpeg*", "sox*", "adb", "ssh*",
    "scp", "nvidia-smi",
)  # fmt: skip
"""Programs that a fresh machine lacks."""
USER = 4711
"""No system has a user of this number."""


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """How another user is had here: words before a command, and what they do."""

    words: tuple[str, ...]
    description: str


def isolation() -> Isolation | None:
    """The strictest way that this machine permits; None where there is none."""
    loopback = (sys.executable, str(Path(__file__).with_name("loopback.py")))
    namespaces = ("unshare", "--user", "--map-root-user", "--net", "--", *loopback, "unshare")
    ways = [
        Isolation(
            words=(*namespaces, "--user", f"--map-user={USER}", f"--map-group={USER}", "--"),
            description=f"user {USER} in namespaces of its own, without a network",
        )
    ]
    if os.getuid() == 0:
        ids = (f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
        ways.append(Isolation(words=("setpriv", *ids), description=f"user {USER}, with a network"))
    else:
        ways.append(Isolation(words=(), description="this user, with a network"))
    return next((way for way in ways if _works(way)), None)


def _works(way: Isolation) -> bool:
    # More than a true: the other user must reach the interpreter and what is installed.
    command = [*way.words, sys.executable, "-c", "import os, torch; assert os.getuid()"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def copy_source(repository: Path, folder: Path) -> Path:
    """Copies what git knows or would add, and takes away every right to write there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=repository, capture_output=True, check=True,
    )  # fmt: skip
    copy = folder / "a cl\N{LATIN SMALL LETTER O WITH DIAERESIS}ne" / "ortho edge"
    for name in filter(None, listed.stdout.split(b"\0")):
        file = repository / os.fsdecode(name)
        if file.is_file():
            (copy / os.fsdecode(name)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy / os.fsdecode(name))
    for path in (*copy.rglob("*"), copy):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return copy


def programs(folder: Path) -> Path:
    """A folder with a link to each program on the PATH but those that a fresh machine lacks."""
    folder.mkdir()
    for place in os.get_exec_path():
        for program in Path(place).iterdir() if Path(place).is_dir() else ():
            hidden = any(fnmatch.fnmatch(program.name, pattern) for pattern in ABSENT)
            if not hidden and not (folder / program.name).is_symlink():
                (folder / program.name).symlink_to(program)
    return folder


def environment(copy: Path, folder: Path) -> dict[str, str]:
    """All variables of the process; none of this one's."""
    home, temporary = folder / "home", folder / "temporary"
    home.mkdir(mode=0o555)
    temporary.mkdir()
    temporary.chmod(0o777)
    return {
        "PATH": str(programs(folder / "programs")),
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "LC_ALL": "C",
        "TZ": "<+1245>-12:45",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(map(str, (copy, copy / "kernels", copy / "export"))),
    }
