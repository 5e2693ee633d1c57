"""Runs beside each other: differences of error rates and overlap of what they selected."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ortho_edge.reporting.runs import Run
from ortho_edge.training.evaluation import (
    BOOTSTRAP_SAMPLES,
    Transcript,
    resampling_groups,
    word_errors,
)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Word error rate of one model minus that of another on the same utterances, in points."""

    points: float
    interval: tuple[float, float]
    """95 % paired bootstrap: the same utterances (or speakers) are drawn for both."""


def paired_difference(
    ours: Sequence[Transcript], theirs: Sequence[Transcript], seed: int = 0
) -> Difference:
    """How much higher the first word error rate is, and how far chance could move that.

    Args:
        ours: Transcripts of one model.
        theirs: Those of the other, of the same utterances in any order.
        seed: Of the bootstrap.

    Raises:
        ValueError: The utterances are not the same, or have no words.
    """
    other = {one.cut_id: one for one in theirs}
    if len(other) != len(ours) or any(
        one.cut_id not in other or other[one.cut_id].reference != one.reference for one in ours
    ):
        raise ValueError("the two models were not evaluated on the same utterances")
    spoken = [one for one in ours if one.reference.strip()]
    if not spoken:
        raise ValueError("no reference words to compare with")
    errors, words = np.array([word_errors(one) for one in spoken], dtype=np.float64).T
    errors -= [word_errors(other[one.cut_id])[0] for one in spoken]
    groups = resampling_groups(spoken)
    errors, words = np.bincount(groups, errors), np.bincount(groups, words)
    drawn = np.random.default_rng(seed).integers(len(errors), size=(BOOTSTRAP_SAMPLES, len(errors)))
    differences = 100 * errors[drawn].sum(1) / words[drawn].sum(1)
    low, high = np.percentile(differences, [2.5, 97.5])
    return Difference(
        points=float(100 * errors.sum() / words.sum()), interval=(float(low), float(high))
    )


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """How alike the runs' selections for one size are.

    Attributes:
        size: Its name.
        mean: Jaccard index of the kept components, averaged over all pairs of runs.
        smallest: Of the pairs.
        chance: What two random subnets with as many components would have on average.
        in_all: Components that every run keeps.
        kept: Components that each run keeps.
    """

    size: str
    mean: float
    smallest: float
    chance: float
    in_all: int
    kept: tuple[int, ...]


def overlaps(runs: Sequence[Run]) -> list[Overlap]:
    """Overlap of every size that all runs have, the full network left out.

    Args:
        runs: At least two, of the same component space; with fewer there is nothing to compare.
    """
    if len(runs) < 2 or len({len(run.checkpoint.supernet.space) for run in runs}) > 1:
        return []
    total = len(runs[0].checkpoint.supernet.space)
    by_name = [
        {one.name: frozenset(one.subnet.kept) for one in run.checkpoint.subnets} for run in runs
    ]
    common = [name for name in by_name[0] if all(name in sizes for sizes in by_name)]
    return [
        _overlap(name, [sizes[name] for sizes in by_name], total)
        for name in common
        if any(0 < len(sizes[name]) < total for sizes in by_name)
    ]


def _overlap(size: str, kept: list[frozenset[int]], total: int) -> Overlap:
    pairs = [(one, other) for one, other in combinations(kept, 2) if one | other]
    indices = [len(one & other) / len(one | other) for one, other in pairs]
    shared = [len(one) * len(other) / total for one, other in pairs]
    chances = [
        both / (len(one) + len(other) - both)
        for (one, other), both in zip(pairs, shared, strict=True)
    ]
    return Overlap(
        size=size,
        mean=float(np.mean(indices)),
        smallest=min(indices),
        chance=float(np.mean(chances)),
        in_all=len(frozenset.intersection(*kept)),
        kept=tuple(map(len, kept)),
    )
