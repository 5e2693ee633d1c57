"""How much memory loading and running an artefact adds to a process, measured in a fresh one.

Imports nothing heavy: what the fresh process imports counts as being there before.
"""

import multiprocessing
import re
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

Load = Callable[[Path], Callable[[np.ndarray], object]]

FRAMES_PER_SECOND = 100
"""As in `ortho_edge.components`, which is too heavy to import here."""

STATUS = Path("/proc/self/status")
RESET_PEAK = Path("/proc/self/clear_refs")


def peak_memory_mb(load: Load, artefact: Path, warm_up: Path, seconds: float) -> float:
    """Peak resident memory of one artefact, above what the runtime's libraries hold.

    Args:
        load: The runtime; must be importable by name in another process.
        artefact: What to measure.
        warm_up: A small artefact that is loaded and run first, so that libraries count as there.
        seconds: Length of the utterance.

    Raises:
        RuntimeError: The process ended without a figure.
        OSError: The system keeps no such record.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(theirs, load, artefact, warm_up, seconds))
    child.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        child.join()
        raise RuntimeError(
            f"measuring the memory of {artefact.name} ended with status {child.exitcode}"
        ) from None
    finally:
        child.join()


def can_measure() -> bool:
    """Whether the system records a process's peak memory (Linux does)."""
    return STATUS.is_file() and RESET_PEAK.exists()


def _measure(
    connection: Connection, load: Load, artefact: Path, warm_up: Path, seconds: float
) -> None:
    features = np.zeros((1, round(seconds * FRAMES_PER_SECOND), 80), np.float32)
    load(warm_up)(features[:, :FRAMES_PER_SECOND])
    RESET_PEAK.write_text("5")
    before = _status_mb("VmRSS")
    load(artefact)(features)
    connection.send(_status_mb("VmHWM") - before)


def _status_mb(key: str) -> float:
    found = re.search(rf"^{key}:\s*(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"{STATUS} has no {key}")
    return int(found[1]) * 1024 / 1e6
