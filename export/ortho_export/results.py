"""What an export is asked for and what it finds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ortho_edge.cli import UserError
from ortho_edge.devices.catalogue import HOST
from ortho_edge.devices.filter_banks import Input
from ortho_edge.devices.profile import Budget, DeviceProfile
from ortho_edge.fleet import Source
from ortho_edge.precision import BY_DEFAULT, Asked, Precision
from ortho_edge.selector import Selection
from ortho_export.accuracy import Accuracy, DevSet
from ortho_export.auto import Choice
from ortho_export.checks import Check
from ortho_export.ethos_u.compiled import Compiled
from ortho_export.executorch import Delegation
from ortho_export.facts import FEATURES_IN, Facts
from ortho_export.fidelity import Fidelity
from ortho_export.measure import Latency
from ortho_export.parity import Parity

EXECUTORCH, ONNXRUNTIME, ETHOS_U = "executorch", "onnxruntime", "ethos-u"
FILES = {EXECUTORCH: "model.pte", ONNXRUNTIME: "model.onnx"}
"""The fp32 artefact of each runtime that takes features."""


def file_name(runtime: str, takes: str = FEATURES_IN, precision: Precision = "fp32") -> str:
    """The file of an artefact, such as `model.audio.int8.onnx`; features and fp32 go unsaid."""
    stem, suffix = FILES[runtime].split(".")
    parts = [stem, *([] if takes == FEATURES_IN else [takes])]
    return ".".join([*parts, *([] if precision == "fp32" else [precision]), suffix])


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
        precision: Of every artefact; `auto` leaves it to `ortho_export.auto`.
        dev_set: Labelled speech that error rates are measured on.
        command: For the manifest.
    """

    profile: DeviceProfile
    budget: Budget
    checkpoint: Path
    out: Path
    runtimes: tuple[str, ...] = (EXECUTORCH, ONNXRUNTIME)
    precision: Asked = "fp32"
    dev_set: DevSet | None = None
    command: str = ""
    subnet: Source = "trained"
    input: Input = "features"
    also: tuple[str, ...] = ()

    def file(self, runtime: str, precision: Precision) -> str:
        """Name of the artefact of a runtime in a precision."""
        return file_name(runtime, self.input, precision)

    @property
    def tries(self) -> list[tuple[str, Precision]]:
        """Every runtime with every precision to write; all but one of a runtime go again."""
        if self.runtimes == (ETHOS_U,):
            return []
        precisions = BY_DEFAULT if self.precision == "auto" else (self.precision,)
        return [(runtime, one) for runtime in self.runtimes for one in precisions]

    @property
    def is_for_this_host(self) -> bool:
        """Whether what is measured here is measured on the device."""
        return self.profile.name == HOST


def check_together(request: Request) -> None:
    """Whether what is asked for goes together.

    Raises:
        UserError: It does not; says why.
    """
    if request.precision == "auto" and request.dev_set is None:
        raise UserError(
            "precision auto compares word error rates; name labelled speech with --dev-set, a "
            "RECIPE/SET such as digits/dev or a folder with transcripts.tsv and "
            "audio/<utterance>.flac"
        )
    if request.also and request.precision != "fp32":
        raise UserError(
            f"{', '.join(request.also)} are written from the fp32 encoder; precision "
            f"{request.precision} is for the runtimes alone"
        )
    if request.input != FEATURES_IN and request.precision not in (*BY_DEFAULT, "auto"):
        raise UserError(
            f"precision {request.precision} was tried with features alone; input {request.input} "
            f"goes with precision {', '.join(BY_DEFAULT)}"
        )
    if request.dev_set is not None and request.input != FEATURES_IN:
        raise UserError(
            f"error rates on --dev-set are measured with features as input, not {request.input}"
        )


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was exported and found.

    Attributes:
        selection: The chosen subnet and why.
        facts: What the artefacts say about themselves.
        precisions: Of the artefacts, by runtime.
        params: Parameters of the encoder.
        flops: For `ortho_edge.components.REFERENCE_SECONDS` of audio.
        flops_share: Of the full network.
        sizes_mb: Of each artefact, by runtime, like `parity`, `fidelity` and `memory_mb`.
        parity: Of fp32 artefacts.
        fidelity: Of quantised artefacts.
        latency: Measured on this host.
        memory_mb: Measured peak, where this host is the device.
        delegation: How XNNPACK took the program; None where none was made.
        accuracy: Error rates, where there was a development set.
        checks: Latency as predicted and as found, for the device.
        choices: Why each runtime got its precision, where that was left to `auto`.
        compiled: Where the device is an Ethos-U: its program, which nothing here can run.
    """

    request: Request
    selection: Selection
    facts: Facts
    precisions: Mapping[str, Precision]
    params: int
    flops: float
    flops_share: float
    sizes_mb: Mapping[str, float]
    parity: Mapping[str, Parity]
    latency: tuple[Latency, ...]
    fidelity: Mapping[str, Fidelity] = field(default_factory=dict)
    memory_mb: Mapping[str, float] = field(default_factory=dict)
    delegation: Delegation | None = None
    accuracy: Accuracy | None = None
    choices: tuple[Choice, ...] = ()
    checks: tuple[Check, ...] = ()
    compiled: Compiled | None = None

    def file(self, runtime: str) -> str:
        """Name of the artefact of a runtime."""
        return self.request.file(runtime, self.precisions[runtime])
