"""Runs tests once more as on other machines: `python -m tests.portable [MACHINE ...]`.

    bare        a fresh system of another user; see `bare.py`
    haswell     an emulated processor with AVX2, without AVX-512 and VNNI
    ivybridge   an emulated processor with AVX, without AVX2

They run beside each other, one core each. A machine that cannot be had here is named; where the
variable CI is set, that is a failure. Arguments for pytest stand behind `--` and replace the tests
that are chosen here.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.made_once import VARIABLE
from tests.portable import bare
from tests.portable.processors import PROCESSORS, qemu

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache" / "portable"
"""Keeps QEMU for the next run; ignored by git."""
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow")
ONE_CORE = ("taskset", "--cpu-list", str(min(os.sched_getaffinity(0))))
EXPORTS = ("tests/export/test_parity.py", "tests/export/test_precision.py")
ON_BARE = (
    *EXPORTS,
    "tests/export/test_export_command.py", "tests/export/test_transcribe.py",
    "tests/export/test_quiet.py", "tests/export/test_verify.py", "tests/export/test_writing.py",
    "tests/arm", "tests/data/test_audio.py", "tests/data/test_synthesis.py", "tests/devices",
    "tests/reporting", "tests/test_atomic.py", "tests/test_cli.py", "tests/test_documentation.py",
    "tests/test_report.py", "tests/test_select.py", "tests/test_selector.py",
    "tests/training/test_commands.py", "tests/training/test_selection.py",
)  # fmt: skip
"""Parity, precisions, selection, the commands, and what asks the system."""
ON_PROCESSORS = (*EXPORTS, "tests/test_select.py")
"""Emulation is slow, and a process that such a test starts is not emulated."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one machine."""

    machine: str
    seconds: float
    status: int | None
    """Of pytest; None where the machine cannot be had."""
    text: str

    def __str__(self) -> str:
        said = {None: "cannot be had here", 0: "passed"}.get(self.status, "FAILED")
        return f"{self.machine:10} {self.seconds:4.0f} s  {said}"


def on_bare(arguments: Sequence[str], folder: Path) -> tuple[int | None, str]:
    """Runs pytest on the bare system."""
    way = bare.isolation()
    if way is None:
        return None, "neither namespaces nor another user, or it cannot reach the interpreter"
    copy = bare.copy_source(REPOSITORY, folder)
    done = subprocess.run(
        [*ONE_CORE, *way.words, *PYTEST, *(arguments or ON_BARE)], cwd=copy, umask=0o077,
        env=bare.environment(copy, folder), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    return done.returncode, f"{way.description}\n{done.stdout.decode(errors='replace')}"


def on_processor(model: str, arguments: Sequence[str], shared: Path) -> tuple[int | None, str]:
    """Runs pytest on an emulated processor, with what was exported in `shared` on this one."""
    emulator = qemu(CACHE)
    if emulator is None:
        return None, "no QEMU for x86-64: apt-get install qemu-user"
    environment = os.environ | {
        VARIABLE: str(shared), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        # QEMU before 8 refuses a broadcast of AVX that OpenBLAS makes in NumPy's products.
        "OPENBLAS_CORETYPE": "Haswell" if model == "Haswell" else "Nehalem",
    }  # fmt: skip
    # What is exported on this processor must run on that one.
    made = _pytest(("--setup-only", *(arguments or ON_PROCESSORS)), environment)
    if made.returncode:
        return made.returncode, made.stdout
    words = (str(emulator), "-cpu", model)
    done = _pytest(arguments or ON_PROCESSORS, environment, words)
    return done.returncode, done.stdout


def _pytest(
    arguments: Sequence[str], environment: dict[str, str], words: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*words, *PYTEST, *arguments], cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip


def run(machine: str, arguments: Sequence[str], scratch: Path) -> Outcome:
    """Runs the tests of one machine."""
    begun = time.monotonic()
    if machine in PROCESSORS:
        status, text = on_processor(PROCESSORS[machine], arguments, scratch / "exported")
    else:
        status, text = on_bare(arguments, scratch)
    return Outcome(machine=machine, seconds=time.monotonic() - begun, status=status, text=text)


def main(words: Sequence[str]) -> int:
    """Runs all machines or those that are named, and returns the exit status."""
    known = ("bare", *PROCESSORS)
    split = words.index("--") if "--" in words else len(words)
    machines, arguments = words[:split] or known, words[split + 1 :]
    if unknown := set(machines) - set(known):
        sys.exit(f"error: no machine {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="portable-") as name, ThreadPoolExecutor(cores) as pool:
        scratch = Path(name)
        scratch.chmod(0o755)
        outcomes = list(pool.map(lambda machine: run(machine, arguments, scratch), machines))
    for outcome in outcomes:
        print(f"\n== {outcome.machine}\n{outcome.text.strip()}")
    print("", *outcomes, sep="\n")
    allowed = {0} if "CI" in os.environ else {0, None}
    return int(not {outcome.status for outcome in outcomes} <= allowed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
