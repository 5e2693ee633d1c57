"""How much memory loading and running an artefact adds to a process, measured in a fresh one.

Imports nothing heavy: what the fresh process imports counts as being there before.
"""

import ctypes
import gc
import multiprocessing
import os
import re
import statistics
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

Load = Callable[[Path], Callable[[np.ndarray], object]]

FRAMES_PER_SECOND = 100
"""As in `ortho_edge.components`, which is too heavy to import here."""

PROCESSES = 3
"""A peak is the median of so many processes: in ONNX Runtime the same model takes the same memory
within a process and up to a fifth more or less in the next."""

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
    return peak_memories_mb(load, warm_up, [(artefact, seconds)])[0]


def peak_memories_mb(
    load: Load, warm_up: Path, points: Sequence[tuple[Path, float]]
) -> list[float]:
    """`peak_memory_mb` of many artefacts, without importing the runtime's libraries for each.

    A process loads the libraries; for every point it makes a copy of itself, which runs the
    warm-up once more, so that what a copy has yet to map counts as being there before. There are
    `PROCESSES` of them, as many at a time as the machine has cores.

    Args:
        load: The runtime; must be importable by name in another process.
        warm_up: As for `peak_memory_mb`.
        points: Artefacts, and seconds of audio.

    Raises:
        RuntimeError: A process ended without a figure.
        OSError: The system keeps no such record.
    """
    with ThreadPoolExecutor(min(PROCESSES, os.cpu_count() or 1)) as pool:
        runs = [pool.submit(_peaks_in_one_process, load, warm_up, points) for _ in range(PROCESSES)]
        found = [one.result() for one in runs]
    return [statistics.median(peaks) for peaks in zip(*found, strict=True)]


def _peaks_in_one_process(
    load: Load, warm_up: Path, points: Sequence[tuple[Path, float]]
) -> list[float]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(theirs, load, warm_up, points))
    child.start()
    theirs.close()
    peaks: list[float] = []
    try:
        for artefact, _ in points:
            peaks.append(_received(ours, artefact))
    finally:
        ours.close()
        child.join()
    return peaks


def _received(connection: Connection, artefact: Path) -> float:
    try:
        found = connection.recv()
    except EOFError:
        found = "unknown"
    if isinstance(found, float):
        return found
    raise RuntimeError(f"measuring the memory of {artefact.name} ended with status {found}")


def can_measure() -> bool:
    """Whether the system records a process's peak memory (Linux does)."""
    return STATUS.is_file() and RESET_PEAK.exists()


def _measure(
    connection: Connection, load: Load, warm_up: Path, points: Sequence[tuple[Path, float]]
) -> None:
    warm = np.zeros((1, FRAMES_PER_SECOND, 80), np.float32)
    load(warm_up)(warm)
    copies = multiprocessing.get_context("fork")
    for artefact, seconds in points:
        child = copies.Process(
            target=_measure_one, args=(connection, load, warm_up, warm, artefact, seconds)
        )
        with warnings.catch_warnings():
            # Python 3.12 warns of threads; those of the libraries wait and hold nothing.
            warnings.simplefilter("ignore", DeprecationWarning)
            child.start()
        child.join()
        if child.exitcode != 0:
            connection.send(str(child.exitcode))
            return


def _measure_one(
    connection: Connection,
    load: Load,
    warm_up: Path,
    warm: np.ndarray,
    artefact: Path,
    seconds: float,
) -> None:
    features = np.zeros((1, round(seconds * FRAMES_PER_SECOND), 80), np.float32)
    load(warm_up)(warm)
    _give_back()
    RESET_PEAK.write_text("5")
    before = _status_mb("VmRSS")
    load(artefact)(features)
    connection.send(_status_mb("VmHWM") - before)


def _give_back() -> None:
    """Returns to the system what is free, or the artefact would use it and seem to need less."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc has it
        trim(0)


def _status_mb(key: str) -> float:
    found = re.search(rf"^{key}:\s*(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"{STATUS} has no {key}")
    return int(found[1]) * 1024 / 1e6
