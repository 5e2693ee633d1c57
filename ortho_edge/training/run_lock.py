"""A run's folder belongs to one process at a time."""

import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from ortho_edge.cli import UserError

logger = logging.getLogger(__name__)

LOCK_FILE = "lock"
_ATTEMPTS = 10
"""Of locking a file that whoever held it removes at the same moment."""


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keeps other processes from training in `folder` while the block runs.

    The lock ends with its process, however that ends, and loader processes do not inherit it. It is
    a record lock: network file systems know it too.

    Raises:
        UserError: Another process trains there; names it.
        OSError: The folder cannot be made or written to.
    """
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    descriptor = _locked(path)
    try:
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        holder = {"process": os.getpid(), "host": socket.gethostname(), "since": started}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        # While it is still locked, so that nobody else's is removed.
        path.unlink(missing_ok=True)
        os.close(descriptor)
        with suppress(OSError):
            for one in new:
                one.rmdir()


def _locked(path: Path) -> int:
    """The descriptor of the lock's file, which is locked and still of that name."""
    for _ in range(_ATTEMPTS):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            said = os.pread(descriptor, 1000, 0)
            os.close(descriptor)
            raise UserError(f"{path.parent} is in use by {_holder(said)}; {_ADVICE}") from error
        except OSError as error:
            logger.warning("%s cannot be locked (%s): let no two runs share it", path, error)
            return descriptor
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)
    raise UserError(f"{path.parent} is in use by other processes; {_ADVICE}")


_ADVICE = "let it end, or choose another --out"


def _holder(said: bytes) -> str:
    try:
        one = json.loads(said)
        return f"process {one['process']} on {one['host']} since {one['since']}"
    except (KeyError, TypeError, ValueError):
        return "another process"
