"""What computes the cost tables of the profiles that ship: `make profiles`.

Facts about a device, with their sources, and its budget stand in its file. What the roofline needs
besides, and whose instruction counts replace it, stands here; `cores/` holds the profile that the
command `profile --on CORE --out FILE` made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ortho_edge.atomic import write_atomically
from ortho_edge.devices.catalogue import profile_text, read_profile, shipped_folder
from ortho_edge.devices.counted import USUAL_SPEEDS
from ortho_edge.devices.profile import AssumedSpeed, DeviceProfile
from ortho_edge.devices.roofline import (
    BROWSER,
    LARGE,
    MEDIUM,
    SMALL,
    Overhead,
    analytic_runtimes,
    with_counts,
)
from ortho_edge.precision import Precision

HEADER = """\
# Nobody measured this device. `make profiles` wrote its runtimes, from the hardware below.
# docs/devices.md explains the form.
"""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Instruction counts in place of ExecuTorch's roofline.

    Attributes:
        core: Where they were counted.
        speed: What makes time of them.
        note: What else to know of them.
        precisions: Of the programs that the device executes as the core does.
    """

    core: str
    speed: AssumedSpeed
    note: str = ""
    precisions: tuple[Precision, ...] = ("fp32", "int8")


def _a53_counts(clock_ghz: float, source: str) -> Counts:
    return Counts(
        core="cortex-a76",
        speed=AssumedSpeed(
            instructions_per_cycle=1.0,
            clock_ghz=clock_ghz,
            source=f"{clock_ghz:g} GHz: {source}; 1 instruction per cycle: a round assumption, as "
            "many as the core starts 128-bit multiply-adds; it can start two, but seldom does "
            "beside vector loads",
        ),
        note="taken over to the Cortex-A53, which executes the same fp32 kernels: on an emulated "
        "one the counts of s015 at 1, 4 and 10 s of audio are the same to the thousand",
        precisions=("fp32",),
    )


OVERHEADS: Mapping[str, Overhead] = {
    "pixel8": LARGE,
    "galaxy-s24": LARGE,
    "galaxy-a54": MEDIUM,
    "galaxy-a12": SMALL,
    "iphone15": LARGE,
    "raspberrypi5": MEDIUM,
    "raspberrypi-zero2w": SMALL,
    "jetson-orin-nano": MEDIUM,
    "x86-laptop": LARGE,
    "browser-wasm": BROWSER,
}
COUNTS: Mapping[str, Counts] = {
    "raspberrypi5": Counts(core="cortex-a76", speed=USUAL_SPEEDS["cortex-a76"]),
    "raspberrypi-zero2w": _a53_counts(1.0, "Raspberry Pi Ltd, Raspberry Pi Zero 2 W product brief"),
    "galaxy-a12": _a53_counts(2.3, "TuttoAndroid, Helio P35, 2018-12"),
}


def cores_folder() -> Path:
    """Profiles of cores whose instructions were counted."""
    return shipped_folder().parent / "cores"


def computed(profile: DeviceProfile) -> DeviceProfile:
    """A shipped profile with its cost tables computed anew from its hardware."""
    runtimes = analytic_runtimes(profile.hardware, OVERHEADS[profile.name])
    if profile.name in COUNTS:
        one = COUNTS[profile.name]
        counted = read_profile(cores_folder() / f"{one.core}.toml")
        dot_product = profile.hardware.core.dot_product
        assert dot_product is not None
        tables = {
            name: {precision: precisions[precision] for precision in one.precisions}
            for name, precisions in counted.runtimes.items()
        }
        runtimes = with_counts(runtimes, tables, one.speed, dot_product, one.note)
    return replace(profile, runtimes=runtimes)


def file_text(profile: DeviceProfile) -> str:
    """The content of the file of a shipped profile."""
    return HEADER + profile_text(profile)


def main() -> None:
    """Writes the files again."""
    for name in OVERHEADS:
        path = shipped_folder() / f"{name}.toml"
        write_atomically(path, file_text(computed(read_profile(path))))


if __name__ == "__main__":
    main()
