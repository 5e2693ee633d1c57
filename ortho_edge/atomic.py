"""Files and folders that appear complete or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _free_name(path: Path) -> Path:
    """A sibling of `path` on the same file system, so that a rename moves it into place."""
    return Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder that becomes `path` when the block ends without an exception.

    What stood at `path` before is replaced as a whole; on any error it stays as it was.

    Args:
        path: The folder's final name.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow a link
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = _free_name(path)
    try:
        fresh = holder / "new"
        fresh.mkdir()
        yield fresh
        if path.exists():
            path.rename(holder / "old")
        fresh.rename(path)
    except BaseException:
        if (holder / "old").exists() and not path.exists():
            (holder / "old").rename(path)
        raise
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a whole file under its final name in one step.

    Args:
        path: The file.
        content: Bytes, or text that is written as UTF-8.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow a link
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = _free_name(path)
    try:
        fresh = holder / "new"
        fresh.write_bytes(content.encode() if isinstance(content, str) else content)
        fresh.replace(path)
    finally:
        shutil.rmtree(holder, ignore_errors=True)
