"""Running ExecuTorch programs on a machine with the runner, and comparing what they say.

Letters: T frames of 10 ms, T' encoder frames, V vocabulary.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from torch import Tensor

from ortho_edge.decoding import greedy_text
from ortho_edge.precision import precision_of
from ortho_export.arm.machines import Machine
from ortho_export.arm.toolchain import LOADER, RUNNER, Bundle
from ortho_export.artefact import Recognizer, load_artefact
from ortho_export.fidelity import FLOORS_DB, decibels, powers
from ortho_export.parity import FP32_LIMIT, ParityError

ANY_CORE = -1


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one input led to.

    Attributes:
        output: Of the last inference.
        milliseconds: Of every inference; meaningless on an emulated machine.
    """

    output: Float32[np.ndarray, "1 T4 V"]
    milliseconds: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What running a program showed.

    Attributes:
        load_ms: Reading it and packing its weights.
        planned_bytes: Memory planned outside the delegate, for the longest input.
        peak_mb: Peak resident memory of the process; an emulator's own where there is one.
        runs: One per input, in order.
    """

    load_ms: float
    planned_bytes: int
    peak_mb: float
    runs: tuple[Run, ...]


@dataclass(frozen=True, kw_only=True)
class Runner:
    """The runner on a machine."""

    machine: Machine
    command: tuple[str, ...]

    def run(
        self,
        program: Path,
        inputs: Sequence[Float32[np.ndarray, "1 T bins"]],
        *,
        runs: int = 1,
        core: int = ANY_CORE,
    ) -> Report:
        """Runs a program on one thread.

        Args:
            program: A `.pte` file.
            inputs: Its input, each time.
            runs: Inferences for each input.
            core: The processor to stay on.

        Raises:
            MachineError: It cannot run there; says why.
        """
        there = self.machine.put(program, "program.pte")
        pairs = []
        with tempfile.TemporaryDirectory() as folder:
            for index, features in enumerate(inputs):
                file = Path(folder) / f"input-{index}"
                file.write_bytes(np.ascontiguousarray(features, "<f4").tobytes())
                pairs += [
                    self.machine.put(file, file.name), self.machine.path(f"output-{index}")
                ]  # fmt: skip
            said = self.machine.run([*self.command, there, "1", str(core), str(runs), *pairs])
        seen = json.loads(said)
        return Report(
            load_ms=seen["load_ms"],
            planned_bytes=seen["planned_bytes"],
            peak_mb=seen["peak_kb"] * 1024 / 1e6,
            runs=tuple(
                Run(output=self._output(index, one["shape"]), milliseconds=tuple(one["ms"]))
                for index, one in enumerate(seen["inputs"])
            ),
        )

    def _output(self, index: int, shape: Sequence[int]) -> np.ndarray:
        content = self.machine.get(f"output-{index}")
        return np.frombuffer(content, "<f4").reshape(shape)


def install(machine: Machine, bundle: Bundle) -> Runner:
    """Copies the runner and its libraries to a machine."""
    return Runner(machine=machine, command=command_of(machine, bundle, RUNNER))


def command_of(machine: Machine, bundle: Bundle, program: str) -> tuple[str, ...]:
    """Copies one of our programs and the libraries to a machine; what starts it there.

    Args:
        machine: Where it shall run.
        bundle: Has it.
        program: One of `PROGRAMS`.
    """
    there = {file.name: machine.put(file, file.name) for file in bundle.files_for(program)}
    libraries = there[program].rpartition("/")[0]
    return there[LOADER], "--library-path", libraries, there[program]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What a program says on a machine, compared with what it says here.

    Attributes:
        max_abs_error: Largest difference of a log-probability.
        snr_db: Power of the log-probabilities over that of their differences.
        text: The transcript there.
        here: The transcript here. It may be another where two symbols are nearly as likely.
    """

    max_abs_error: float
    snr_db: float
    text: str
    here: str
    report: Report


def compare(
    runner: Runner,
    program: Path,
    features: Float32[Tensor, "T bins"],
    *,
    runs: int = 1,
    core: int = ANY_CORE,
    limit: float = FP32_LIMIT,
) -> Agreement:
    """Runs a program of ours there and here on the same features.

    Quantised programs round by scales that follow from values, so the last digit of a sum decides
    now and then: they are held to the same ratio of signal to noise as against the eager encoder.

    Args:
        runner: On the machine.
        program: A `.pte` file that this package wrote.
        features: Of any speech.
        runs: Inferences.
        core: The processor to stay on there.
        limit: Largest allowed difference of a log-probability, in fp32.

    Raises:
        UserError: The file is no program of ours.
        MachineError: It does not run there.
        ParityError: Log-probabilities differ by too much.
    """
    here: Recognizer = load_artefact(program)
    expected = here.log_probs(features)
    report = runner.run(program, [features[None].numpy()], runs=runs, core=core)
    found = report.runs[0].output[0]
    where = f"{program} on {runner.machine.name}"
    if found.shape != expected.shape:
        raise ParityError(f"{where}: log-probabilities {found.shape}, not {expected.shape}")
    error = float(np.abs(found - expected).max())
    snr_db, precision = decibels(*powers(expected, found)), precision_of(program.name)
    if precision == "fp32" and not error <= limit:
        raise ParityError(f"{where}: a log-probability differs by {error:.3g}, limit {limit:g}")
    if precision != "fp32" and not snr_db >= FLOORS_DB[precision]:
        raise ParityError(
            f"{where}: {snr_db:.1f} dB between what it says there and here, less than the "
            f"{FLOORS_DB[precision]:g} dB that {precision} must keep"
        )
    return Agreement(
        max_abs_error=error,
        snr_db=snr_db,
        text=greedy_text(found, here.tokens),
        here=greedy_text(expected, here.tokens),
        report=report,
    )
