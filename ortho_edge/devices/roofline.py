"""The roofline that analytic tables are computed from: public figures of a core in, costs out.

A module takes, on one thread of one core,

    calls / clock + FLOPs / (share * peak) + weights / stream + activations * copies / clock,

with peak = clock * FLOPs per cycle and stream = `STREAM_SHARE` of the device's bandwidth. In int8
the products with weights are `INT8_GAIN` times as fast, by what the core can do with dot products,
and weights take a quarter of the bytes. Nothing here was measured on a device that it describes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ortho_edge.devices.file_sizes import FP32, QUANTISED
from ortho_edge.devices.profile import (
    ANALYTIC,
    KINDS,
    AssumedSpeed,
    DotProduct,
    Hardware,
    Kind,
    MemoryCost,
    ModuleCost,
    RuntimeCost,
)

SHARE_OF_PEAK: Mapping[Kind, float] = {
    "front_end": 0.4, "ffn": 0.65, "conv": 0.5, "mhsa": 0.5, "ctc_head": 0.65,
}  # fmt: skip
"""Of a module's FLOPs; a norm has none to speak of."""
STREAM_SHARE = 0.35
"""Of the bandwidth of the device, by one core: 6 of the 17 GB/s of a Raspberry Pi 5."""
WEIGHT_SHARE: Mapping[Kind, float] = {"ffn": 1.0, "conv": 0.95, "mhsa": 0.75, "ctc_head": 1.0}
"""Of a module's FLOPs, those with weights of linear layers, which int8 speeds up; attention's other
products and convolutions stay in fp32."""
INT8_GAIN: Mapping[DotProduct, float] = {"none": 1.0, "sdot": 2.7, "i8mm": 2.7, "vnni": 2.7}
"""So that the full network comes out 1.8 times as fast, as instructions on an emulated Cortex-A76
say; small ones gain more than this predicts. Without dot products instructions do not get fewer."""
INT8_BYTES = 0.25
NORM_CALLS = 0.2
"""Of the calls of another module."""


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """What a core spends outside of products, in thousands of cycles.

    Attributes:
        kilocycles_per_call: For calls of operators, a module.
        kilocycles_per_mb: For elementwise operations and copies, a MB of activations.
    """

    kilocycles_per_call: float
    kilocycles_per_mb: float


LARGE = Overhead(kilocycles_per_call=43.5, kilocycles_per_mb=277)
"""A wide out-of-order core."""
MEDIUM = Overhead(kilocycles_per_call=72, kilocycles_per_mb=573)
"""An out-of-order core of half that width."""
SMALL = Overhead(kilocycles_per_call=120, kilocycles_per_mb=1146)
"""An in-order core."""
BROWSER = Overhead(kilocycles_per_call=65, kilocycles_per_mb=415)
"""A wide core that runs WebAssembly: half as much again."""


@dataclass(frozen=True, kw_only=True)
class RuntimeOverhead:
    """A runtime against ExecuTorch, whose programs delegate whole subgraphs."""

    title: str
    calls: float
    copies: float
    memory: MemoryCost


def _memory(
    title: str, fixed: float, weights: float, activations: float, planned: float
) -> MemoryCost:
    return MemoryCost(
        provenance=ANALYTIC,
        source=f"Peak memory of fresh x86-64 processes of {title} in fp32, November 2026; taken "
        "over to this device.",
        fixed_mb=fixed,
        weight_copies=weights,
        activation_copies=activations,
        planned_copies=planned,
    )


RUNTIMES: Mapping[str, RuntimeOverhead] = {
    "executorch": RuntimeOverhead(
        title="ExecuTorch with XNNPACK",
        calls=1.0,
        copies=1.0,
        memory=_memory("ExecuTorch 1.5.1", 6.76, 1.43, 0.63, 1.0),
    ),
    "onnxruntime": RuntimeOverhead(
        title="ONNX Runtime with its CPU provider",
        calls=1.5,
        copies=1.3,
        memory=_memory("ONNX Runtime 1.32.0", 0.85, 1.62, 1.99, 0.0),
    ),
}


@dataclass(frozen=True, kw_only=True)
class _Rates:
    """The figures of a core that the roofline needs."""

    core: str
    ghz: float
    flops_per_cycle: float
    dot_product: DotProduct
    stream_gb_per_s: float

    @property
    def peak_gflops(self) -> float:
        return self.ghz * self.flops_per_cycle


def analytic_runtimes(hardware: Hardware, overhead: Overhead) -> dict[str, dict[str, RuntimeCost]]:
    """Tables of both runtimes in fp32 and int8.

    Raises:
        ValueError: A figure that the roofline needs is not stated.
    """
    rates = _rates(hardware)
    return {
        name: {
            "fp32": (plain := _fp32(rates, overhead, name)),
            "int8": in_int8(plain, name, rates.dot_product),
        }
        for name in RUNTIMES
    }


def _rates(hardware: Hardware) -> _Rates:
    core, bandwidth = hardware.core, hardware.bandwidth_gb_per_s
    if (
        core.clock_ghz is None
        or core.flops_per_cycle is None
        or core.dot_product is None
        or bandwidth is None
    ):
        raise ValueError(
            f"the roofline of {core.name} needs clock_ghz, flops_per_cycle, dot_product and "
            "bandwidth_gb_per_s"
        )
    return _Rates(
        core=core.name,
        ghz=core.clock_ghz,
        flops_per_cycle=core.flops_per_cycle,
        dot_product=core.dot_product,
        stream_gb_per_s=STREAM_SHARE * bandwidth.value,
    )


def _fp32(rates: _Rates, overhead: Overhead, runtime: str) -> RuntimeCost:
    own = RUNTIMES[runtime]
    us_per_call = own.calls * overhead.kilocycles_per_call / rates.ghz
    us_per_activation_mb = own.copies * overhead.kilocycles_per_mb / rates.ghz

    def module(kind: Kind) -> ModuleCost:
        share = SHARE_OF_PEAK.get(kind)
        return ModuleCost(
            us_per_call=_short(us_per_call * (NORM_CALLS if kind == "norm" else 1)),
            us_per_mflop=0.0 if share is None else _short(1000 / (share * rates.peak_gflops)),
            us_per_weight_mb=_short(1000 / rates.stream_gb_per_s),
            us_per_activation_mb=_short(us_per_activation_mb),
        )

    return RuntimeCost(
        provenance=ANALYTIC,
        source=(
            f"{own.title}. Roofline of one {rates.core}: {rates.ghz:g} GHz x "
            f"{rates.flops_per_cycle:g} fp32 operations per cycle = {rates.peak_gflops:.1f} "
            "GFLOP/s. Assumed: 65 % of that in feed-forward modules and the CTC head, 50 % in "
            "attention and convolution modules, 40 % in the front end; weights stream at "
            f"{rates.stream_gb_per_s:.1f} GB/s; {us_per_call:.3g} us per module for calls of "
            f"operators; {us_per_activation_mb:.3g} us per MB of activations for elementwise "
            "operations and copies."
        ),
        modules={kind: module(kind) for kind in KINDS},
        memory=own.memory,
        size=FP32[runtime, "fp32"],
    )


def in_int8(costs: RuntimeCost, runtime: str, dot_product: DotProduct) -> RuntimeCost:
    """The int8 table that goes with one of fp32; memory stays that of fp32, which needs more."""
    gain = INT8_GAIN[dot_product]

    def module(kind: Kind, cost: ModuleCost) -> ModuleCost:
        share = WEIGHT_SHARE.get(kind, 0.0)
        return replace(
            cost,
            us_per_mflop=_short(cost.us_per_mflop * (share / gain + 1 - share)),
            us_per_weight_mb=_short(cost.us_per_weight_mb * (INT8_BYTES if share else 1)),
        )

    faster = (
        "no faster, for the core has no dot products"
        if gain == 1
        else f"assumed {gain:g} times as fast, by {dot_product}"
    )
    basis = "" if costs.provenance == ANALYTIC else f", which rests on {costs.provenance}"
    return replace(
        costs,
        provenance=ANALYTIC,
        source=f"From the fp32 table of this runtime{basis}: products with weights {faster}; "
        f"weights take a quarter of the bytes. {costs.source}",
        modules={kind: module(kind, cost) for kind, cost in costs.modules.items()},
        size=QUANTISED[runtime, "int8"],
        error_percent=None,
        worst_error_percent=None,
        spread_percent=None,
        assumed_speed=None,
    )


def at_speed(costs: RuntimeCost, speed: AssumedSpeed) -> RuntimeCost:
    """A counted table at another assumed speed."""
    assert costs.assumed_speed is not None
    factor = speed.milliseconds(1) / costs.assumed_speed.milliseconds(1)
    modules = {
        kind: ModuleCost(
            us_per_call=_short(factor * one.us_per_call),
            us_per_mflop=_short(factor * one.us_per_mflop),
            us_per_weight_mb=_short(factor * one.us_per_weight_mb),
            us_per_activation_mb=_short(factor * one.us_per_activation_mb),
        )
        for kind, one in costs.modules.items()
    }
    return replace(costs, modules=modules, assumed_speed=speed)


def with_counts(
    runtimes: Mapping[str, Mapping[str, RuntimeCost]],
    counted: Mapping[str, Mapping[str, RuntimeCost]],
    speed: AssumedSpeed,
    dot_product: DotProduct,
    note: str = "",
) -> dict[str, dict[str, RuntimeCost]]:
    """Tables with those that were counted on a core in place of the roofline's.

    Memory and file size stay, for counts say nothing about them. Where int8 was not counted, it
    follows from the counted fp32, so that the two compare.
    """
    made = {name: dict(precisions) for name, precisions in runtimes.items()}
    for name, precisions in counted.items():
        for precision, costs in precisions.items():
            own = made[name][precision]
            made[name][precision] = replace(
                at_speed(costs, speed),
                source=f"{costs.source}; {note}" if note else costs.source,
                memory=own.memory,
                size=own.size,
            )
        if "int8" not in precisions:
            made[name]["int8"] = in_int8(made[name]["fp32"], name, dot_product)
    return made


def _short(value: float) -> float:
    return float(f"{value:.6g}")
