"""What a device profile says a subnet costs, as cost models: for training and for composition."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from ortho_edge.components import ComponentSpace
from ortho_edge.costs import (
    CostModel,
    CostTable,
    criterion_costs,
    flops_costs,
    tabulate,
    tabulate_peak,
)
from ortho_edge.devices.filter_banks import FEATURES_IN, Input, filter_bank_flops
from ortho_edge.devices.latency import (
    figured_precision,
    predict_footprint,
    predict_latency,
    runtime_cost,
)
from ortho_edge.devices.profile import Budget, DeviceProfile, MemoryCost
from ortho_edge.devices.shape_tables import ShapeTables
from ortho_edge.subnet import Subnet


def latency_costs(
    profile: DeviceProfile,
    space: ComponentSpace,
    seconds: float,
    runtimes: Sequence[str] = (),
    precision: str = "fp32",
    takes: Input = FEATURES_IN,
) -> CostModel:
    """Predicted latency in ms for `seconds` of audio, of the slowest runtime.

    Raises:
        UserError: The profile has no figures for a runtime.
    """

    def table(runtime: str) -> CostTable:
        known = figured_precision(profile, runtime, precision)
        return tabulate(
            space,
            lambda one: (
                predict_latency(
                    profile, space, one, seconds, runtime, known, takes
                ).p50_milliseconds
            ),
        )

    return CostModel(
        space=space,
        name=f"latency on {profile.name}",
        tables=tuple(table(runtime) for runtime in runtimes or profile.runtimes),
    )


def size_costs(
    profile: DeviceProfile,
    space: ComponentSpace,
    runtimes: Sequence[str] = (),
    precision: str = "fp32",
    seconds: float = 1.0,
    takes: Input = FEATURES_IN,
) -> CostModel:
    """Predicted file size in MB, of the runtime whose file is largest.

    Where programs take one length alone, it is that of `seconds`.

    Raises:
        UserError: The profile has no figures for a runtime.
    """

    def table(runtime: str) -> CostTable:
        return tabulate(
            space,
            lambda one: (
                predict_footprint(profile, space, one, seconds, runtime, precision, takes).size_mb
            ),
        )

    return CostModel(
        space=space,
        name=f"file size on {profile.name}",
        tables=tuple(table(runtime) for runtime in runtimes or profile.runtimes),
    )


def memory_costs(
    profile: DeviceProfile,
    space: ComponentSpace,
    seconds: float,
    runtimes: Sequence[str] = (),
    precision: str = "fp32",
    takes: Input = FEATURES_IN,
) -> CostModel:
    """Predicted peak memory in MB for `seconds` of audio, of the runtime that needs most.

    Weights add up over modules; of the activations only the fullest module counts.

    Raises:
        UserError: The profile has no figures for a runtime.
    """
    return CostModel(
        space=space,
        name=f"memory on {profile.name}",
        tables=tuple(
            _memory_table(profile, space, seconds, runtime, precision, takes)
            for runtime in runtimes or profile.runtimes
        ),
    )


def _memory_table(
    profile: DeviceProfile,
    space: ComponentSpace,
    seconds: float,
    runtime: str,
    precision: str,
    takes: Input,
) -> CostTable:
    known = figured_precision(profile, runtime, precision)
    costs = runtime_cost(profile, runtime, known)
    memory, tables = costs.memory, costs.tables

    def with_memory(memory: MemoryCost, tables: ShapeTables | None) -> DeviceProfile:
        changed = replace(costs, memory=memory, tables=tables)
        return replace(profile, runtimes={runtime: {known: changed}})

    weights = with_memory(
        replace(memory, activation_copies=0.0), None if tables is None else tables.without_memory()
    )
    activations = with_memory(replace(memory, fixed_mb=0.0, weight_copies=0.0), tables)

    def memory_mb(profile: DeviceProfile) -> Callable[[Subnet], float]:
        return lambda one: (
            predict_footprint(profile, space, one, seconds, runtime, known, takes).memory_mb
        )

    sums = tabulate(space, memory_mb(weights))
    peaks = tabulate_peak(space, memory_mb(activations))
    return replace(sums, floor=peaks.floor, peak_by_units=peaks.peak_by_units)


def _with_filter_banks(model: CostModel, seconds: float, takes: Input) -> CostModel:
    before = filter_bank_flops(seconds, takes)
    return replace(
        model, tables=tuple(replace(one, fixed=one.fixed + before) for one in model.tables)
    )


def budget_costs(
    profile: DeviceProfile,
    budget: Budget,
    space: ComponentSpace,
    runtimes: Sequence[str] = (),
    precision: str = "fp32",
    takes: Input = FEATURES_IN,
) -> list[tuple[CostModel, float]]:
    """Every limit that a budget sets, with the cost model of what it limits."""
    seconds = budget.audio_seconds
    models = {
        "latency_ms": lambda: latency_costs(profile, space, seconds, runtimes, precision, takes),
        "memory_mb": lambda: memory_costs(profile, space, seconds, runtimes, precision, takes),
        "size_mb": lambda: size_costs(profile, space, runtimes, precision, seconds, takes),
        "params": lambda: criterion_costs(space, "params"),
        "flops": lambda: _with_filter_banks(flops_costs(space, seconds), seconds, takes),
    }
    return [
        (model(), limit)
        for name, model in models.items()
        if (limit := getattr(budget, name)) is not None and limit < math.inf
    ]
