"""A user's Ctrl-C while the command lowers: the old export stays and nothing is left beside it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ortho_edge.atomic import recover
from ortho_export.manifest import MANIFEST

pytestmark = [pytest.mark.export, pytest.mark.slow]

INTERRUPTED = 130


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """What an earlier export left, as far as the next one looks at it."""
    folder = tmp_path / "exports" / "device"
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(json.dumps({"schema_version": 1, "files": {}}), "utf-8")
    (folder / "model.pte").write_bytes(b"old")
    return folder


def heed_interrupts() -> None:
    """What runs in the background of a shell ignores Ctrl-C, and hands that on."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def export_until(stage: str, out: Path, checkpoint: Path, log: Path) -> subprocess.Popen[bytes]:
    """Starts the command and waits until its log names the stage."""
    command = [
        sys.executable, "-m", "ortho_edge.export", "--device", "pixel8", "--latency-ms", "1000",
        "--checkpoint", str(checkpoint), "--out", str(out), "--verbose",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=file,
            env=environment,
            start_new_session=True,
            preexec_fn=heed_interrupts,
        )
    deadline = time.monotonic() + 600
    while stage not in log.read_text("utf-8", errors="replace"):
        assert process.poll() is None, log.read_text("utf-8", errors="replace")
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(
    ("number", "statuses"),
    [
        # Python ends itself by the signal where that struck inside exec(), as of a dataclass that
        # is imported. Shells say 130 for both.
        (signal.SIGINT, {INTERRUPTED, -signal.SIGINT}),
        (signal.SIGKILL, {-signal.SIGKILL}),
    ],
    ids=["interrupt", "kill"],
)
def test_the_old_export_stays(
    checkpoint_folder: Path, old: Path, tmp_path: Path, number: signal.Signals, statuses: set[int]
) -> None:
    log = tmp_path / "log.txt"
    process = export_until("writing model.pte", old, checkpoint_folder, log)
    # Somewhere inside torch.export or the lowering, which take seconds.
    time.sleep(1.0)
    os.killpg(process.pid, number)
    assert process.wait(timeout=600) in statuses
    said = log.read_text("utf-8", errors="replace")
    assert {one.name for one in old.iterdir()} == {MANIFEST, "model.pte"}
    assert (old / "model.pte").read_bytes() == b"old"
    if number == signal.SIGINT:
        assert "interrupted" in said
        assert "Traceback" not in said
        assert [one.name for one in old.parent.iterdir()] == [old.name], "nothing hidden is left"
    # The next export removes what a killed one could not.
    recover(old)
    assert [one.name for one in old.parent.iterdir()] == [old.name]
    assert (old / "model.pte").read_bytes() == b"old"
