"""What is slow to make, made by one of the processes of a run and used by all of them.

Session fixtures belong to one process; under pytest-xdist each would lower the same models again.
Where `ORTHO_EDGE_TEST_ARTEFACTS` names a folder, what is made stays there for further runs of the
same commit; `tests.portable` lets an emulated processor use it so.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

VARIABLE = "ORTHO_EDGE_TEST_ARTEFACTS"


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills, in this process or in another one of this run.

    Args:
        factory: Knows the temporary folder of the run.
        name: The same in every process, different for everything that is made.
        make: Fills the empty folder that it gets. It must not ask for what waits for it.
    """
    root = _root(factory)
    folder = root / name
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = root / f"{name}.done"
        if not done.exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            done.touch()
    return folder


def _root(factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get(VARIABLE)
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    root = Path(kept) if kept else shared / "made-once"
    root.mkdir(parents=True, exist_ok=True)
    return root
