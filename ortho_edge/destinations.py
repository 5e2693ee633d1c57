"""What stands where a command is to write, and what may be done with it.

Files and folders are replaced, and a symlink leads to what is replaced. A terminal, a pipe,
`/dev/null` and `/dev/stdout` are written into instead: who replaces one takes it away from every
other program. Disks and sockets are refused.
"""

import errno
import os
import re
import stat
import sys
from pathlib import Path

from ortho_edge.cli import UserError

_DESCRIPTOR = re.compile(r"/proc/(?:self|(\d+))(?:/task/\d+)?/fd/(\d+)|/dev/fd/(\d+)")
"""What `/dev/stdout` and its like lead to."""
_MOST_LINKS = 40
"""As Linux has it."""


def behind_links(path: Path) -> Path:
    """The absolute name that writing to `path` means: of a symlink, that of its target.

    Folders on the way stay as they are named.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links on the way
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def opened_stream(path: Path) -> int | None:
    """Opens what is written into and not replaced.

    Returns:
        A descriptor to write to; None where a file or folder stands at `path`, or nothing.

    Raises:
        UserError: It is a disk, a socket, or a pipe that nobody reads from.
        OSError: It may not be written to.
    """
    own = _own_descriptor(path)
    if own is not None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        return os.dup(own)
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - Path.stat would be given the same name
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        kind = "a disk" if stat.S_ISBLK(mode) else "a socket"
        raise UserError(f"{path} is {kind}, which is never overwritten; name a file")
    try:
        # Without a reader, opening a pipe would wait for one without a word.
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise UserError(f"{path} is a pipe that nothing reads from; start its reader first") from (
            error
        )
    os.set_blocking(descriptor, True)
    return descriptor


def require_folder_or_nothing(path: Path) -> None:
    """Checks that a folder can stand at `path`.

    Raises:
        UserError: Something else stands there.
    """
    if os.path.lexists(path) and not path.is_dir():
        raise UserError(f"{path} is not a folder; choose another name")


def make_parents(path: Path) -> None:
    """Makes the folder that `path` is to stand in.

    Raises:
        UserError: Something other than a folder stands on the way.
        OSError: It cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        wrong = next(one for one in path.parents if os.path.lexists(one))
        raise UserError(f"cannot write {path}: {wrong} is not a folder") from error


def _own_descriptor(path: Path) -> int | None:
    """The number of this process's descriptor that a name such as `/dev/stdout` stands for."""
    for _ in range(_MOST_LINKS):
        path = Path(os.path.abspath(path))  # noqa: PTH100
        found = _DESCRIPTOR.fullmatch(str(path))
        if found is not None:
            process, number, other = found.groups()
            if process is not None and int(process) != os.getpid():
                return None
            return int(number or other)
        try:
            path = path.parent / path.readlink()
        except OSError:
            return None
    return None
