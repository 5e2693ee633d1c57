"""What an artefact really costs on this host: latency, memory and file size, against a budget."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from ortho_edge.cli import UserError
from ortho_edge.data.features import FRAME_SHIFT, NUM_BINS
from ortho_edge.devices.host import host_hardware
from ortho_edge.devices.profile import Budget
from ortho_edge.devices.timing import pinned, time_in_turns
from ortho_export import executorch, onnx
from ortho_export.artefact import Recognizer
from ortho_export.facts import AUDIO_IN, FRAMES_PER_SECOND, Facts

TIMING_SECONDS = 5.0
"""At most, for all artefacts together; with little noise the timing ends sooner."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """A latency that was observed on this host.

    Attributes:
        milliseconds: Minimum over turns, CPU time of one thread.
        p50_milliseconds: Median of all calls, which the budget limits.
        seconds: Length of the utterance.
        where: Processor and day.
        spread_percent: How far two halves of the measurement differ.
    """

    milliseconds: float
    seconds: float
    runtime: str
    where: str
    spread_percent: float
    p50_milliseconds: float


def measure_latency(
    recognizers: Mapping[str, Recognizer], seconds: float, limit_seconds: float = TIMING_SECONDS
) -> tuple[Latency, ...]:
    """Times artefacts on `seconds` of audio; features are made before, or inside the artefact.

    Args:
        recognizers: Artefacts by runtime, loaded with one thread.
        seconds: Length of the utterance.
        limit_seconds: Of the measurement.
    """
    frames = round(seconds * FRAMES_PER_SECOND)
    inputs = {runtime: _noise(frames, one.takes_audio) for runtime, one in recognizers.items()}
    calls = {
        runtime: lambda one=one, batch=inputs[runtime]: one.encode_batch(
            batch, torch.tensor([batch.shape[1]])
        )
        for runtime, one in recognizers.items()
    }
    with pinned():
        timings = time_in_turns(calls, limit_seconds=limit_seconds)
    where = f"{host_hardware().soc.value}, {datetime.now(UTC).date().isoformat()}"
    return tuple(
        Latency(
            milliseconds=timing.milliseconds,
            seconds=seconds,
            runtime=runtime,
            where=where,
            spread_percent=timing.spread_percent,
            p50_milliseconds=timing.median_milliseconds,
        )
        for runtime, timing in timings.items()
    )


def _noise(frames: int, audio: bool) -> torch.Tensor:
    """One utterance of features or audio; noise, for zeros may run faster."""
    shape = (1, frames * FRAME_SHIFT) if audio else (1, frames, NUM_BINS)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def load_program(path: Path) -> Callable[[np.ndarray], object]:
    """What runs a program on features (1, T, bins), for a process that measures memory.

    A program of audio runs on as many frames of it.
    """
    facts, forward = executorch.load(path, threads=1)
    return lambda features: forward(_as_input(features, facts))


def load_model(path: Path) -> Callable[[np.ndarray], object]:
    """What runs an ONNX model on features (1, T, bins), for a process that measures memory.

    A model of audio runs on as many frames of it.
    """
    facts, forward = onnx.load(path, threads=1)

    def run(features: np.ndarray) -> object:
        batch = _as_input(features, facts)
        return forward(batch, np.array([batch.shape[1]]))

    return run


def _as_input(features: np.ndarray, facts: Facts) -> np.ndarray:
    if facts.input != AUDIO_IN:
        return features
    return _noise(features.shape[1], audio=True).numpy()


def check_budget(
    budget: Budget,
    files: Sequence[Path],
    params: int,
    latency_ms: Mapping[str, float] | None = None,
    memory_mb: Mapping[str, float] | None = None,
    planned_mb: float | None = None,
) -> None:
    """Checks artefacts against every limit of a budget that was measured.

    Args:
        budget: The limits.
        files: The artefacts.
        params: Parameters of the encoder inside.
        latency_ms: By runtime, as far as it was checked for the device of the budget.
        memory_mb: Peak memory by runtime, measured on the device of the budget.
        planned_mb: Memory that the ExecuTorch program plans, a part of what it needs anywhere.

    Raises:
        UserError: A limit is exceeded; names all that are.
    """
    measured = [
        *((f"file size of {one.name} (MB)", size_mb(one), budget.size_mb) for one in files),
        ("parameters", float(params), budget.params),
        *(
            (f"latency of {runtime} (ms)", value, budget.latency_ms)
            for runtime, value in (latency_ms or {}).items()
        ),
        *(
            (f"memory of {runtime} (MB)", value, budget.memory_mb)
            for runtime, value in (memory_mb or {}).items()
        ),
        ("planned memory (MB)", planned_mb or 0.0, budget.memory_mb),
    ]
    broken = [
        f"{name} {value:.6g}, limit {limit:.6g}"
        for name, value, limit in measured
        if limit is not None and value > limit
    ]
    if broken:
        raise UserError(
            f"nothing is written, for the artefact exceeds its budget: {'; '.join(broken)}"
        )


def size_mb(path: Path) -> float:
    """Size of a file in MB of 10^6 bytes."""
    return path.stat().st_size / 1e6
