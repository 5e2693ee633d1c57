"""`python -m tests.attack`: damaged files of every kind, and what became of them.

A case passes when its file is refused by a UserError, which a command prints as one line with
status 2, or read for what it says. Anything else is a failure: another exception, a crash, more
than 20 seconds or 1 GB, a file written outside the case's folder, anything executed.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.attack.harness import Count, repeated, run_kind
from tests.attack.kinds import all_kinds


def _shares(cases: int) -> dict[str, int]:
    """Cases of every kind; what rounding leaves over goes to the largest."""
    kinds = all_kinds()
    total = sum(one.share for one in kinds)
    found = {one.name: max(1, int(cases * one.share / total)) for one in kinds}
    largest = max(kinds, key=lambda one: one.share).name
    found[largest] += max(0, cases - sum(found.values()))
    return found


def main() -> int:
    """Prints the table; the exit status is 1 where a case failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack")
    parser.add_argument("--cases", type=int, default=10_000, help="of all kinds together")
    parser.add_argument("--first", type=int, default=0, help="number of the first case of a kind")
    parser.add_argument("--kind", help="only this one")
    parser.add_argument("--case", type=int, help="repeat one case of --kind in this process")
    parser.add_argument("--keep", type=Path, default=Path(".attack"), help="for files that failed")
    chosen = parser.parse_args()
    # A forked child would wait for ever for the threads that its parent had.
    torch.set_num_threads(1)
    kinds = [one for one in all_kinds() if chosen.kind in (None, one.name)]
    if not kinds:
        parser.error(f"no kind {chosen.kind}; known: {', '.join(one.name for one in all_kinds())}")
    if chosen.case is not None:
        with tempfile.TemporaryDirectory() as scratch:
            repeated(kinds[0], chosen.case, Path(scratch))
        return 0
    shares = _shares(chosen.cases)
    counts: list[Count] = []
    print(Count.header(), flush=True)
    for kind in kinds:
        number = chosen.cases if chosen.kind else shares[kind.name]
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            cases = range(chosen.first, chosen.first + number)
            counts.append(run_kind(kind, cases, Path(scratch), chosen.keep))
        print(f"{counts[-1].row()}  {time.monotonic() - started:6.0f} s", flush=True)
    print(Count.of_all(counts).row())
    for count in counts:
        for line in count.findings():
            print(line)
    return int(any(count.failures for count in counts))


if __name__ == "__main__":
    sys.exit(main())
