"""What is observed of probes before any fit, and the runtimes whose artefacts they are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ortho_edge.checkpoint import Checkpoint, TrainedSubnet
from ortho_edge.devices.memory import Load
from ortho_edge.devices.probes import Probe
from ortho_edge.devices.timing import Timing

Key = tuple[str, str, float]
"""Key of the runtime, probe, seconds."""
PeakMemory = Callable[[Load, Path, Path, float], float]


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A runtime of this host at one precision.

    Attributes:
        export: Writes the artefact of a subnet into a folder and returns its file.
        load: Returns what maps features (1, T, 80) to anything, on one thread; importable by name.
        planned_bytes: Reads from an artefact how much memory is planned; None where none is.
    """

    name: str
    version: str
    export: Callable[[Checkpoint, TrainedSubnet, Path], Path]
    load: Load
    precision: str = "fp32"
    planned_bytes: Callable[[Path], int] | None = None

    @property
    def key(self) -> str:
        """Tells a runtime at one precision from the same at another."""
        return self.name if self.precision == "fp32" else f"{self.name} {self.precision}"


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Everything that was observed, before any fit."""

    probes: tuple[Probe, ...]
    files: Mapping[tuple[str, str], Path]
    timings: Mapping[Key, Timing]
