"""Cases in a forked child with limits: a crash, a hang or a flood is a finding about one of them.

The child is warm, for everything is imported before it is forked, and goes from case to case; one
that dies is replaced by another that begins after the case that killed it.
"""

import faulthandler
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from ortho_edge.cli import UserError, one_line

REFUSED, ACCEPTED, FAILED, CRASHED = "refused", "accepted", "failed", "crashed"
SECONDS = 20.0
MORE_BYTES = 2**30
LONGEST_LINE = 1000


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a case.

    Attributes:
        number: Of the case.
        verdict: `refused` by a UserError, `accepted`, `failed` or `crashed`.
        detail: The message, the exception or the signal.
        seconds: How long it took.
    """

    number: int
    verdict: str
    detail: str
    seconds: float


def outcomes(
    numbers: Sequence[int],
    attempt: Callable[[int], object],
    folder: Path,
    seconds: float = SECONDS,
    more_bytes: int = MORE_BYTES,
    begin: Callable[[], object] = lambda: None,
) -> Iterator[Outcome]:
    """Runs cases one after the other in children.

    Args:
        numbers: Of the cases.
        attempt: Runs one; raises UserError where it refuses.
        folder: The only place that a case may write to.
        seconds: Most time for one case.
        more_bytes: Most address space that a child may take beyond what it starts with.
        begin: Called in every child before its first case.
    """
    left = list(numbers)
    while left:
        reading, writing = os.pipe()
        with tempfile.TemporaryFile() as trace:
            child = os.fork()
            if child == 0:
                os.close(reading)
                try:
                    faulthandler.enable(trace)
                    begin()
                    _child(left, attempt, folder, writing, more_bytes)
                finally:
                    os._exit(0)
            os.close(writing)
            done = 0
            for outcome in _from_child(child, reading, left, seconds):
                done += 1
                if outcome.verdict == CRASHED:
                    outcome = replace(outcome, detail=f"{outcome.detail} at {_innermost(trace)}")
                yield outcome
            left = left[done:]


def _innermost(trace: IO[bytes]) -> str:
    """The innermost line of Python of a crash."""
    trace.seek(0)
    lines = [line.strip() for line in trace.read().decode("utf-8", "replace").splitlines()]
    return next((line for line in lines if line.startswith("File ")), "an unknown place")


def _from_child(
    child: int, reading: int, numbers: Sequence[int], seconds: float
) -> Iterator[Outcome]:
    """What a child reports until it ends, and the case that ended it early."""
    buffer, done, started = b"", 0, time.monotonic()
    while True:
        ready, _, _ = select.select(
            [reading], [], [], max(0.0, started + seconds - time.monotonic())
        )
        if not ready:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reading)
            yield Outcome(
                number=numbers[done], verdict=FAILED, detail="took too long", seconds=seconds
            )
            return
        chunk = os.read(reading, 65536)
        if not chunk:
            break
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            said = json.loads(line)
            yield Outcome(**said)
            done, started = done + 1, time.monotonic()
    _, status = os.waitpid(child, 0)
    os.close(reading)
    if done < len(numbers):
        how = (
            signal.Signals(os.WTERMSIG(status)).name
            if os.WIFSIGNALED(status)
            else f"exit {os.waitstatus_to_exitcode(status)}"
        )
        yield Outcome(
            number=numbers[done], verdict=CRASHED, detail=how, seconds=time.monotonic() - started
        )


def _child(
    numbers: Sequence[int],
    attempt: Callable[[int], object],
    folder: Path,
    writing: int,
    more_bytes: int,
) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.chdir(folder)
    tempfile.tempdir = str(folder)
    limit = _address_space() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    forbidden = _watch(folder)
    for number in numbers:
        forbidden.clear()
        started = time.monotonic()
        verdict, detail = _attempted(attempt, number)
        if forbidden:
            verdict, detail = FAILED, f"did what no reader does: {forbidden[0]}"
        said = {
            "number": number,
            "verdict": verdict,
            "detail": detail[:LONGEST_LINE],
            "seconds": time.monotonic() - started,
        }
        os.write(writing, json.dumps(said).encode() + b"\n")


def _attempted(attempt: Callable[[int], object], number: int) -> tuple[str, str]:
    try:
        attempt(number)
    except UserError as error:
        return REFUSED, one_line(error)
    except OSError as error:
        # A command says in one line what the system told it.
        return REFUSED, f"{type(error).__name__}: {error}"
    except BaseException as error:  # noqa: BLE001 - a panic of Rust is no Exception
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
        return FAILED, f"{type(error).__name__} at {place}: {error}"
    return ACCEPTED, ""


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
EXECUTING = (
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.startfile", "pty.spawn",
    "pickle.find_class", "socket.connect",
)  # fmt: skip
CHANGING = {
    "os.mkdir": 1, "os.remove": 1, "os.rename": 2, "os.rmdir": 1, "os.symlink": 2, "os.link": 2,
    "os.truncate": 1, "os.chmod": 1,
}  # fmt: skip


def _watch(folder: Path) -> list[str]:
    """Notes whatever writes outside a folder, starts a program, connects or unpickles."""
    found: list[str] = []
    root = os.path.realpath(folder)

    def outside(path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        at = os.path.realpath(os.fsdecode(path)) if b"\0" not in os.fsencode(path) else ""
        return not (at == os.devnull or at == root or at.startswith(root + os.sep))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = any(one in str(mode or "") for one in "wax+") or bool((flags or 0) & WRITING)
            if writes and outside(path):
                found.append(f"open {path!r} to write")
        elif event in EXECUTING or (
            event in CHANGING and any(map(outside, arguments[: CHANGING[event]]))
        ):
            found.append(f"{event} {arguments!r}"[:200])

    sys.dont_write_bytecode = True
    sys.addaudithook(hook)
    return found
