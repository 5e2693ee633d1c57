"""Keeps the chatter of native libraries off the terminal, but not when something goes wrong."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from ortho_edge.cli import UserError

_STDERR = 2


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Holds back what the process writes to standard error, native code included.

    ExecuTorch, torchao and ONNX report missing optional parts there, and a damaged file by lines of
    C++. What was held back is shown when the block ends in an exception other than a `UserError`.
    """
    sys.stderr.flush()
    kept = os.dup(_STDERR)
    show = False
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as held:
        os.dup2(held.fileno(), _STDERR)
        try:
            # Python's own stream need not end in the file descriptor.
            with contextlib.redirect_stderr(held):
                yield
        except UserError:
            raise
        except BaseException:
            show = True
            raise
        finally:
            sys.stderr.flush()
            held.flush()
            os.dup2(kept, _STDERR)
            os.close(kept)
            if show:
                held.seek(0)
                sys.stderr.write(held.read())
