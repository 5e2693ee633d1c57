"""Writing artefacts, as many at once as there are cores: lowering takes long and has one thread."""

import copy
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from time import monotonic

import torch

from ortho_edge.cli import UserError
from ortho_edge.compaction import DenseEncoder
from ortho_edge.precision import Precision
from ortho_export import executorch, onnx
from ortho_export.calibration import Calibration
from ortho_export.executorch import Delegation
from ortho_export.facts import Facts
from ortho_export.results import EXECUTORCH

MAX_WORKERS = 4
"""Each process takes about 1 GB."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """An artefact to write.

    Attributes:
        file: Its name.
        runtime: For which it is.
        precision: Of its weights and products.
        encoder: What it computes.
        facts: What it says about itself.
        calibration: Features of speech, for a precision that needs some.
    """

    file: str
    runtime: str
    precision: Precision
    encoder: DenseEncoder
    facts: Facts
    calibration: Calibration = ()

    @property
    def effort(self) -> int:
        """About how long it takes, beside others."""
        if self.runtime != EXECUTORCH:
            return 1
        return 3 if self.precision == "fp32" else 7


@dataclass(frozen=True, kw_only=True)
class Written:
    """A finished artefact.

    Attributes:
        file: Its name.
        content: Its bytes.
        delegation: How XNNPACK took it, where it is a program of ExecuTorch.
        seconds: What it took.
    """

    file: str
    content: bytes
    delegation: Delegation | None
    seconds: float


def num_workers() -> int:
    """Processes that export at the same time, by default."""
    return min(MAX_WORKERS, os.cpu_count() or 1)


def write(job: Job) -> Written:
    """Writes one artefact, in this process."""
    start = monotonic()
    encoder, facts, precision, speech = job.encoder, job.facts, job.precision, job.calibration
    delegation = None
    if job.runtime == EXECUTORCH:
        program = executorch.lower(encoder, facts, precision, calibration=speech)
        content, delegation = program.content, program.delegation
    else:
        content = onnx.to_onnx(encoder, facts, precision, calibration=speech)
    return Written(
        file=job.file, content=content, delegation=delegation, seconds=monotonic() - start
    )


def write_all(jobs: Sequence[Job], workers: int | None = None) -> Iterator[Written]:
    """Writes artefacts and yields each when it is finished, in any order.

    Args:
        jobs: What to write.
        workers: Processes, this one included; by default one per core and job, at most four.

    Raises:
        UserError: A process was killed.
    """
    shares = _shares(jobs, workers or num_workers())
    if len(shares) < 2:
        yield from map(write, jobs)
        return
    own, *others = shares
    spawn = multiprocessing.get_context("spawn")
    older = set(multiprocessing.active_children())
    with ProcessPoolExecutor(len(others), spawn, _begin) as pool:
        try:
            # Sent by a thread of the pool, while this one traces and changes what it would send.
            copies = [copy.deepcopy(job) for share in others for job in share]
            # It would let interrupts through again when it begins.
            resource_tracker.ensure_running()
            with _interrupts_held():
                futures = [pool.submit(write, one) for one in copies]
            yield from map(write, own)
            for future in as_completed(futures):
                yield future.result()
        except BaseException as error:
            # Nobody waits any more for what the others are at.
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - older:
                child.terminate()
            if isinstance(error, BrokenProcessPool):
                raise UserError(
                    "a process that wrote an artefact was killed; each needs about 1 GB of memory, "
                    "and a script may export only below `if __name__ == '__main__':`"
                ) from error
            raise


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Interrupts from the keyboard come later here, and never to processes that begin meanwhile.

    This process ends those.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """In a new process."""
    torch.set_num_threads(1)


def _shares(jobs: Sequence[Job], workers: int) -> list[list[Job]]:
    """The jobs in as many parts, of about the same effort, none empty; the longest job first."""
    shares: list[list[Job]] = [[] for _ in range(min(workers, len(jobs)))]
    for job in sorted(jobs, key=lambda one: -one.effort):
        min(shares, key=lambda share: sum(one.effort for one in share)).append(job)
    return shares
