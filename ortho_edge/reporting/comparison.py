"""Runs beside each other: differences of error rates and overlap of what they selected."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ortho_edge.components import ComponentSpace
from ortho_edge.reporting.runs import Run
from ortho_edge.training.evaluation import (
    BOOTSTRAP_SAMPLES,
    Transcript,
    resampling_groups,
    word_errors,
)

CHANCE_SAMPLES = 200


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Error rate of one model minus that of another on the same utterances, in points."""

    points: float
    interval: tuple[float, float]
    """95 % paired bootstrap: the same utterances (or speakers) are drawn for both."""


def paired_difference(
    ours: Sequence[Transcript],
    theirs: Sequence[Transcript],
    seed: int = 0,
    count: Callable[[Transcript], tuple[int, int]] = word_errors,
) -> Difference:
    """How much higher the first error rate is, and how far chance could move that.

    Args:
        ours: Transcripts of one model.
        theirs: Those of the other, of the same utterances in any order.
        seed: Of the bootstrap.
        count: What is wrong and what was said in an utterance: words, or `character_errors`.

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
    errors, words = np.array([count(one) for one in spoken], dtype=np.float64).T
    errors -= [count(other[one.cut_id])[0] for one in spoken]
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
    """How alike the runs' selections for one size are, over all pairs of runs.

    Attributes:
        size: Its name, or names.
        components: Jaccard index of the kept components.
        components_by_chance: That of random subnets with as many components.
        modules: Jaccard index of how many units each module keeps. Chunks of a module are alike
            until training tells them apart, as heads are, so which of them is kept says little.
        modules_by_chance: That of the same random subnets.
        in_all: Components that every run keeps.
        kept: Components that each run keeps.
    """

    size: str
    components: float
    components_by_chance: float
    modules: float
    modules_by_chance: float
    in_all: int
    kept: tuple[int, ...]


def overlaps(runs: Sequence[Run]) -> list[Overlap]:
    """Overlap of every size besides the full network.

    Runs with equally many sizes are compared by rank, for sizes may be named after what they were
    trained for, such as `s055` and `pixel8-3.2ms`; others by the names that all of them have.

    Args:
        runs: At least two, of the same component space; with fewer there is nothing to compare.
    """
    spaces = [run.checkpoint.supernet.space for run in runs]
    if len(runs) < 2 or len({space.architecture for space in spaces}) > 1:
        return []
    sizes = [
        {one.name: frozenset(one.subnet.kept) for one in run.checkpoint.subnets if one.subnet.kept}
        for run in runs
    ]
    if len({len(one) for one in sizes}) == 1:
        matched = [(names, names) for names in zip(*sizes, strict=True)]
    else:
        matched = [
            ((name,), (name,) * len(runs)) for name in sizes[0] if all(name in one for one in sizes)
        ]
    found = []
    for shown, names in matched:
        kept = [one[name] for one, name in zip(sizes, names, strict=True)]
        if min(map(len, kept)) < len(spaces[0]):
            found.append(_overlap(" / ".join(dict.fromkeys(shown)), kept, spaces[0]))
    return found


def _overlap(size: str, kept: list[frozenset[int]], space: ComponentSpace) -> Overlap:
    pairs = list(combinations(kept, 2))
    rng = np.random.default_rng(0)
    drawn = [
        tuple(frozenset(rng.permutation(len(space))[: len(one)].tolist()) for one in pair)
        for pair in pairs
        for _ in range(CHANCE_SAMPLES)
    ]
    return Overlap(
        size=size,
        components=float(np.mean([_alike(*pair) for pair in pairs])),
        components_by_chance=float(np.mean([_alike(*pair) for pair in drawn])),
        modules=float(np.mean([_alike_modules(space, *pair) for pair in pairs])),
        modules_by_chance=float(np.mean([_alike_modules(space, *pair) for pair in drawn])),
        in_all=len(frozenset.intersection(*kept)),
        kept=tuple(map(len, kept)),
    )


def _alike(one: frozenset[int], other: frozenset[int]) -> float:
    return len(one & other) / len(one | other)


def _alike_modules(space: ComponentSpace, one: frozenset[int], other: frozenset[int]) -> float:
    counts = [
        Counter((space.components[index].block, space.components[index].module) for index in kept)
        for kept in (one, other)
    ]
    return (counts[0] & counts[1]).total() / (counts[0] | counts[1]).total()
