"""Cases by number: which file, which damage, and how its reader took it."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.attack.children import (
    ACCEPTED,
    CRASHED,
    MORE_BYTES,
    REFUSED,
    SECONDS,
    Outcome,
    outcomes,
)
from tests.attack.kinds import Kind
from tests.attack.mutations import damaged


@dataclass
class Count:
    """How the cases of one kind ended.

    Attributes:
        kind: Its name.
        tried: Cases.
        refused: By a UserError, those whose reader crashed in a process of its own included.
        accepted: Read.
        crashed: Readers that crashed in a process of their own.
        slowest: Seconds of the slowest case.
        failures: By what they have in common, the outcome of the case with the smallest file.
        failed: How many.
    """

    kind: str
    tried: int = 0
    refused: int = 0
    accepted: int = 0
    crashed: int = 0
    failed: int = 0
    slowest: float = 0.0
    failures: dict[str, tuple[Outcome, Path]] = field(default_factory=dict)

    @staticmethod
    def header() -> str:
        """The head of the table."""
        names = ("tried", "refused", "accepted", "failed", "slowest")
        return f"{'kind':<18}" + "".join(f"{name:>10}" for name in names)

    def row(self) -> str:
        """A line of the table."""
        numbers = "".join(
            f"{number:>10}" for number in (self.tried, self.refused, self.accepted, self.failed)
        )
        contained = f"  ({self.crashed} crashed contained)" if self.crashed else ""
        return f"{self.kind:<18}{numbers}{self.slowest:>8.1f} s{contained}"

    def findings(self) -> list[str]:
        """The failures, one of each sort, and how to see them again."""
        return [
            f"{self.kind}, case {outcome.number}: {outcome.verdict}, {outcome.detail[:300]}\n"
            f"    kept: {path}; again: python -m tests.attack --kind {self.kind!r} "
            f"--case {outcome.number}"
            for outcome, path in self.failures.values()
        ]

    @classmethod
    def of_all(cls, counts: Sequence["Count"]) -> "Count":
        """The sum."""
        total = cls("all")
        for one in counts:
            total.tried += one.tried
            total.refused += one.refused
            total.accepted += one.accepted
            total.crashed += one.crashed
            total.failed += one.failed
            total.slowest = max(total.slowest, one.slowest)
        return total


class Target:
    """The real files of a kind in a folder; a case damages one and puts it back."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        """Makes the files, which must be accepted as they are."""
        self.kind, self.folder = kind, folder
        kind.make(folder)
        self.real = {name: (folder / name).read_bytes() for name in kind.damage}
        for name in self.real:
            kind.read(folder, name)

    def case(self, number: int) -> tuple[str, bytes]:
        """The file that a case damages and its content then: the same for the same number."""
        random = Random(f"{self.kind.name} {number}")
        name = random.choice(sorted(self.real))
        return name, damaged(self.real[name], self.kind.damage[name], random)

    def restore(self) -> None:
        """Puts every file back: a case that kills its process does not."""
        for name, content in self.real.items():
            (self.folder / name).write_bytes(content)

    def attempt(self, number: int) -> None:
        """Lets the damaged file be read."""
        name, content = self.case(number)
        path = self.folder / name
        try:
            path.write_bytes(content)
            self.kind.read(self.folder, name)
        finally:
            path.write_bytes(self.real[name])


def run_kind(
    kind: Kind,
    cases: Sequence[int],
    scratch: Path,
    keep: Path,
    *,
    seconds: float = SECONDS,
    more_bytes: int = MORE_BYTES,
) -> Count:
    """Runs cases of a kind and keeps the smallest file of every sort of failure.

    Args:
        kind: The kind.
        cases: Their numbers.
        scratch: An empty folder.
        keep: Where files that failed go.
        seconds: Most time for a case.
        more_bytes: Most memory for the cases of a child.
    """
    target, count = Target(kind, scratch), Count(kind.name)
    for outcome in outcomes(cases, target.attempt, scratch, seconds, more_bytes, target.restore):
        count.tried += 1
        count.slowest = max(count.slowest, outcome.seconds)
        if outcome.verdict == CRASHED and kind.contained:
            count.crashed += 1
            count.refused += 1
        elif outcome.verdict == REFUSED:
            count.refused += 1
        elif outcome.verdict == ACCEPTED:
            count.accepted += 1
        else:
            count.failed += 1
            _keep(target, outcome, keep, count)
    return count


def _keep(target: Target, outcome: Outcome, keep: Path, count: Count) -> None:
    """Keeps a case's file unless a smaller one failed alike."""
    name, content = target.case(outcome.number)
    sort = re.sub(r"[0-9]+|'[^']*'", "*", f"{outcome.verdict} {outcome.detail}")[:60]
    earlier = count.failures.get(sort)
    if earlier is not None:
        if earlier[1].stat().st_size <= len(content):
            return
        shutil.rmtree(earlier[1].parent)
    folder = keep / f"{target.kind.name.replace(' ', '-')}-{outcome.number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / Path(name).name).write_bytes(content)
    count.failures[sort] = outcome, folder / Path(name).name


def repeated(kind: Kind, number: int, scratch: Path) -> None:
    """Runs one case in this process, with whatever that brings."""
    Target(kind, scratch).attempt(number)
