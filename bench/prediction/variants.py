"""What each part of the latency model is worth: held-out errors without it, or with a term more.

Every variant is fitted to the same times of the same probes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from bench.prediction.measuring import LENGTHS
from bench.prediction.subnets import Artefacts
from ortho_edge.devices.fit import Observation, fit_modules
from ortho_edge.devices.latency import module_microseconds
from ortho_edge.devices.measurements import Key, Measurements, Runtime
from ortho_edge.devices.profiler import LENGTHS as PROBE_LENGTHS
from ortho_edge.devices.timing import Timing
from ortho_edge.devices.workload import BYTES, Work, workload

CACHES_MB = (0.5, 1.0, 2.0, 4.0, 6.0)
"""Sizes that are tried for the cache that weights overflow."""

Terms = Callable[[float, Sequence[Work]], list[float]]
"""Columns of the fit of whole networks, from the sum of modules in ms and the modules."""


@dataclass(frozen=True)
class Variant:
    """A way to fit times: which whole networks are among the probes, and what is fitted to them."""

    name: str
    terms: Terms | None
    few_whole: bool = False


def _over(megabytes: float) -> Terms:
    def terms(total: float, works: Sequence[Work]) -> list[float]:
        weights = sum(work.params for work in works) * BYTES / 1e6
        return [total, len(works) / 1000, max(0.0, weights - megabytes) / 1000]

    return terms


VARIANTS = (
    Variant("as the profile", lambda total, works: [total, len(works) / 1000]),
    Variant("without a constant per boundary", lambda total, works: [total]),
    Variant("the sum of modules alone", None),
    Variant("two whole networks instead of eight", lambda total, _: [total], few_whole=True),
    *(
        Variant(f"weights beyond {one:g} MB cost more", _over(one)) for one in CACHES_MB
    ),
)  # fmt: skip


def variant_table(artefacts: Artefacts, measured: Measurements, times: Mapping[Key, Timing]) -> str:
    """Markdown: mean error on the held-out subnets, and the share within 10 %, of each variant."""
    names = [one.key for one in artefacts.runtimes]
    lines = [
        f"| fit | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}",
    ]  # fmt: skip
    held_out = {one.key: _held_out(artefacts, one, times) for one in artefacts.runtimes}
    for variant in VARIANTS:
        cells = []
        for runtime in artefacts.runtimes:
            predict = fitted(variant, observations(measured, runtime, variant.few_whole))
            errors = np.array(
                [100 * (predict(one.works) / one.milliseconds - 1) for one in held_out[runtime.key]]
            )
            within = 100 * (np.abs(errors) <= 10).mean()
            cells.append(f"{np.abs(errors).mean():.2f} % ({errors.mean():+.1f}), {within:.0f} %")
        lines.append(f"| {variant.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _held_out(
    artefacts: Artefacts, runtime: Runtime, times: Mapping[Key, Timing]
) -> list[Observation]:
    space = artefacts.checkpoint.supernet.space
    return [
        Observation(
            works=workload(space, subnet.subnet, seconds),
            milliseconds=times[runtime.key, subnet.name, seconds].milliseconds,
        )
        for subnet in artefacts.subnets
        for seconds in LENGTHS
    ]


def observations(
    measured: Measurements, runtime: Runtime, few_whole: bool
) -> tuple[list[Observation], list[Observation]]:
    """Of the probes that a profile is fitted to: all, and the whole networks among them."""
    every, whole = [], []
    for probe in measured.probes:
        if probe.held_out or (few_whole and probe.trained.name.startswith("whole-")):
            continue
        for seconds in PROBE_LENGTHS:
            one = Observation(
                works=workload(probe.checkpoint.supernet.space, probe.trained.subnet, seconds),
                milliseconds=measured.timings[
                    runtime.key, probe.trained.name, seconds
                ].milliseconds,
            )
            every.append(one)
            if probe.whole:
                whole.append(one)
    return every, whole


def fitted(
    variant: Variant, observed: tuple[list[Observation], list[Observation]]
) -> Callable[[Sequence[Work]], float]:
    """What predicts milliseconds from modules."""
    every, whole = observed
    modules = fit_modules(every)

    def total(works: Sequence[Work]) -> float:
        return sum(module_microseconds(modules[work.kind], work) for work in works) / 1000

    terms = variant.terms
    if terms is None:
        return total
    rows = [np.array(terms(total(one.works), one.works)) / one.milliseconds for one in whole]
    solution, _ = nnls(np.stack(rows), np.ones(len(rows)))
    return lambda works: float(np.dot(solution, terms(total(works), works)))
