"""What each method of selection reaches: error rates of runs side by side, as Markdown.

python -m bench.methods_table runs/small --set digits_small/unseen --reference alone

reads every `*/checkpoint` below the folder. Runs of one size belong together when they share
method, seed and, up to its last `-`, the folder's name without the size (`alone-038-s1`). Where a
set states the age of its speakers, children and adults have tables of their own.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
import tyro
from tqdm import tqdm

from ortho_edge.atomic import write_atomically
from ortho_edge.checkpoint import TrainedSubnet
from ortho_edge.cli import UserError, run
from ortho_edge.plots import to_png
from ortho_edge.reporting.comparison import paired_difference
from ortho_edge.reporting.runs import Run, Scores, load_run, score_sizes, with_scores
from ortho_edge.training.corpora import DataOptions
from ortho_edge.training.evaluation import ErrorRates, character_errors, word_errors
from ortho_edge.training.speech_sets import speech_set

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE_IN_NAME = re.compile(r"-\d{3}(?=-)")


@dataclass(frozen=True)
class Arguments:
    """Compare the methods that trained the runs of a folder."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Holds runs, each with a checkpoint/."""
    set: tuple[str, ...]
    """Sets to evaluate on, RECIPE/SET."""
    reference: str = "alone"
    """Name of the runs that the others are compared with, size by size."""
    data: Path | None = None
    """Folder of the corpora."""
    out: Path | None = None
    """Also write every figure as JSON."""
    evaluated: tuple[Path, ...] = ()
    """What `ortho_edge.evaluate --out` wrote, such as error rates with a language model: goes to
    --out, without the transcripts."""
    plot: Path | None = None
    """Also draw WER against FLOPs on the first set, a line per row."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A size of a run."""

    run: Run
    trained: TrainedSubnet

    @property
    def share(self) -> float:
        """FLOPs over those of the full network."""
        return self.run.flops_share(self.trained)

    def scores(self, name: str) -> Scores:
        """On a set."""
        return self.run.scores[name][self.trained.name]

    def rates(self, name: str, group: str | None = None) -> ErrorRates:
        """On a set, or of a group of its speakers."""
        scores = self.scores(name)
        return scores.rates if group is None else scores.groups[group]


@dataclass(frozen=True, kw_only=True)
class Row:
    """Sizes that one method reached with one seed, in one run or a run for each.

    Attributes:
        name: Of the method, as the folders have it.
        entries: By name of the size, the largest first.
        minutes: Of updates, all runs together.
    """

    name: str
    entries: Mapping[str, Entry]
    minutes: float


def update_minutes(run: Run) -> float:
    """Time that the updates of a run took, without reading data and evaluation.

    An update that took more than ten times the median was interrupted and is left out.
    """
    seconds = np.array(run.curves["seconds"][1])
    usual = seconds[seconds <= 10 * np.median(seconds)]
    return float(usual.mean()) * float(str(run.settings["num_steps"])) / 60


def rows(runs: Sequence[Run]) -> list[Row]:
    """Runs of one size put together, `full` with those that it is the largest size of."""
    by_name: dict[str, list[Run]] = {}
    for one in runs:
        by_name.setdefault(SIZE_IN_NAME.sub("", one.name), []).append(one)
    for name, members in by_name.items():
        seed = name.rpartition("-")[2]
        alone = all(len(one.checkpoint.subnets) == 1 for one in members)
        if alone and not name.startswith("full") and f"full-{seed}" in by_name:
            members += by_name[f"full-{seed}"]
    return [
        Row(
            name=name,
            entries=dict(
                sorted(
                    (
                        (one.name, Entry(run=member, trained=one))
                        for member in members
                        for one in member.checkpoint.subnets
                    ),
                    key=lambda item: -item[1].share,
                )
            ),
            minutes=sum(map(update_minutes, members)),
        )
        for name, members in by_name.items()
        if not name.startswith("full")
    ]


def groups(found: Sequence[Row], set_name: str) -> list[str]:
    """The groups of speakers of a set, if it states their age."""
    entry = next(iter(found[0].entries.values()))
    return list(entry.scores(set_name).groups)


def table(found: Sequence[Row], set_name: str, group: str | None = None) -> str:
    """WER and CER of every size, and the time of all updates."""
    title = set_name if group is None else f"{set_name}, {group}"
    sizes = max(len(row.entries) for row in found)
    lines = [
        f"| {title}: WER / CER, % (FLOPs) |" + " |" * sizes + " minutes |",
        "| --- |" + " ---: |" * (sizes + 1),
    ]
    for row in found:
        cells = [
            f"{rates.wer:.1f} / {rates.cer:.1f} ({100 * entry.share:.0f} %)"
            for entry in row.entries.values()
            for rates in [entry.rates(set_name, group)]
        ]
        cells += [""] * (sizes - len(cells))
        lines.append(f"| {row.name} | {' | '.join(cells)} | {row.minutes:.1f} |")
    return "\n".join(lines)


def differences(found: Sequence[Row], set_name: str, reference: str) -> str:
    """How far each row is above the reference of its seed, in points, with 95 % intervals."""
    known = {row.name: row for row in found}
    lines = [
        f"| {set_name}: above {reference}, points (95 %) | size | WER | CER |",
        "| --- | --- | --- | --- |",
    ]
    for row in found:
        base = known.get(f"{reference}-{row.name.rpartition('-')[2]}")
        if base is None or base is row:
            continue
        for size in (name for name in row.entries if name in base.entries):
            ours, theirs = (one.entries[size].scores(set_name).transcripts for one in (row, base))
            cells = []
            for count in (word_errors, character_errors):
                gap = paired_difference(ours, theirs, count=count)
                low, high = gap.interval
                cells.append(f"{gap.points:+.1f} ({low:+.1f} to {high:+.1f})")
            lines.append(f"| {row.name} | {size} | {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(found: Sequence[Row], set_name: str) -> "Figure":
    """WER with its interval over the share of the full network's FLOPs."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(color=colormaps["tab20"](range(20)))
    for row in found:
        rates = [entry.scores(set_name).rates for entry in row.entries.values()]
        centres = np.array([one.wer for one in rates])
        bounds = np.array([one.wer_interval for one in rates]).T
        axes.errorbar(
            [100 * entry.share for entry in row.entries.values()],
            centres,
            yerr=np.abs(bounds - centres),
            marker="o",
            capsize=2,
            label=row.name,
        )
    axes.set(xlabel="FLOPs, % of the full network", ylabel="WER, % (95 % interval)", title=set_name)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def main(arguments: Arguments) -> None:
    """Evaluates and prints."""
    torch.set_num_threads(1)
    paths = sorted(arguments.folder.glob("*/checkpoint"))
    if not paths:
        raise UserError(f"no run with a checkpoint/ in {arguments.folder}")
    runs = [load_run(path) for path in paths]
    options = DataOptions(root=arguments.data)
    for name in arguments.set:
        cuts = speech_set(name, options).to_eager()
        for number, one in enumerate(tqdm(runs, desc=name, unit="run", leave=False)):
            runs[number] = with_scores(runs[number], name, score_sizes(one, name, cuts))
    found = rows(runs)
    for name in arguments.set:
        for group in (None, *groups(found, name)):
            print(f"{table(found, name, group)}\n")
        print(f"{differences(found, name, arguments.reference)}\n")
    if arguments.plot is not None:
        write_atomically(arguments.plot, to_png(picture(found, arguments.set[0])))
    if arguments.out is not None:
        record = _record(found, arguments.set) + evaluated(arguments.evaluated)
        write_atomically(arguments.out, json.dumps(record, indent=1) + "\n")


def evaluated(paths: Sequence[Path]) -> list[dict]:
    """What `ortho_edge.evaluate` found, an entry for each size."""
    files = [json.loads(path.read_text("utf-8")) for path in paths]
    return [
        {
            "model": one["model"],
            "set": one["set"],
            "size": size,
            **{key: value for key, value in rates.items() if key != "transcripts"},
        }
        for one in files
        for size, rates in one["results"].items()
    ]


def _record(found: Sequence[Row], sets: Sequence[str]) -> list[dict]:
    return [
        {
            "row": row.name,
            "size": size,
            "run": entry.run.name,
            "method": entry.run.method,
            "seed": entry.run.settings["seed"],
            "command": entry.run.checkpoint.provenance["command"],
            "commit": entry.run.checkpoint.provenance["commit"],
            "flops_share": entry.share,
            "kept": list(entry.trained.subnet.kept),
            "entropy": entry.run.checkpoint.provenance["row_entropy_at_freeze"],
            "updates": entry.run.settings["num_steps"],
            "update_minutes": update_minutes(entry.run),
            "dev_wer": entry.trained.metrics.get("dev_wer"),
            **{
                f"{name}/{key}": value
                for set_name in sets
                for group in (None, *groups(found, set_name))
                for name in [set_name if group is None else f"{set_name}/{group}"]
                for rates in [entry.rates(set_name, group)]
                for key, value in (
                    ("wer", rates.wer),
                    ("interval", rates.wer_interval),
                    ("cer", rates.cer),
                    ("cer_interval", rates.cer_interval),
                )
            },
        }
        for row in found
        for size, entry in row.entries.items()
    ]


if __name__ == "__main__":
    run(main, Arguments, prog="python -m bench.methods_table")
