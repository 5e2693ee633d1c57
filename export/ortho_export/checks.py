"""Whether the latency of an artefact holds its budget: by what this machine can find out.

What can be found out depends on the profile. That of this host is measured; one of counted
instructions is counted again on the emulated core; of any other device only the prediction is
known. `way_of` alone decides which, and what cannot be checked is reported with the reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ortho_edge.devices.catalogue import HOST
from ortho_edge.devices.latency import Prediction, runtime_cost
from ortho_edge.devices.profile import COUNTED, AssumedSpeed, DeviceProfile
from ortho_export.facts import FEATURES_IN
from ortho_export.measure import Latency

Way = Literal["measured", "counted", "not checked"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """The latency of one artefact, as predicted and as found.

    Attributes:
        way: How it was found.
        predicted_ms: What the budget was held against when the subnet was chosen.
        found_ms: Median of many calls, or counted instructions at the assumed speed; None where it
            was not checked.
        predicted_instructions: Where they were counted, like `found_instructions`.
        reason: Why it was not checked; empty where it was.
    """

    runtime: str
    way: Way
    predicted_ms: float
    found_ms: float | None = None
    predicted_instructions: float | None = None
    found_instructions: int | None = None
    reason: str = ""

    @property
    def text(self) -> str:
        """In words."""
        if self.found_ms is None:
            return f"not checked: {self.reason}"
        off = f"{100 * (self.predicted_ms / self.found_ms - 1):+.2f} %"
        if self.found_instructions is not None and self.predicted_instructions is not None:
            return (
                f"{self.found_instructions / 1e6:.2f} M instructions counted, "
                f"{self.predicted_instructions / 1e6:.2f} M predicted ({off}): "
                f"{self.found_ms:.2f} ms at the assumed speed"
            )
        return f"{self.found_ms:.2f} ms (p50) measured, {self.predicted_ms:.2f} predicted ({off})"


def way_of(profile: DeviceProfile, runtime: str, precision: str, takes: str) -> tuple[Way, str]:
    """How the latency of an artefact can be checked on this machine, or why it cannot.

    Args:
        profile: The device.
        runtime: Of the artefact, like `precision`.
        precision: Whose figures predicted the latency.
        takes: What the artefact takes, features or audio.
    """
    if profile.name == HOST:
        return "measured", ""
    provenance = runtime_cost(profile, runtime, precision).provenance
    if provenance != COUNTED:
        return "not checked", f"{profile.name} is not this machine, its figures are {provenance}"
    if takes != FEATURES_IN:
        return "not checked", f"instructions are counted for features as input, not {takes}"
    return _emulation(_emulated(profile))


def _emulated(profile: DeviceProfile) -> str:
    """The device's core as QEMU calls it; profiles write names as their makers do."""
    return profile.hardware.runs_on.lower()


def _emulation(core: str) -> tuple[Way, str]:
    """Whether instructions can be counted on a core here."""
    from ortho_export.arm.counts import load_plugin
    from ortho_export.arm.machines import emulated_cores
    from ortho_export.arm.toolchain import MissingToolError, load_bundle

    try:
        if core not in emulated_cores():
            return "not checked", f"the installed QEMU knows no core {core!r}"
        load_plugin()
        load_bundle()
    except MissingToolError as error:
        return "not checked", str(error)
    return "counted", ""


def check_latency(
    profile: DeviceProfile,
    predictions: Sequence[Prediction],
    files: Mapping[str, Path],
    measured: Sequence[Latency],
    takes: str,
) -> tuple[Check, ...]:
    """Checks every artefact as far as this machine can.

    Args:
        profile: The device.
        predictions: Of the latency of each runtime.
        files: The artefacts by runtime.
        measured: On this machine.
        takes: What the artefacts take, features or audio.

    Raises:
        MachineError: A program does not run on the emulated core.
    """
    checks = []
    for one in predictions:
        way, reason = way_of(profile, one.runtime, one.precision, takes)
        if way == "measured":
            found = next(late for late in measured if late.runtime == one.runtime)
            checks.append(
                Check(
                    runtime=one.runtime, way=way, predicted_ms=one.p50_milliseconds,
                    found_ms=found.p50_milliseconds,
                )
            )  # fmt: skip
        elif way == "counted":
            checks.append(_counted(_emulated(profile), one, files[one.runtime]))
        else:
            checks.append(
                Check(
                    runtime=one.runtime, way=way, predicted_ms=one.p50_milliseconds, reason=reason
                )
            )
    return tuple(checks)


def _counted(core: str, prediction: Prediction, file: Path) -> Check:
    speed = prediction.assumed_speed
    assert speed is not None
    found = count_on(core, file, prediction.seconds)
    return Check(
        runtime=prediction.runtime,
        way="counted",
        predicted_ms=prediction.milliseconds,
        found_ms=speed.milliseconds(found),
        predicted_instructions=_instructions(speed, prediction.milliseconds),
        found_instructions=found,
    )


def _instructions(speed: AssumedSpeed, milliseconds: float) -> float:
    return milliseconds / speed.milliseconds(1.0)


def count_on(core: str, file: Path, seconds: float) -> int:
    """Instructions of one inference of a program on `seconds` of audio on an emulated core.

    Raises:
        UserError: There is no such core, a tool is missing, or the program does not run there.
    """
    from ortho_export.arm.counts import counter, noise
    from ortho_export.arm.machines import emulator
    from ortho_export.arm.toolchain import load_bundle

    with emulator(core) as machine:
        return counter(machine, load_bundle())(file, [noise(seconds)])[0]
