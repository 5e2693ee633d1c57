"""Artefacts that are written beside each other are those that are written one by one."""

import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from ortho_edge.cli import UserError
from ortho_edge.compaction import compact
from ortho_edge.precision import Precision
from ortho_export import writing
from ortho_export.facts import Facts
from ortho_export.results import EXECUTORCH, ONNXRUNTIME, file_name
from ortho_export.writing import Job, Written, write, write_all
from tests.export.tiny import tiny_checkpoint

# Jobs here hold stand-ins for encoders, which the run that checks every type would refuse.
pytestmark = pytest.mark.export


def quick(job: Job) -> Written:
    """In place of the slow `write`."""
    assert job.encoder is not None, "no encoder"
    return Written(file=job.file, content=b"", delegation=None, seconds=1.0)


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "write", quick)


def job(runtime: str = ONNXRUNTIME, precision: Precision = "fp32") -> Job:
    checkpoint = tiny_checkpoint()
    supernet = checkpoint.supernet
    return Job(
        file=file_name(runtime, precision=precision),
        runtime=runtime,
        precision=precision,
        encoder=compact(supernet, supernet.space.full()),
        facts=Facts(subnet="s100", tokens=checkpoint.tokens, checkpoint_digest="0" * 64),
    )


@pytest.fixture
def nothing_left() -> Iterator[None]:
    before = set(multiprocessing.active_children())
    yield
    # Asked of the system: two threads that both wait for a process confuse multiprocessing.
    left = {child.pid for child in set(multiprocessing.active_children()) - before}
    deadline = time.monotonic() + 10
    while any(exists(pid) for pid in left if pid is not None):
        assert time.monotonic() < deadline, "a process was left behind"
        time.sleep(0.05)


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_left")
def test_two_processes_write_what_one_does() -> None:
    jobs = [job(precision="int8"), job(EXECUTORCH)]
    beside = {one.file: one for one in write_all(jobs, workers=2)}
    assert set(beside) == {"model.pte", "model.int8.onnx"}
    # The program is written in this process, the model in the other one.
    assert beside["model.int8.onnx"].content == write(jobs[0]).content
    delegation = beside["model.pte"].delegation
    assert delegation is not None
    assert delegation.subgraphs == 1
    assert beside["model.int8.onnx"].delegation is None
    assert all(one.seconds > 0 for one in beside.values())


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.usefixtures("quickly")
def test_one_job_or_one_core_needs_no_process(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "ProcessPoolExecutor", pytest.fail)
    number = 1 if workers > 1 else 2
    written = list(write_all(number * [job()], workers))
    assert [one.file for one in written] == number * ["model.onnx"]


@pytest.mark.usefixtures("nothing_left", "quickly")
def test_a_defect_in_another_process_is_that_of_this_one() -> None:
    broken = replace(job(), encoder=None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(AssertionError, match="no encoder"):
        list(write_all([job(), broken], workers=2))


class Unpickled:
    """Calls a function when it arrives in another process."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __deepcopy__(self, memo: object) -> "Unpickled":
        return self

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.usefixtures("nothing_left", "quickly")
def test_an_interrupt_does_not_wait_for_other_processes() -> None:
    endless = replace(job(), encoder=Unpickled(time.sleep, 1000))  # pyright: ignore[reportArgumentType]
    written = write_all([job(), endless], workers=2)
    assert next(written).file == "model.onnx"
    assert multiprocessing.active_children()
    with pytest.raises(KeyboardInterrupt):
        written.throw(KeyboardInterrupt)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.usefixtures("nothing_left", "quickly")
def test_a_killed_process_is_one_line() -> None:
    deadly = replace(job(), encoder=Unpickled(os.abort))  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="was killed; each needs about 1 GB of memory"):
        list(write_all([job(), deadly], workers=2))


def write_and_change(job: Job) -> Written:
    """Says what it found, and changes it in this process, as tracing does for a while."""
    head = job.encoder.ctc_head
    device = head.weight.device.type
    if multiprocessing.parent_process() is None:
        head.to("meta")
        time.sleep(1)
    return Written(file=job.file, content=device.encode(), delegation=None, seconds=1.0)


@pytest.mark.usefixtures("nothing_left")
def test_another_process_does_not_see_what_this_one_changes_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writing, "write", write_and_change)
    first = job()
    # More than are sent at once, so that some wait for the change.
    others = [replace(first, file=f"{number}.onnx") for number in range(5)]
    found = {one.file: one.content for one in write_all([first, *others], workers=2)}
    assert len(found) == 6
    assert [found[f"{number}.onnx"] for number in (0, 2, 4)] == 3 * [b"cpu"]


def test_shares_are_of_like_effort_and_hold_every_job_once() -> None:
    jobs = [
        Job(file=f"{runtime} {precision}", runtime=runtime, precision=precision,
            encoder=None, facts=None)  # pyright: ignore[reportArgumentType]
        for runtime, precision in itertools.product((ONNXRUNTIME, EXECUTORCH), ("fp32", "int8"))
    ]  # fmt: skip
    for workers in (1, 2, 3, 4, 9):
        shares = writing._shares(jobs, workers)
        assert len(shares) == min(workers, 4)
        assert sorted(one.file for share in shares for one in share) == sorted(
            one.file for one in jobs
        )
        assert shares[0][0].file == "executorch int8", "the longest begins, in this process"
    two = writing._shares(jobs, 2)
    assert [sum(one.effort for one in share) for share in two] == [7, 5]
