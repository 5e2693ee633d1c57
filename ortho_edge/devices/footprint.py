"""Fitting memory and file size of a profile to the artefacts of probes."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

from ortho_edge.devices.file_sizes import QUANTISED
from ortho_edge.devices.latency import file_bytes
from ortho_edge.devices.measurements import Measurements, PeakMemory, Runtime
from ortho_edge.devices.profile import MemoryCost, SizeCost
from ortho_edge.devices.workload import BYTES, planned_elements, workload
from ortho_edge.progress import track

MEMORY_POINTS = (
    ("empty", 1.0), ("empty", 10.0), ("random-30", 10.0), ("full", 1.0), ("full", 10.0)
)  # fmt: skip
"""Probes and seconds at which memory is measured, each in a process of its own."""
WARM_UP_PROBE = "one-block"
BLURRED_MB = 5.0
"""Peaks below this are fitted as if they were so large."""


def fit_size(measured: Measurements, runtime: Runtime) -> SizeCost:
    """What the graph adds to the weights, in any case, per module and per linear layer."""
    # A quantised format says what a weight takes; fp32 says it by its name.
    known = QUANTISED.get((runtime.name, runtime.precision))
    counted = SizeCost(
        provenance="measured",
        source=f"files of {runtime.name} {runtime.version}",
        bytes_per_parameter=BYTES,
        bytes_per_weight=known.bytes_per_weight if known else None,
        bytes_per_output=known.bytes_per_output if known else 0.0,
        bytes_per_filter=known.bytes_per_filter if known else None,
        fixed_kb=0.0,
    )
    rows, graphs, sizes = [], [], []
    for probe in measured.probes:
        works = workload(probe.checkpoint.supernet.space, probe.trained.subnet, 1.0)
        size = measured.files[runtime.key, probe.trained.name].stat().st_size
        rows.append([1e3, 1e3 * len(works), 1e3 * sum(work.layers for work in works)])
        graphs.append(size - file_bytes(counted, works))
        sizes.append(size)
    # Errors count relative to the whole file.
    coefficients, worst = _fit_relative(rows, graphs, sizes)
    return dataclasses.replace(
        counted,
        source=f"{counted.source}, fitted to {worst:.1f} % at worst",
        fixed_kb=coefficients[0],
        kb_per_module=coefficients[1],
        kb_per_layer=coefficients[2],
    )


def fit_memory(
    measured: Measurements, runtime: Runtime, peak_memory: PeakMemory | None
) -> MemoryCost:
    """Memory over weights and live activations, at `MEMORY_POINTS`; analytic without figures."""
    if peak_memory is None:
        return MemoryCost(
            provenance="analytic",
            source="this system records no peak memory: weights and activations counted twice",
            fixed_mb=5.0, weight_copies=2.0, activation_copies=2.0,
        )  # fmt: skip
    rows, peaks = [], []
    warm_up = measured.files[runtime.key, WARM_UP_PROBE]
    by_name = {probe.trained.name: probe for probe in measured.probes}
    for name, seconds in track(MEMORY_POINTS, f"memory of {runtime.key}", unit="processes"):
        probe = by_name[name]
        works = workload(probe.checkpoint.supernet.space, probe.trained.subnet, seconds)
        params, live = sum(work.params for work in works), max(work.live for work in works)
        rows.append([1.0, params * BYTES / 1e6, live * BYTES / 1e6])
        file = measured.files[runtime.key, probe.trained.name]
        peaks.append(peak_memory(runtime.load, file, warm_up, seconds))
    # The allocator's leftovers blur the small ones.
    coefficients, worst = _fit_relative(rows, peaks, [max(one, BLURRED_MB) for one in peaks])
    return MemoryCost(
        provenance="measured",
        source=(
            f"peak resident memory of fresh processes of {runtime.name} {runtime.version}, "
            f"fitted to {worst:.0f} % at worst"
        ),
        fixed_mb=coefficients[0],
        weight_copies=coefficients[1],
        activation_copies=coefficients[2],
        planned_copies=_planned_copies(measured, runtime),
    )


def _planned_copies(measured: Measurements, runtime: Runtime) -> float:
    """Memory that the runtime plans ahead over what `planned_elements` counts."""
    if runtime.planned_bytes is None:
        return 0.0
    ratios = [
        runtime.planned_bytes(measured.files[runtime.key, probe.trained.name])
        / (BYTES * planned_elements(probe.checkpoint.supernet.architecture))
        for probe in measured.probes
    ]
    return float(f"{np.mean(ratios):.6g}")


def _fit_relative(
    rows: Sequence[Sequence[float]], values: Sequence[float], weights: Sequence[float]
) -> tuple[list[float], float]:
    """Non-negative coefficients of least error over `weights`, and the worst error in per cent."""
    system = np.array(rows) / np.array(weights)[:, None]
    targets = np.array(values) / np.array(weights)
    # Columns of one size keep the solver accurate.
    norms = np.linalg.norm(system, axis=0)
    solution, _ = nnls(system / norms, targets)
    coefficients = solution / norms
    return [float(f"{one:.6g}") for one in coefficients], 100 * float(
        np.abs(system @ coefficients - targets).max()
    )
