"""Facts about a phone or board, parsed from what its system says.

All of it is somebody else's text: it becomes values of a profile and nothing else.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ortho_edge.cli import UserError
from ortho_edge.devices.catalogue import HOST
from ortho_edge.devices.profile import Core, Hardware, NumberFact, TextFact

LONGEST_TEXT = 80
PROFILE_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9_-]*")
NOTABLE = ("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme")
"""Features of a core that kernels of the runtimes choose by."""
ARM = 0x41
ARM_CORES = {
    0xD03: "Cortex-A53", 0xD04: "Cortex-A35", 0xD05: "Cortex-A55", 0xD07: "Cortex-A57",
    0xD08: "Cortex-A72", 0xD09: "Cortex-A73", 0xD0A: "Cortex-A75", 0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1", 0xD0D: "Cortex-A77", 0xD40: "Neoverse-V1", 0xD41: "Cortex-A78",
    0xD44: "Cortex-X1", 0xD46: "Cortex-A510", 0xD47: "Cortex-A710", 0xD48: "Cortex-X2",
    0xD49: "Neoverse-N2", 0xD4B: "Cortex-A78C", 0xD4D: "Cortex-A715", 0xD4E: "Cortex-X3",
    0xD4F: "Neoverse-V2", 0xD80: "Cortex-A520", 0xD81: "Cortex-A720", 0xD82: "Cortex-X4",
    0xD85: "Cortex-X925", 0xD87: "Cortex-A725",
}  # fmt: skip
"""By the part number that a core states; other makers' cores are named by their numbers."""
ANDROID_NAMES = (
    ("ro.product.manufacturer", "ro.product.model"),
    ("ro.soc.manufacturer", "ro.soc.model"),
)
"""Properties that name the device and its SoC; the latter exist since Android 12."""
HOTTEST_POSSIBLE = 150.0


@dataclass(frozen=True, kw_only=True)
class Clock:
    """What the system says about one core's clock; None where it says nothing.

    Attributes:
        most_ghz: That the core can do.
        allowed_ghz: That it may do now; lower when it is throttled.
        governor: Decides about it.
    """

    most_ghz: float | None = None
    allowed_ghz: float | None = None
    governor: str | None = None


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Clocks and heat at one moment.

    Attributes:
        clocks: By the core's number.
        celsius: Of the hottest sensor.
    """

    clocks: Mapping[int, Clock] = field(default_factory=dict)
    celsius: float | None = None

    def describe(self, core: int) -> str:
        """Clock and heat of a core in words."""
        clock = self.clocks.get(core, Clock())
        allowed = "unknown" if clock.allowed_ghz is None else f"{clock.allowed_ghz:g} GHz"
        heat = "unknown" if self.celsius is None else f"{self.celsius:.0f} C"
        return f"clock at most {allowed}, hottest sensor {heat}"


def checked_name(name: str) -> str:
    """The name, if a profile can have it.

    Raises:
        UserError: It cannot.
    """
    if PROFILE_NAME.fullmatch(name) is None or name == HOST:
        raise UserError(f"--name must be letters, digits, - and _, and not {HOST}, but is {name!r}")
    return name


@dataclass(frozen=True, kw_only=True)
class Board:
    """A device.

    Attributes:
        model: Maker and name.
        soc: What computes there.
        system: Kernel or Android version.
        cores: Name by the core's number.
        features: By the core's number, those of `NOTABLE`.
        condition: When it was asked.
    """

    model: str
    soc: TextFact
    system: str
    cores: Mapping[int, str]
    features: Mapping[int, tuple[str, ...]]
    ram_gb: float | None
    condition: Condition

    def fastest(self) -> int:
        """The core with the highest clock, of equals the last; the last where no clock is told."""

        def rank(core: int) -> tuple[float, int]:
            return self.condition.clocks.get(core, Clock()).most_ghz or 0.0, core

        return max(self.cores, key=rank)

    def chosen(self, core: int | None) -> int:
        """The core that is asked for, else the fastest.

        Raises:
            UserError: There is no such core.
        """
        if core is None:
            return self.fastest()
        if core not in self.cores:
            known = ", ".join(f"{number} ({name})" for number, name in self.cores.items())
            raise UserError(f"{self.model} has no core {core}; it has: {known}")
        return core

    def profile_name(self, name: str | None) -> str:
        """The name that is asked for, else one made of the model's.

        Raises:
            UserError: A profile cannot have it.
        """
        if name is None:
            name = re.sub("[^a-z0-9]+", "-", self.model.lower()).strip("-")
        return checked_name(name)

    def hardware(self, core: int) -> Hardware:
        """The facts for a profile whose costs are for a core."""
        kinds = Counter(self._kind(one) for one in self.cores)
        return Hardware(
            soc=self.soc,
            runs_on=_core_name(self._kind(core)),
            cores=tuple(
                Core(
                    name=_core_name((name, ghz)),
                    count=count,
                    source="/proc/cpuinfo, cpufreq",
                    clock_ghz=ghz,
                    simd_bits=128,
                )
                for (name, ghz), count in kinds.items()
            ),
            ram_gb=None
            if self.ram_gb is None
            else NumberFact(value=self.ram_gb, source="MemTotal of /proc/meminfo"),
        )

    def _kind(self, core: int) -> tuple[str, float | None]:
        return self.cores[core], self.condition.clocks.get(core, Clock()).most_ghz


def _core_name(kind: tuple[str, float | None]) -> str:
    name, ghz = kind
    return name if ghz is None else f"{name} at {ghz:g} GHz"


def plain(text: str) -> str:
    """One line of printable ASCII of a decent length."""
    kept = "".join(one if " " <= one <= "~" else " " for one in text)
    return " ".join(kept.split())[:LONGEST_TEXT].strip()


def parse_board(
    *,
    cpuinfo: str,
    meminfo: str,
    condition: Condition,
    properties: str,
    tree_model: str,
    kernel: str,
) -> Board:
    """A device from what its system says.

    Args:
        cpuinfo: `/proc/cpuinfo`.
        meminfo: `/proc/meminfo`.
        condition: Of its cores.
        properties: What Android's `getprop` prints; empty elsewhere.
        tree_model: `/proc/device-tree/model`; empty where there is none.
        kernel: What `uname -sr` prints.

    Raises:
        ValueError: It names no core.
    """
    cores, features = _cores(cpuinfo)
    if not cores:
        raise ValueError("/proc/cpuinfo names no core")
    said = dict(re.findall(r"^\[([\w.]+)\]: \[(.*)\]\r?$", properties, re.MULTILINE))
    product, soc = (plain(" ".join(said.get(one, "") for one in names)) for names in ANDROID_NAMES)
    board = plain(tree_model)
    release = plain(said.get("ro.build.version.release", ""))
    if soc:
        fact = TextFact(value=soc, source="getprop ro.soc.model")
    elif said.get("ro.board.platform"):
        fact = TextFact(value=plain(said["ro.board.platform"]), source="getprop ro.board.platform")
    elif board:
        fact = TextFact(value=f"of {board}", source="/proc/device-tree/model")
    else:
        fact = TextFact(value="unknown", source="the system does not tell")
    return Board(
        model=product or board or "unknown Arm device",
        soc=fact,
        system=f"Android {release}, {plain(kernel)}" if release else plain(kernel),
        cores=cores,
        features=features,
        ram_gb=_ram_gb(meminfo),
        condition=condition,
    )


def parse_condition(text: str) -> Condition:
    """Clocks and heat from lines of a path and what the file there says."""
    clocks: dict[int, dict[str, str]] = {}
    for core, name, value in re.findall(r"cpu(\d+)/cpufreq/(\w+) (.*)$", text, re.MULTILINE):
        clocks.setdefault(int(core), {})[name] = plain(value)
    degrees = [int(one) / 1000 for one in re.findall(r"/temp (-?\d{1,9})\r?$", text, re.MULTILINE)]
    # Some sensors say nonsense when they are off.
    sane = [one for one in degrees if 0 < one < HOTTEST_POSSIBLE]
    return Condition(
        clocks={
            core: Clock(
                most_ghz=_ghz(values.get("cpuinfo_max_freq")),
                allowed_ghz=_ghz(values.get("scaling_max_freq")),
                governor=values.get("scaling_governor") or None,
            )
            for core, values in clocks.items()
        },
        celsius=max(sane, default=None),
    )


def _cores(cpuinfo: str) -> tuple[dict[int, str], dict[int, tuple[str, ...]]]:
    """Names and features by the core's number."""
    cores, features = {}, {}
    for paragraph in re.split(r"^(?=processor\s*:)", cpuinfo, flags=re.MULTILINE):
        said = dict(re.findall(r"^([\w ]+?)\s*:[ \t]*(.*)$", paragraph, re.MULTILINE))
        number = said.get("processor", "")
        if not re.fullmatch(r"\d{1,4}", number):
            continue
        implementer, part = (_hex(said.get(one)) for one in ("CPU implementer", "CPU part"))
        known = ARM_CORES.get(part) if implementer == ARM else None
        cores[int(number)] = known or f"core {part:#x} of maker {implementer:#x}"
        listed = said.get("Features", "").split()
        features[int(number)] = tuple(one for one in NOTABLE if one in listed)
    return cores, features


def _hex(text: str | None) -> int:
    found = re.fullmatch(r"0x([0-9a-fA-F]{1,4})", (text or "").strip())
    return int(found[1], 16) if found else 0


def _ghz(kilohertz: str | None) -> float | None:
    if kilohertz is None or not re.fullmatch(r"[1-9]\d{0,8}", kilohertz):
        return None
    return float(f"{int(kilohertz) / 1e6:.4g}")


def _ram_gb(meminfo: str) -> float | None:
    found = re.search(r"^MemTotal:\s*([1-9]\d{0,11}) kB", meminfo, re.MULTILINE)
    return round(int(found[1]) * 1024 / 1e9, 2) if found else None
