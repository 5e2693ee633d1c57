"""Files and folders that appear complete or not at all, whatever kills the process in between.

What is being written stands in a *holder*, a hidden folder beside the final name, and gets that
name in one step: a rename, or an exchange of two folders. Where the system cannot exchange, a
folder is replaced by two renames; a process killed between them leaves no folder of that name, and
`recover` puts the old one back. A holder is locked while its process lives, so whoever comes next
tells abandoned ones and removes them.

What may be replaced, and what is written into instead, is up to `ortho_edge.destinations`.
"""

import ctypes
import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ortho_edge.cli import UserError
from ortho_edge.destinations import (
    behind_links,
    make_parents,
    opened_stream,
    require_folder_or_nothing,
)

NEW, OLD, LOCK = "new", "old", "lock"
HOLDER_SUFFIX = ".partial"

_ATTEMPTS = 3
"""A new holder may be taken for abandoned in the moment before it is locked."""
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM, errno.EXDEV)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder that becomes `path` when the block ends without an exception.

    What stood at `path` before is replaced as a whole; on any error it stays as it was. Abandoned
    remains of earlier attempts are removed.

    Args:
        path: The folder's final name, or a symlink to it.

    Raises:
        UserError: Something other than a folder stands there.
        OSError: It cannot be written; names `path`.
    """
    path = behind_links(path)
    recover(path)
    require_folder_or_nothing(path)
    with _naming(path):
        make_parents(path)
    with _naming(path), _holder(path) as holder:
        fresh = holder / NEW
        fresh.mkdir()
        yield fresh
        require_folder_or_nothing(path)
        _flush(fresh)
        if not os.path.lexists(path):
            fresh.rename(path)
        elif not exchange(fresh, path):
            _replace_in_two_steps(holder, path)
        _sync(path.parent)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a whole file under its final name in one step.

    Args:
        path: The file, or a symlink to it. A device, a pipe and the like are written into.
        content: Bytes, or text that is written as UTF-8.

    Raises:
        UserError: What stands there can be neither replaced nor written into.
        OSError: It cannot be written; names `path`.
    """
    # A name that is no UTF-8, which a command's record may quote, has no other form as text.
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with _naming(path):
        stream = opened_stream(path)
        if stream is not None:
            with os.fdopen(stream, "wb") as file:
                file.write(data)
            return
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder")
    path = behind_links(path)
    recover(path)
    with _naming(path):
        make_parents(path)
        with _holder(path) as holder:
            fresh = holder / NEW
            fresh.write_bytes(data)
            _sync(fresh)
            fresh.replace(path)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Has an error of the system name what was asked for, not what stands there meanwhile."""
    try:
        yield
    except OSError as error:
        said = error.filename
        unnamed = said is None or HOLDER_SUFFIX in str(said)
        if error.errno is None or isinstance(error, BlockingIOError) or not unnamed:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def recover(path: Path) -> None:
    """Removes what killed writers of `path` left beside it, after putting an old folder back.

    Does nothing to what a living process is writing.

    Args:
        path: The final name of a file or folder.
    """
    path = behind_links(path)
    name = re.compile(re.escape(f".{path.name}.") + r"\w{8}" + re.escape(HOLDER_SUFFIX))
    try:
        siblings = [one for one in path.parent.iterdir() if name.fullmatch(one.name)]
    except OSError:
        return
    for holder in siblings:
        lock = _lock(holder)
        if lock is None:
            continue
        with suppress(OSError):
            if os.path.lexists(holder / OLD) and not os.path.lexists(path):
                (holder / OLD).rename(path)
            shutil.rmtree(holder, ignore_errors=True)
        os.close(lock)


def exchange(one: Path, other: Path) -> bool:
    """Lets two names swap what they name in one step, by Linux's `renameat2`.

    Returns:
        Whether the system and its file system can; nothing has changed where not.

    Raises:
        OSError: They can, but it failed.
    """
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    names = os.fsencode(one), os.fsencode(other)
    if not renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        return True
    number = ctypes.get_errno()
    if number in _CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def _replace_in_two_steps(holder: Path, path: Path) -> None:
    """Where nothing can be exchanged; `recover` mends what a kill in between leaves."""
    try:
        path.rename(holder / OLD)
        (holder / NEW).rename(path)
    except BaseException:
        if os.path.lexists(holder / OLD) and not os.path.lexists(path):
            (holder / OLD).rename(path)
        raise


@contextmanager
def _holder(path: Path) -> Iterator[Path]:
    """A locked sibling of `path`, so that a rename moves what is in it into place."""
    holder, lock = _locked_folder(path)
    try:
        yield holder
    finally:
        shutil.rmtree(holder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _locked_folder(path: Path) -> tuple[Path, int | None]:
    """A new holder and its lock; None where the file system knows no locks."""
    for _ in range(_ATTEMPTS):
        holder = _new_folder(path)
        lock = _lock(holder)
        if lock is not None:
            return holder, lock
        shutil.rmtree(holder, ignore_errors=True)
    return _new_folder(path), None


def _new_folder(path: Path) -> Path:
    name = tempfile.mkdtemp(prefix=f".{path.name}.", suffix=HOLDER_SUFFIX, dir=path.parent)
    return Path(name)


def _lock(holder: Path) -> int | None:
    """Locks a holder until the descriptor is closed or its process ends, however it ends.

    Returns:
        A descriptor; None where another process holds or removes it.
    """
    try:
        descriptor = os.open(holder / LOCK, os.O_RDWR | os.O_CREAT)
    except OSError:
        return None
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if (holder / LOCK).exists():
            return descriptor
    os.close(descriptor)
    return None


def _flush(folder: Path) -> None:
    """Writes a folder through to the disk, so that a power cut after the swap loses nothing."""
    for one in folder.rglob("*"):
        if not one.is_symlink():
            _sync(one)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
