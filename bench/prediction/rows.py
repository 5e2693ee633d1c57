"""One prediction beside one measurement, and many of them as a table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Row:
    """A figure of one subnet.

    Attributes:
        share: Of the components that the subnet keeps.
        quantity: Such as `file size, MB`.
        seconds: Of audio; None where the figure does not depend on it.
        halves_percent: How much two measurements of it differ: the even and the odd turns; None
            where it repeats exactly.
        p50: Median of all calls, where `measured` is their minimum.
    """

    subnet: str
    share: float
    runtime: str
    precision: str
    quantity: str
    seconds: float | None
    predicted: float
    measured: float
    halves_percent: float | None = None
    p50: float | None = None

    @property
    def error_percent(self) -> float:
        """Of the prediction."""
        return 100 * (self.predicted / self.measured - 1)


@dataclass(frozen=True, kw_only=True)
class Target:
    """What predictions of a quantity must reach.

    Attributes:
        worst_percent: Of every subnet, or of a share of them.
        share: Of the subnets that must be within `worst_percent`.
        mean_percent: Of all.
    """

    worst_percent: float
    share: float = 1.0
    mean_percent: float | None = None

    @property
    def text(self) -> str:
        """In words."""
        who = "all" if self.share == 1 else f"{100 * self.share:.0f} %"
        mean = "" if self.mean_percent is None else f"mean {self.mean_percent:g} %, "
        return f"{mean}{who} within {self.worst_percent:g} %"

    def met(self, errors: np.ndarray) -> bool:
        """Whether errors in per cent reach it."""
        mean_met = self.mean_percent is None or np.abs(errors).mean() <= self.mean_percent
        return bool(mean_met and (np.abs(errors) <= self.worst_percent).mean() >= self.share)


TARGETS = {
    "file size, MB": Target(worst_percent=1),
    "planned memory, MB": Target(worst_percent=5),
    "peak memory, MB": Target(worst_percent=15),
    "instructions, M": Target(worst_percent=1),
    "cycles, M": Target(worst_percent=1),
    "arena, kB": Target(worst_percent=5),
    "latency, ms": Target(worst_percent=10, share=0.95, mean_percent=4),
}

Group = tuple[str, str, str, float | None]


def groups(rows: Sequence[Row]) -> dict[Group, list[Row]]:
    """Rows by quantity, runtime, precision and length; where lengths differ, all together last."""
    found: dict[Group, list[Row]] = {}
    for one in rows:
        key = (one.quantity, one.runtime, one.precision)
        if one.seconds is not None:
            found.setdefault((*key, one.seconds), []).append(one)
        found.setdefault((*key, None), []).append(one)
    return dict(sorted(found.items(), key=lambda item: (item[0][:3], item[0][3] or np.inf)))


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line per group with its errors and its target."""
    noisy = any(one.halves_percent is not None for one in rows)
    head = ["figure", "runtime", "audio", "figures", "mean error", "bias", "worst"]
    head += ["same measured twice", "p50 over minimum"] if noisy else []
    lines = [[*head, "target", "met"]]
    for (quantity, runtime, precision, seconds), group in groups(rows).items():
        errors = np.array([one.error_percent for one in group])
        target = TARGETS[quantity]
        lines.append([
            quantity,
            runtime if precision == "fp32" else f"{runtime} {precision}",
            "-" if group[0].seconds is None else "all" if seconds is None else f"{seconds:g} s",
            str(len(group)),
            f"{np.abs(errors).mean():.2f} %",
            f"{errors.mean():+.2f} %",
            f"{np.abs(errors).max():.2f} %",
            *(_noise(group) if noisy else []),
            target.text,
            _met(target, errors),
        ])  # fmt: skip
    rule = ["---", "---", "---", *("---:" for _ in head[3:]), "---", "---"]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [lines[0], rule, *lines[1:]])


def _noise(group: Sequence[Row]) -> list[str]:
    halves = [one.halves_percent for one in group if one.halves_percent is not None]
    ratios = [one.p50 / one.measured for one in group if one.p50 is not None]
    return [
        f"{np.mean(halves):.2f} %, {np.max(halves):.1f} % at worst",
        f"{np.mean(ratios):.3f}",
    ]


def _met(target: Target, errors: np.ndarray) -> str:
    if target.met(errors):
        return "yes"
    within = 100 * (np.abs(errors) <= target.worst_percent).mean()
    return f"no, {within:.0f} % are within"


def worst(rows: Sequence[Row], count: int = 5) -> list[Row]:
    """The rows with the largest errors."""
    return sorted(rows, key=lambda one: -abs(one.error_percent))[:count]
