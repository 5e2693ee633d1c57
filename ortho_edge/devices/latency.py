"""Predicted latency, memory and file size of a subnet on a device, each with its provenance."""

from dataclasses import dataclass

from ortho_edge.cli import UserError
from ortho_edge.components import ComponentSpace
from ortho_edge.devices.profile import DeviceProfile, ModuleCost, Provenance, RuntimeCost
from ortho_edge.devices.workload import BYTES, Work, workload
from ortho_edge.subnet import Subnet


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A latency that was computed, not observed.

    Attributes:
        milliseconds: For one utterance, one thread.
        seconds: Length of the utterance.
        provenance: Whether the profile's figures were measured on the device or estimated.
        source: From which figures.
        error_percent: Mean error on held-out subnets; None for an estimate.
    """

    milliseconds: float
    seconds: float
    runtime: str
    provenance: Provenance
    source: str
    error_percent: float | None = None


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Computed memory and file size of an artefact.

    Attributes:
        memory_mb: What loading and running it adds to a process, at the peak.
        size_mb: The file.
    """

    memory_mb: float
    memory_provenance: Provenance
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
) -> Prediction:
    """Latency of a compacted subnet for `seconds` of audio, one thread, batch 1.

    Raises:
        UserError: The profile has no figures for that runtime and precision.
    """
    costs = runtime_cost(profile, runtime, precision)
    total = sum(
        module_microseconds(costs.modules[work.kind], work)
        for work in workload(space, subnet, seconds)
    )
    return Prediction(
        milliseconds=costs.scale * total / 1000,
        seconds=seconds,
        runtime=runtime,
        provenance=costs.provenance,
        source=costs.source,
        error_percent=costs.error_percent,
    )


def predict_footprint(
    profile: DeviceProfile,
    space: ComponentSpace,
    subnet: Subnet,
    seconds: float,
    runtime: str,
    precision: str = "fp32",
) -> Footprint:
    """Memory and file size of a compacted subnet.

    Raises:
        UserError: The profile has no figures for that runtime and precision.
    """
    costs = runtime_cost(profile, runtime, precision)
    works = workload(space, subnet, seconds)
    params = sum(work.params for work in works)
    live = max(work.live for work in works)
    memory, size = costs.memory, costs.size
    return Footprint(
        memory_mb=memory.fixed_mb
        + (memory.weight_copies * params + memory.activation_copies * live) * BYTES / 1e6,
        memory_provenance=memory.provenance,
        size_mb=size.bytes_per_parameter * params / 1e6
        + (size.fixed_kb + size.kb_per_module * len(works)) / 1e3,
        size_provenance=size.provenance,
    )
