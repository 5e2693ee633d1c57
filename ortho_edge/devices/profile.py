"""A device profile: facts about a device, what the parts of an encoder cost on it, default budgets.

The latency of a module is `us_per_call + us_per_mflop * MFLOP + us_per_weight_mb * MB of weights +
us_per_activation_mb * MB of activations`, and that of a network is `scale` times the sum over its
modules, plus `us_per_boundary` for each of them. FLOPs and bytes of a module follow from the
architecture, the kept components and the number of encoder frames T' (see `workload`):
feed-forward modules come out linear in chunks and T', attention linear in heads with a term in T'
squared. So one profile serves every architecture of the family. Every table says how its
figures came about, and from what.

Units: MB is 10^6 bytes, us is microseconds.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

from ortho_edge.devices.shape_tables import ShapeTables

SCHEMA_VERSION = 2

Provenance = Literal["measured", "instruction-count", "vela", "analytic"]
MEASURED: Provenance = "measured"
"""On the device itself."""
COUNTED: Provenance = "instruction-count"
"""Instructions were counted and turned into time by an assumed speed."""
VELA: Provenance = "vela"
"""Cycles and memory that Arm's Vela compiler states, cycles turned into time by a stated clock."""
ANALYTIC: Provenance = "analytic"
"""Computed from public figures."""
DotProduct = Literal["none", "sdot", "i8mm", "vnni"]
"""Instructions for sums of int8 products: Arm's SDOT, its matrix products I8MM, Intel's VNNI."""
Kind = Literal["front_end", "ffn", "conv", "mhsa", "norm", "ctc_head", "filter_banks"]

FILTER_BANKS: Kind = "filter_banks"
"""Of artefacts that take audio; without figures of their own they have those of `ffn`."""
KINDS: tuple[Kind, ...] = ("front_end", "ffn", "conv", "mhsa", "norm", "ctc_head")
"""What every network has, and every table."""
DEFAULT_AUDIO_SECONDS = 5.0
LOWEST, HIGHEST = 1e-6, 1e12
"""Of any figure that divides, and of any at all: products and sums of a few stay finite."""
MOST_SECONDS = 24 * 3600.0
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
"""Of a device: exports and tables are called after it, so it must not lead elsewhere."""


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _positive(name: str, value: float | None) -> None:
    _require(value is None or 0 < value < math.inf, f"{name} must be above 0, not {value}")
    _require(
        value is None or LOWEST <= value <= HIGHEST,
        f"{name} must be from {LOWEST:g} to {HIGHEST:g}, not {value}",
    )


def _not_negative(table: object) -> None:
    for one in fields(table):  # pyright: ignore[reportArgumentType]
        value = getattr(table, one.name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            _require(
                0 <= value < math.inf, f"{one.name} must be finite and at least 0, not {value}"
            )
            _require(value <= HIGHEST, f"{one.name} must be at most {HIGHEST:g}, not {value}")


@dataclass(frozen=True, kw_only=True)
class TextFact:
    """A stated fact in words."""

    value: str
    source: str


@dataclass(frozen=True, kw_only=True)
class NumberFact:
    """A stated number; the unit is in the name of its key."""

    value: float
    source: str

    def __post_init__(self) -> None:
        """Raises ValueError when the value is not above 0."""
        _positive("value", self.value)


@dataclass(frozen=True, kw_only=True)
class Core:
    """One kind of processor core; figures that nobody stated are left out."""

    name: str
    count: int
    source: str
    clock_ghz: float | None = None
    simd_bits: int | None = None
    flops_per_cycle: float | None = None
    """Of fp32, a multiply-accumulate counted as two."""
    dot_product: DotProduct | None = None
    """The best there is; int8 is hardly faster than fp32 on a core with `none`."""

    def __post_init__(self) -> None:
        """Raises ValueError when a figure is not above 0."""
        for name in ("count", "clock_ghz", "simd_bits", "flops_per_cycle"):
            value = getattr(self, name)
            _positive(name, value)

    @property
    def peak_gflops(self) -> float | None:
        """GFLOP/s that the core cannot exceed, where clock and width are known."""
        if self.clock_ghz is None or self.flops_per_cycle is None:
            return None
        return self.clock_ghz * self.flops_per_cycle


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The device."""

    soc: TextFact
    runs_on: str
    """Name of the core that the costs are for; one thread runs there."""
    cores: tuple[Core, ...]
    ram_gb: NumberFact | None = None
    bandwidth_gb_per_s: NumberFact | None = None

    def __post_init__(self) -> None:
        """Raises ValueError when `runs_on` names no core."""
        names = [core.name for core in self.cores]
        _require(
            self.runs_on in names,
            f"runs_on names the unknown core {self.runs_on!r}; known: {', '.join(names)}",
        )

    @property
    def core(self) -> Core:
        """The core that the costs are for."""
        return next(core for core in self.cores if core.name == self.runs_on)


@dataclass(frozen=True, kw_only=True)
class ModuleCost:
    """What one module of a kind costs; a coefficient of 0 means that the term is negligible."""

    us_per_call: float = 0.0
    us_per_mflop: float = 0.0
    us_per_weight_mb: float = 0.0
    us_per_activation_mb: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError when a coefficient is negative or not finite."""
        _not_negative(self)


@dataclass(frozen=True, kw_only=True)
class MemoryCost:
    """Memory that loading and running an artefact adds to a process, at its peak.

    `fixed_mb + weight_copies * MB of weights + activation_copies * MB of live activations`.
    """

    provenance: Provenance
    source: str
    fixed_mb: float
    weight_copies: float
    activation_copies: float
    planned_copies: float = 0.0
    """Of what `ortho_edge.devices.workload.planned_elements` counts: memory that the runtime plans
    ahead for the longest input, which the peak includes; 0 where it plans none."""

    def __post_init__(self) -> None:
        """Raises ValueError when a term is negative or not finite."""
        _not_negative(self)


@dataclass(frozen=True, kw_only=True)
class SizeCost:
    """Size of the artefact's file: parameters, and what the graph takes.

    `bytes_per_parameter * parameters + fixed_kb + kb_per_module * modules + kb_per_layer * linear
    layers`; in a quantised file the weights of linear layers take `bytes_per_weight` instead, and
    each of their outputs `bytes_per_output` more, for scales; those of convolutions take
    `bytes_per_filter`.
    """

    provenance: Provenance
    source: str
    bytes_per_parameter: float
    fixed_kb: float
    kb_per_module: float = 0.0
    kb_per_layer: float = 0.0
    bytes_per_weight: float | None = None
    bytes_per_output: float = 0.0
    bytes_per_filter: float | None = None

    def __post_init__(self) -> None:
        """Raises ValueError when a term is negative or not finite."""
        _not_negative(self)


@dataclass(frozen=True, kw_only=True)
class AssumedSpeed:
    """What turns counted instructions, or Vela's cycles, into time; nobody measured it.

    A latency in us is instructions / (1000 * instructions_per_cycle * clock_ghz), or cycles / (1000
    * clock_ghz).
    """

    clock_ghz: float
    source: str
    instructions_per_cycle: float | None = None
    """Of counted instructions; cycles need none."""

    def __post_init__(self) -> None:
        """Raises ValueError when a figure is not above 0."""
        for name in ("instructions_per_cycle", "clock_ghz"):
            value = getattr(self, name)
            _positive(name, value)

    def milliseconds(self, count: float) -> float:
        """How long that many instructions, or cycles, take at this speed."""
        per_cycle = 1.0 if self.instructions_per_cycle is None else self.instructions_per_cycle
        return count / (1e6 * per_cycle * self.clock_ghz)


@dataclass(frozen=True, kw_only=True)
class RuntimeCost:
    """Cost tables of one runtime at one precision."""

    provenance: Provenance
    """Of the latency; memory and size carry their own."""
    source: str
    """From which figures, or where, when and how it was measured."""
    memory: MemoryCost
    size: SizeCost
    modules: Mapping[Kind, ModuleCost] = field(default_factory=dict)
    """By coefficients; empty where there are tables instead."""
    tables: ShapeTables | None = None
    """By lookup, for one architecture: cycles, and the memory that `memory` then leaves out."""
    scale: float = 1.0
    """Whole networks against the sum of their modules."""
    us_per_boundary: float = 0.0
    """What every module of a whole network takes besides."""
    error_percent: float | None = None
    """Mean absolute error on subnets that were held out of the fit."""
    worst_error_percent: float | None = None
    spread_percent: float | None = None
    """Noise: how much two halves of the same measurement differ."""
    p50_ratio: float | None = None
    """Median of all calls over their minimum, on average; the tables are fitted to minima."""
    rows_at_once: int = 1
    """Rows of a matrix product that the kernels compute together: FLOPs are those of full tiles."""
    assumed_speed: AssumedSpeed | None = None
    """Only of counted instructions and of Vela's cycles; then the errors are those of counts."""

    def __post_init__(self) -> None:
        """Raises ValueError when a kind is missing or unknown, or a figure is out of range."""
        _not_negative(self)
        _require(self.rows_at_once > 0, f"rows_at_once must be above 0, not {self.rows_at_once}")
        _require(self.scale > 0, f"scale must be above 0, not {self.scale}")
        _require(
            self.p50_ratio is None or self.p50_ratio >= 1,
            f"p50_ratio must be at least 1, not {self.p50_ratio}",
        )
        _require(
            self.tables is None or self.provenance == VELA,
            f"tables belong to the provenance {VELA!r}",
        )
        by_kind = self.modules if self.tables is None else self.tables.modules
        for kind in (*self.modules, *by_kind):
            known = (*KINDS, FILTER_BANKS)
            _require(kind in known, f"unknown module kind {kind!r}; known: {', '.join(known)}")
        for kind in KINDS:
            _require(kind in by_kind, f"the table modules.{kind} is missing")
        _require(
            self.provenance == ANALYTIC or self.error_percent is not None,
            f"a table of provenance {self.provenance!r} states error_percent",
        )
        speed = self.assumed_speed
        _require(
            (self.provenance in (COUNTED, VELA)) == (speed is not None),
            f"assumed_speed belongs to the provenances {COUNTED!r} and {VELA!r}",
        )
        _require(
            speed is None
            or (self.provenance == COUNTED) == (speed.instructions_per_cycle is not None),
            f"instructions_per_cycle belongs to the provenance {COUNTED!r}",
        )


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits that a deployment must respect; None is no limit. A value may equal its limit."""

    latency_ms: float | None = None
    audio_seconds: float = DEFAULT_AUDIO_SECONDS
    """Length of the audio that latency and memory are for."""
    memory_mb: float | None = None
    size_mb: float | None = None
    params: float | None = None
    flops: float | None = None
    """For `audio_seconds` of audio, a multiply-accumulate counted as two."""

    def __post_init__(self) -> None:
        """Raises ValueError when a limit is not above 0."""
        for one in fields(Budget):
            value = getattr(self, one.name)
            _require(value is None or value > 0, f"{one.name} must be above 0, not {value}")
        _require(
            self.audio_seconds < math.inf, f"audio_seconds must be finite, not {self.audio_seconds}"
        )
        _require(
            self.audio_seconds <= MOST_SECONDS,
            f"audio_seconds must be at most {MOST_SECONDS:g}, not {self.audio_seconds}",
        )
        for one in fields(Budget):
            value = getattr(self, one.name)
            _positive(one.name, None if value == math.inf else value)  # which lifts a limit


@dataclass(frozen=True, kw_only=True)
class DefaultBudget(Budget):
    """The budget of a device where the user names none."""

    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class DeviceProfile:
    """A device's cost model with its provenance."""

    schema_version: int
    name: str
    description: str
    hardware: Hardware
    budget: DefaultBudget
    runtimes: Mapping[str, Mapping[str, RuntimeCost]]
    """Runtime (`executorch`, `onnxruntime`), then precision (`fp32`)."""

    def __post_init__(self) -> None:
        """Raises ValueError when a name is none, there is no runtime, or one beats its core."""
        _require(
            NAME.fullmatch(self.name) is not None,
            f"name must be at most 100 letters, digits, '-', '_' and '.', and begin with neither "
            f"'-' nor '.', not {self.name[:120]!r}",
        )
        _require(bool(self.runtimes), "no runtime has a cost table")
        peak = self.hardware.core.peak_gflops
        for runtime, precisions in self.runtimes.items():
            _require(bool(precisions), f"runtime {runtime!r} has no precision")
            for precision, costs in precisions.items():
                if peak is None or precision != "fp32":
                    continue
                # Rounded coefficients may be 0.1 % off; fitted ones explain each other, and some of
                # what arithmetic costs may stand in the term of activations.
                slack = 0.999 if costs.provenance == ANALYTIC else 0.95
                for kind, cost in costs.modules.items():
                    _require(
                        costs.scale * cost.us_per_mflop * peak >= slack * 1000
                        or cost.us_per_mflop == 0,
                        f"runtimes.{runtime}.{precision}.modules.{kind}: us_per_mflop "
                        f"{cost.us_per_mflop} beats the peak of {self.hardware.core.name}, "
                        f"{1000 / peak:.4g}",
                    )
