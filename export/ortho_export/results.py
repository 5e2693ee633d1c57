"""What an export is asked for and what it finds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ortho_edge.devices.catalogue import HOST
from ortho_edge.devices.profile import Budget, DeviceProfile
from ortho_edge.fleet import Source
from ortho_edge.selector import Selection
from ortho_export.executorch import Delegation
from ortho_export.facts import FEATURES_IN, Facts
from ortho_export.measure import Latency
from ortho_export.parity import Parity

EXECUTORCH, ONNXRUNTIME = "executorch", "onnxruntime"
FILES = {EXECUTORCH: "model.pte", ONNXRUNTIME: "model.onnx"}
"""The artefact of each runtime that takes features."""


def file_name(runtime: str, takes: str = FEATURES_IN) -> str:
    """The file of an artefact, such as `model.audio.onnx`; features go unsaid."""
    stem, suffix = FILES[runtime].split(".")
    return f"{stem}.{suffix}" if takes == FEATURES_IN else f"{stem}.{takes}.{suffix}"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to export.

    Attributes:
        profile: The device.
        budget: Its limits.
        checkpoint: Folder of the checkpoint.
        out: Folder to write; replaced as a whole when it holds an earlier export.
        runtimes: Which artefacts to make.
        subnet: Whether only a trained subnet may be chosen.
        input: What every artefact takes: features or audio.
        also: Targets besides the runtimes, see `ortho_export.targets`.
        command: For the manifest.
    """

    profile: DeviceProfile
    budget: Budget
    checkpoint: Path
    out: Path
    runtimes: tuple[str, ...] = (EXECUTORCH, ONNXRUNTIME)
    command: str = ""
    subnet: Source = "trained"
    input: str = FEATURES_IN
    also: tuple[str, ...] = ()

    def file(self, runtime: str) -> str:
        """Name of the artefact of a runtime."""
        return file_name(runtime, self.input)

    @property
    def is_for_this_host(self) -> bool:
        """Whether what is measured here is measured on the device."""
        return self.profile.name == HOST


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was exported and found.

    Attributes:
        selection: The chosen subnet and why.
        facts: What the artefacts say about themselves.
        params: Parameters of the encoder.
        flops: For `ortho_edge.components.REFERENCE_SECONDS` of audio.
        flops_share: Of the full network.
        sizes_mb: Of each artefact, by runtime, like `parity` and `memory_mb`.
        latency: Measured on this host.
        memory_mb: Measured peak, where this host is the device.
        delegation: How XNNPACK took the program; None where none was made.
    """

    request: Request
    selection: Selection
    facts: Facts
    params: int
    flops: float
    flops_share: float
    sizes_mb: Mapping[str, float]
    parity: Mapping[str, Parity]
    latency: tuple[Latency, ...]
    memory_mb: Mapping[str, float] = field(default_factory=dict)
    delegation: Delegation | None = None
