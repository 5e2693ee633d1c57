"""Models that nobody vouches for, run in a process of their own.

The runtimes execute what a file says, and a damaged one can crash them, or ask for any amount of
memory or time. Where no manifest states a file's digest, it is loaded and run in a child with
limits, and what happens to the child is a clear line here. Arrays go through pipes as safetensors;
nothing is pickled.
"""

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ortho_edge.cli import UserError
from ortho_export.facts import AUDIO_IN, FRAMES_PER_SECOND, Facts

BEGIN_SECONDS, LOAD_SECONDS = 120.0, 20.0
"""Most time for imports, and for loading."""
RUN_SECONDS, PER_SECOND = 20.0, 5.0
"""Most time for a run, and besides for each second of audio in it."""
LOAD_BYTES, RUN_BYTES, PER_BYTE = 2**30, 2**34, 8
"""Most memory for loading and for running, and besides for each byte of the file."""
LONGEST_MESSAGE = 2**31
SAMPLES_PER_FRAME = 160
REFUSED, FAILED, SAID = "refused", "failed", "said"


class IsolatedModel:
    """A model in a child process.

    Attributes:
        facts: What it says of itself.
    """

    def __init__(self, path: Path, threads: int) -> None:
        """Starts the child and loads the model in it.

        Args:
            path: A `.pte`, `.onnx` or `.ort` file.
            threads: Of the child.

        Raises:
            UserError: The file is damaged or no artefact of this project.
        """
        self.path = path
        # The modules are those of this process, wherever it found them.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._child = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                __name__,
                str(path.resolve()),
                str(threads),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        self._end = weakref.finalize(self, _end, self._child)
        with self._at_most(BEGIN_SECONDS):
            self._hear()
        with self._at_most(LOAD_SECONDS):
            _, constants = self._hear()
        try:
            self.facts = Facts.parse(constants)
        except ValueError as error:
            raise UserError(f"{path} is no artefact of this project: {error}") from error

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """The outputs for some inputs, as the loader's own function takes and returns them.

        Raises:
            UserError: The model fails on them.
        """
        length = inputs[0].size if self.facts.input == AUDIO_IN else inputs[0].shape[:2]
        frames = float(np.prod(length)) / (SAMPLES_PER_FRAME if self.facts.input == AUDIO_IN else 1)
        with self._at_most(RUN_SECONDS + PER_SECOND * frames / FRAMES_PER_SECOND):
            try:
                _send(_stream(self._child.stdin), _named(inputs))
            except OSError:
                self._gone()
            outputs, _ = self._hear()
        return [outputs[name] for name in sorted(outputs)]

    def _hear(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        try:
            arrays, texts = _receive(_stream(self._child.stdout))
        except (EOFError, OSError, ValueError, SafetensorError):
            self._gone()
        if REFUSED in texts:
            raise UserError(texts[REFUSED])
        if FAILED in texts:
            raise failure(self.path, texts[FAILED])
        return arrays, texts

    def _gone(self) -> NoReturn:
        """Says why the child is no more.

        Raises:
            UserError: Always.
        """
        self._child.kill()
        status = self._child.wait()
        if self._late:
            how = "takes far too long"
        elif status < 0:
            how = f"crashes the runtime ({signal.Signals(-status).name})"
        else:
            how = "ends the runtime"
        raise UserError(f"{self.path} {how}: it is damaged, or no artefact of this project")

    @contextmanager
    def _at_most(self, seconds: float) -> Iterator[None]:
        """Kills the child after so many seconds."""
        self._late = False

        def late() -> None:
            self._late = True
            self._child.kill()

        timer = threading.Timer(seconds, late)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def failure(path: Path, what: object) -> UserError:
    """What a runtime's exception means to the user."""
    return UserError(f"{path} cannot be used, it may be damaged: {what}")


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            stream.close()


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _named(arrays: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
    return {f"{index:02d}": np.ascontiguousarray(one) for index, one in enumerate(arrays)}


def _send(
    stream: IO[bytes], arrays: Mapping[str, np.ndarray], texts: Mapping[str, str] | None = None
) -> None:
    # The format knows no file without tensors.
    content = save({**arrays, "_": np.zeros(1, np.uint8)}, metadata=dict(texts or {"_": ""}))
    stream.write(struct.pack("<Q", len(content)) + content)
    stream.flush()


def _receive(stream: IO[bytes]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and texts of a message.

    Raises:
        EOFError: There is none any more.
        ValueError: It is none.
    """
    head = stream.read(8)
    if len(head) < 8:
        raise EOFError
    (length,) = struct.unpack("<Q", head)
    if length > LONGEST_MESSAGE:
        raise ValueError("too long a message")
    content = stream.read(length)
    if len(content) < length:
        raise EOFError
    arrays = load(content)
    del arrays["_"]
    return arrays, _texts(content)


def _texts(content: bytes) -> dict[str, str]:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]).get("__metadata__", {})


def main() -> None:
    """The child: loads the file that is named and answers until nobody asks any more."""
    path, threads = Path(sys.argv[1]), int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "wb")
    # What native code prints is no answer.
    os.dup2(2, 1)
    from ortho_export import executorch, onnx

    loader = executorch if path.suffix == executorch.SUFFIX else onnx
    loader.import_runtime()
    _send(answers, {})
    begin, size = _address_space(), PER_BYTE * path.stat().st_size
    _limit(begin + LOAD_BYTES + size, begin + RUN_BYTES + size)
    texts, forward = {}, None
    try:
        facts, forward = loader.load(path, threads)
        texts = {name: str(value) for name, value in facts.constants().items()}
    except UserError as error:
        texts = {REFUSED: str(error)}
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes of a runtime
        texts = {FAILED: f"{type(error).__name__}: {error}"}
    _send(answers, {}, texts)
    _limit(begin + RUN_BYTES + size, begin + RUN_BYTES + size)
    while forward is not None:
        try:
            inputs, _ = _receive(sys.stdin.buffer)
        except EOFError:
            return
        outputs, texts = {}, {SAID: ""}
        try:
            found = forward(*(inputs[name] for name in sorted(inputs)))
            outputs = _named(found if isinstance(found, tuple) else (found,))
        except UserError as error:
            texts = {REFUSED: str(error)}
        except Exception as error:  # noqa: BLE001 - likewise
            texts = {FAILED: f"{type(error).__name__}: {error}"}
        _send(answers, outputs, texts)


def _address_space() -> int:
    sizes = Path("/proc/self/statm")
    return int(sizes.read_text().split()[0]) * resource.getpagesize() if sizes.exists() else 0


def _limit(soft: int, hard: int) -> None:
    """Bounds memory where the system tells how much there is already."""
    if Path("/proc/self/statm").exists():
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
