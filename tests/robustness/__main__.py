"""Kills training, export and preparation at random times, and says what that left behind.

    python -m tests.robustness --training 20 --export 50 --prepare 20

Each try is a process of its own that is forked when everything is imported, so that the kill falls
into the work. It has a group of its own and SIGKILL goes to all of it, loaders included. A try
fails where

- a training that goes on does not end in the same losses and weights, bit for bit;
- an export's folder is neither the old export nor the new one, each complete by the digests in its
  manifest; every fifth try has two exports at once, and kills one;
- a preparation that goes on does not end in the same files, bit for bit.

Ends with status 1 if any did.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ortho_edge.atomic import recover
from ortho_edge.data.corpora import synthetic
from ortho_edge.data.preparation import Preparation, prepare
from ortho_edge.devices.catalogue import load_profile
from ortho_edge.selector import budget_for
from ortho_edge.training.metrics import METRICS
from ortho_edge.training.trainer import Trainer
from ortho_export import pipeline
from ortho_export.manifest import MANIFEST
from ortho_export.results import EXECUTORCH, ONNXRUNTIME, Request, file_name
from ortho_export.writing import Written
from tests.data.miniatures import PARTS, librispeech
from tests.export.conftest import save_tiny
from tests.training.conftest import corpus_of, small_recipe, write_tones

Work = Callable[[], object]
FAILED = 70
"""Status of a child whose work raised."""


def start(work: Work, log: Path) -> int:
    """Does the work in a child; its process id, which is that of its group too."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    status = FAILED
    try:
        torch.set_num_threads(1)
        work()
        status = 0
    except BaseException as error:  # noqa: BLE001 - a child never gets back to the caller
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        sys.stderr.flush()
        os._exit(status)


def finish(work: Work, log: Path) -> float:
    """Does the work in a child to its end; the seconds that it took.

    Raises:
        RuntimeError: It failed.
    """
    begin = time.monotonic()
    _, status = os.waitpid(start(work, log), 0)
    if status != 0:
        raise RuntimeError(f"undisturbed work ended with {status}: {log.read_text()[-2000:]}")
    return time.monotonic() - begin


def kill(child: int, seconds: float) -> bool:
    """Kills a child and all it started after so long; whether it was still at work."""
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def content(folder: Path) -> dict[str, str]:
    """Digests of all files of a folder, hidden ones too."""
    return {
        str(one.relative_to(folder)): hashlib.sha256(one.read_bytes()).hexdigest()
        for one in sorted(folder.rglob("*"))
        if one.is_file()
    }


class Training:
    """A tiny supernet on tones; saved every second update, one loader process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.corpus = corpus_of(synthetic(write_tones(folder / "tones", 48)).to_eager())
        self.seconds = finish(lambda: self.train("whole"), folder / "log")
        self.wanted = self.result("whole")

    def train(self, name: str) -> None:
        from dataclasses import replace

        recipe = small_recipe()
        recipe = replace(recipe, training=replace(recipe.training, save_every=2))
        Trainer(
            recipe=recipe, corpus=self.corpus, folder=self.folder / name,
            device=torch.device("cpu"), num_workers=1,
        ).run()  # fmt: skip

    def result(self, name: str) -> object:
        """All losses and the weights' digest."""
        lines = (self.folder / name / METRICS).read_text().splitlines()
        losses = [
            {key: value for key, value in json.loads(line).items() if key != "seconds"}
            for line in lines
        ]
        weights = (self.folder / name / "checkpoint" / "model.safetensors").read_bytes()
        return losses, hashlib.sha256(weights).hexdigest()

    def attempt(self, number: int, chance: random.Random) -> str | None:
        name = f"run{number}"
        for _ in range(chance.randint(1, 2)):
            child = start(lambda: self.train(name), self.folder / "log")
            kill(child, chance.uniform(0, self.seconds))
        finish(lambda: self.train(name), self.folder / "log")
        return None if self.result(name) == self.wanted else "other losses or weights"


class Export:
    """Exports of a tiny checkpoint whose artefacts were lowered once, for that takes a minute."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.checkpoint = folder, save_tiny(folder / "tiny")
        self.log, self.out = folder / "log", folder / "exports" / "device"
        lowered = folder / "lowered"
        finish(lambda: self.export(lowered, (EXECUTORCH, ONNXRUNTIME)), self.log)
        self.files = {one.name: one.read_bytes() for one in lowered.iterdir()}
        self.seconds = finish(lambda: self.quickly(ONNXRUNTIME), self.log)

    def export(self, out: Path, runtimes: tuple[str, ...]) -> None:
        profile = load_profile("pixel8")
        budget = budget_for(profile, latency_ms=1000.0)
        pipeline.export(
            Request(
                profile=profile, budget=budget, checkpoint=self.checkpoint, out=out,
                runtimes=runtimes, command="export",
            )  # pyright: ignore[reportArgumentType]
        )  # fmt: skip

    def quickly(self, runtime: str) -> None:
        pipeline.write_all = lambda jobs: (  # pyright: ignore[reportAttributeAccessIssue]
            Written(file=one.file, content=self.files[one.file], delegation=None, seconds=0.0)
            for one in jobs
        )
        self.export(self.out, (runtime,))

    def attempt(self, number: int, chance: random.Random) -> str | None:
        runtimes = (EXECUTORCH, ONNXRUNTIME)
        before = self.found()
        children = [start(lambda: self.quickly(runtimes[number % 2]), self.log)]
        if number % 5 == 0:
            children.append(start(lambda: self.quickly(runtimes[1 - number % 2]), self.log))
        kill(children[0], chance.uniform(0, 1.1 * self.seconds))
        status = [os.waitstatus_to_exitcode(os.waitpid(one, 0)[1]) for one in children[1:]]
        recover(self.out)
        after = self.found()
        if any(status):
            return f"the other export ended with {status}"
        if after not in [{file_name(one, "features", "fp32")} for one in runtimes]:
            return f"models {after}, before {before}"
        beside = [one.name for one in self.out.parent.iterdir()]
        return None if beside == [self.out.name] else f"left beside it: {beside}"

    def found(self) -> set[str]:
        """The models of the export, which is complete and as its manifest says."""
        manifest = json.loads((self.out / MANIFEST).read_text("utf-8"))
        stated = {name: entry["sha256"] for name, entry in manifest["files"].items()}
        there = content(self.out)
        del there[MANIFEST]
        if there != stated:
            return {"mixed", *there}
        return {name for name in there if name.endswith((".pte", ".onnx"))}


class Prepare:
    """A miniature of LibriSpeech."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source = folder, librispeech(folder / "source")
        self.seconds = finish(lambda: self.prepare("whole"), folder / "log")
        self.wanted = content(folder / "whole")

    def prepare(self, name: str) -> None:
        prepare(
            Preparation(
                corpus="librispeech",
                source=self.source,
                out=self.folder / name,
                parts=PARTS,
                num_pieces=24,
            )
        )

    def attempt(self, number: int, chance: random.Random) -> str | None:
        name = f"out{number}"
        for _ in range(chance.randint(1, 3)):
            child = start(lambda: self.prepare(name), self.folder / "log")
            kill(child, chance.uniform(0, self.seconds))
        finish(lambda: self.prepare(name), self.folder / "log")
        return None if content(self.folder / name) == self.wanted else "other files"


KINDS = {"training": Training, "export": Export, "prepare": Prepare}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.robustness")
    for name, count in (("training", 20), ("export", 50), ("prepare", 20), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=count)
    wanted = parser.parse_args()
    # A forked child would wait for ever for the threads that its parent had.
    torch.set_num_threads(1)
    failures = 0
    for name, kind in KINDS.items():
        count, chance = getattr(wanted, name), random.Random(f"{name} {wanted.seed}")
        if count == 0:
            continue
        with tempfile.TemporaryDirectory() as folder:
            tried = kind(Path(folder))
            found = [tried.attempt(number, chance) for number in range(count)]
        wrong = {number: one for number, one in enumerate(found) if one is not None}
        print(f"{name}: {count} killed, {len(wrong)} failed", *wrong.items(), flush=True)
        failures += len(wrong)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
