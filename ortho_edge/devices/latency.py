"""Predicted latency, memory and file size of a subnet on a device, each with its provenance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ortho_edge.cli import UserError
from ortho_edge.components import ComponentSpace
from ortho_edge.devices import filter_banks
from ortho_edge.devices.file_sizes import QUANTISED
from ortho_edge.devices.filter_banks import AUDIO_IN, FEATURES_IN, Input
from ortho_edge.devices.profile import (
    ANALYTIC,
    COUNTED,
    MEASURED,
    VELA,
    AssumedSpeed,
    DeviceProfile,
    ModuleCost,
    Provenance,
    RuntimeCost,
    SizeCost,
)
from ortho_edge.devices.workload import BYTES, Work, in_tiles, workload
from ortho_edge.subnet import Subnet

MEMORY_BASIS: Mapping[Provenance, str] = {
    MEASURED: "from measured figures",
    COUNTED: "not measured on the device",
    VELA: "not measured: as Vela allocates it",
    ANALYTIC: "not measured: an analytic estimate",
}
"""What a predicted memory rests on, in words."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A latency that was computed, not observed.

    Attributes:
        milliseconds: For one utterance, one thread, undisturbed: the minimum of many calls.
        seconds: Length of the utterance.
        provenance: How the profile's figures came about.
        source: From which figures.
        error_percent: Mean error on held-out subnets; None where nothing was measured or counted.
        precision: Whose figures they are.
        assumed_speed: What made time of counted instructions or of Vela's cycles; then the error is
            that of counts.
        p50_ratio: Median of many calls over the minimum; 1 where the profile does not tell.
        takes: What the artefact takes; of audio, the filter banks inside are part of the latency.
        filter_banks_ms: That part of `milliseconds`; 0 where features are taken.
    """

    milliseconds: float
    seconds: float
    runtime: str
    provenance: Provenance
    source: str
    error_percent: float | None = None
    precision: str = "fp32"
    assumed_speed: AssumedSpeed | None = None
    p50_ratio: float = 1.0
    takes: Input = FEATURES_IN
    filter_banks_ms: float = 0.0

    @property
    def p50_milliseconds(self) -> float:
        """The median of many calls, which budgets limit."""
        return self.milliseconds * self.p50_ratio

    @property
    def basis(self) -> str:
        """What the figure rests on, in words; only a measured one may sound like a timing."""
        if self.takes == FEATURES_IN:
            return self._basis
        return f"filter banks included ({self.filter_banks_ms:.3g} ms), {self._basis}"

    @property
    def _basis(self) -> str:
        speed = self.assumed_speed
        if self.provenance == MEASURED:
            return f"from measured figures, error {self.error_percent} %"
        if speed is None:
            return "not timed: an analytic estimate"
        if self.provenance == VELA:
            return (
                f"not timed: from Vela's cycles (error {self.error_percent} % of the cycles), at "
                f"an assumed {speed.clock_ghz:g} GHz"
            )
        return (
            f"not timed: instructions counted (error {self.error_percent} % of the count), at an "
            f"assumed {speed.instructions_per_cycle:g} per cycle and {speed.clock_ghz:g} GHz"
        )


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Computed memory and file size of an artefact.

    Attributes:
        memory_mb: What loading and running it adds to a process, at the peak.
        planned_mb: The part of it that the runtime plans ahead, for the longest input.
        size_mb: The file.
    """

    memory_mb: float
    memory_provenance: Provenance
    planned_mb: float
    size_mb: float
    size_provenance: Provenance


def runtime_cost(profile: DeviceProfile, runtime: str, precision: str = "fp32") -> RuntimeCost:
    """The cost tables of a runtime.

    Raises:
        UserError: The profile has none.
    """
    for choices, wanted, what in (
        (profile.runtimes, runtime, "runtime"),
        (profile.runtimes.get(runtime, {}), precision, "precision"),
    ):
        if wanted not in choices:
            raise UserError(
                f"device {profile.name!r} has no figures for {what} {wanted!r}; "
                f"known: {', '.join(sorted(choices))}"
            )
    return profile.runtimes[runtime][precision]


def module_microseconds(cost: ModuleCost, work: Work) -> float:
    """Latency of one module by its four terms."""
    return (
        cost.us_per_call
        + cost.us_per_mflop * work.flops / 1e6
        + cost.us_per_weight_mb * work.params * BYTES / 1e6
        + cost.us_per_activation_mb * work.activations * BYTES / 1e6
    )


def predict_latency(
    profile: DeviceProfile,
    space: ComponentSpace,
    subnet: Subnet,
    seconds: float,
    runtime: str,
    precision: str = "fp32",
    takes: Input = FEATURES_IN,
) -> Prediction:
    """Latency of a compacted subnet for `seconds` of audio, one thread, batch 1.

    Raises:
        UserError: The profile has no figures for that runtime and precision, or by tables and none
            for that architecture or length; or no such artefact takes audio.
    """
    costs = runtime_cost(profile, runtime, precision)
    filter_banks.check_input(profile, runtime, precision, takes)
    works = workload(space, subnet, seconds)
    if (tables := costs.tables) is not None:
        tables.check(space.architecture, seconds, profile.name)
        assert costs.assumed_speed is not None
        milliseconds = costs.assumed_speed.milliseconds(tables.cycles(_units(works), seconds))
    else:
        tiles = in_tiles(works, seconds, costs.rows_at_once)
        total = sum(module_microseconds(costs.modules[work.kind], work) for work in tiles)
        milliseconds = (costs.scale * total + costs.us_per_boundary * len(works)) / 1000
    before = _filter_banks_ms(profile, seconds, runtime, precision) if takes == AUDIO_IN else 0.0
    return Prediction(
        milliseconds=milliseconds + before,
        seconds=seconds,
        runtime=runtime,
        provenance=costs.provenance,
        source=costs.source,
        error_percent=costs.error_percent,
        precision=precision,
        assumed_speed=costs.assumed_speed,
        p50_ratio=costs.p50_ratio or 1.0,
        takes=takes,
        filter_banks_ms=before,
    )


def _filter_banks_ms(profile: DeviceProfile, seconds: float, runtime: str, precision: str) -> float:
    """Latency of the filter banks, which compute in fp32 in front of a network of any precision."""
    precisions = profile.runtimes[runtime]
    costs = precisions.get("fp32", precisions[precision])
    work = filter_banks.filter_bank_work(seconds)
    own = module_microseconds(filter_banks.rates(costs), work)
    return (costs.scale * own + costs.us_per_boundary) / 1000


def predict_footprint(
    profile: DeviceProfile,
    space: ComponentSpace,
    subnet: Subnet,
    seconds: float,
    runtime: str,
    precision: str = "fp32",
    takes: Input = FEATURES_IN,
) -> Footprint:
    """Memory and file size of a compacted subnet, of the filter banks too where it takes audio.

    Where the profile has no figures for a precision, the memory is that of fp32, which needs more;
    the file size is always that of the precision.

    Raises:
        UserError: The profile has no figures for that runtime, nobody knows the file size, or no
            such artefact takes audio.
    """
    costs = runtime_cost(profile, runtime, figured_precision(profile, runtime, precision))
    filter_banks.check_input(profile, runtime, precision, takes)
    works = workload(space, subnet, seconds)
    params = sum(work.params for work in works)
    live = max(work.live for work in works)
    memory, size = costs.memory, size_cost(profile, runtime, precision)
    size_mb = file_bytes(size, works) / 1e6
    if takes == AUDIO_IN:
        before = filter_banks.filter_bank_work(seconds)
        params, live = params + before.params, max(live, before.live)
        size_mb += filter_banks.file_bytes(runtime, precision) / 1e6
    memory_mb = memory.fixed_mb + BYTES / 1e6 * (
        memory.weight_copies * params + memory.activation_copies * live
    )
    if (tables := costs.tables) is not None:
        tables.check(space.architecture, seconds, profile.name)
        memory_mb += tables.sram_kb(_units(works), seconds) / 1e3
        size_mb += tables.file_kb(_units(works), seconds) / 1e3
    return Footprint(
        memory_mb=memory_mb,
        memory_provenance=memory.provenance,
        planned_mb=memory.planned_copies
        * filter_banks.planned_bytes(space.architecture, seconds, takes)
        / 1e6,
        size_mb=size_mb,
        size_provenance=size.provenance,
    )


def _units(works: Sequence[Work]) -> list[tuple[str, int]]:
    """What tables are looked up by: the kind of every module and its open units."""
    return [(work.kind, work.units) for work in works]


def figured_precision(profile: DeviceProfile, runtime: str, precision: str) -> str:
    """The precision whose figures stand for another.

    Itself where the profile has it, else fp32; a device that takes one precision alone has that.
    """
    known = profile.runtimes.get(runtime, {})
    if precision not in known and len(known) == 1:
        return next(iter(known))
    return precision if precision in known else "fp32"


def size_cost(profile: DeviceProfile, runtime: str, precision: str) -> SizeCost:
    """The size of files in a precision: the profile's figures, else those of the file format.

    Raises:
        UserError: There are none.
    """
    precisions = profile.runtimes.get(runtime, {})
    if precision not in precisions and (runtime, precision) in QUANTISED:
        return QUANTISED[runtime, precision]
    if precision == "fp32":
        # A device without fp32 has one precision, and nobody asked for another.
        precision = figured_precision(profile, runtime, precision)
    return runtime_cost(profile, runtime, precision).size


def file_bytes(size: SizeCost, works: Sequence[Work]) -> float:
    """Bytes of the file of a network with the given modules."""
    params = sum(work.params for work in works)
    total = size.bytes_per_parameter * params
    if size.bytes_per_weight is not None:
        saved = size.bytes_per_parameter - size.bytes_per_weight
        total -= saved * sum(work.weights for work in works)
    if size.bytes_per_filter is not None:
        saved = size.bytes_per_parameter - size.bytes_per_filter
        total -= saved * sum(work.filters for work in works)
    total += size.bytes_per_output * sum(work.outputs for work in works)
    graph_kb = size.fixed_kb + size.kb_per_module * len(works)
    return total + 1e3 * (graph_kb + size.kb_per_layer * sum(work.layers for work in works))
