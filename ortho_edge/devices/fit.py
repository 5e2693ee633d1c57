"""Fitting the coefficients of a profile to measured subnets.

Latency is linear in the coefficients, so they are a non-negative least-squares solution of relative
errors. Networks of one architecture cannot tell every coefficient apart (a convolution module's
FLOPs and activations both grow with T'), so a weak pull towards rates shared by all kinds decides
what the data leave open.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy.optimize import nnls

from ortho_edge.devices.latency import module_microseconds
from ortho_edge.devices.profile import KINDS, Kind, ModuleCost
from ortho_edge.devices.workload import BYTES, Work

TERMS = tuple(field.name for field in fields(ModuleCost))
PULL = 0.05
"""Weight of the pull: doubling a coefficient costs as much as an error of 5 % in a measurement."""
EXACT_PULL = 1e-4
"""Where measurements have no noise."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """A measured network."""

    works: tuple[Work, ...]
    milliseconds: float


@dataclass(frozen=True, kw_only=True)
class FitError:
    """Absolute errors of predictions in per cent of the measurement."""

    mean_percent: float
    worst_percent: float


def fit_modules(observations: Sequence[Observation], pull: float = PULL) -> dict[Kind, ModuleCost]:
    """Coefficients of every kind for measured networks; `pull` is the weight of the pull."""
    quantities = np.stack([_quantities(one.works) for one in observations])
    microseconds = np.array([1000 * one.milliseconds for one in observations])
    relative = quantities / microseconds[:, None, None]
    # Each row of the system says: predicted over measured is 1.
    shared, _ = nnls(relative.sum(1), np.ones(len(observations)))
    prior = np.where(shared > 0, shared, 1e-3 * _typical(relative.sum(1)))
    # Unknowns are multiples of the prior, which puts coefficients of all units on one scale.
    system = (relative * prior).reshape(len(observations), -1)
    unknowns = system.shape[1]
    solution, _ = nnls(
        np.vstack([system, pull * np.eye(unknowns)]),
        np.concatenate([np.ones(len(observations)), np.full(unknowns, pull)]),
    )
    coefficients = solution.reshape(len(KINDS), len(TERMS)) * prior
    return {
        kind: ModuleCost(**{term: _short(value) for term, value in zip(TERMS, row, strict=True)})
        for kind, row in zip(KINDS, coefficients, strict=True)
    }


def fit_scale(
    modules: dict[Kind, ModuleCost], observations: Sequence[Observation]
) -> tuple[float, float]:
    """What tells whole networks from the sum of their modules: a factor, and us per module."""
    terms = [[_sum_ms(modules, one.works), len(one.works) / 1000] for one in observations]
    rows = np.array(terms) / np.array([[one.milliseconds] for one in observations])
    solution, _ = nnls(rows, np.ones(len(rows)))
    return _short(solution[0]), _short(solution[1])


def fit_error(
    modules: dict[Kind, ModuleCost],
    scale: float,
    observations: Sequence[Observation],
    us_per_boundary: float = 0.0,
) -> FitError:
    """How well coefficients predict other observations."""
    errors = []
    for one in observations:
        predicted = scale * _sum_ms(modules, one.works) + us_per_boundary * len(one.works) / 1000
        errors.append(100 * abs(predicted / one.milliseconds - 1))
    return FitError(mean_percent=float(np.mean(errors)), worst_percent=float(np.max(errors)))


def _short(value: float) -> float:
    """Six digits: far finer than any timing, and a file that people can read."""
    return float(f"{value:.6g}")


def _sum_ms(modules: dict[Kind, ModuleCost], works: Sequence[Work]) -> float:
    return sum(module_microseconds(modules[work.kind], work) for work in works) / 1000


def _typical(quantities: np.ndarray) -> np.ndarray:
    """Per term, the coefficient with which it alone would explain the measurements."""
    return 1 / np.maximum(quantities.mean(0), 1e-30)


def _quantities(works: Sequence[Work]) -> np.ndarray:
    """(kinds, terms): what each coefficient multiplies."""
    table = np.zeros((len(KINDS), len(TERMS)))
    for work in works:
        table[KINDS.index(work.kind)] += (
            1.0,
            work.flops / 1e6,
            work.params * BYTES / 1e6,
            work.activations * BYTES / 1e6,
        )
    return table
