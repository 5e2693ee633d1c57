"""`python -m ortho_edge.report CHECKPOINT`: sizes, error rates, costs and curves on one page."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ortho_edge.cli import UserError, run
from ortho_edge.options import Threads


@dataclass(frozen=True)
class Arguments:
    """Write what is known of a checkpoint to one HTML file that needs nothing else.

    It shows what each size keeps, costs and gets wrong, and how training went. With more than one
    checkpoint it compares the others with the first, and how alike their selections are.
    """

    checkpoints: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Checkpoint folders; by default the one that ships."""
    out: Path = Path("report.html")
    """File to write."""
    device: tuple[str, ...] = ("pixel8",)
    """Devices whose predicted costs are shown: names or .toml files."""
    set: tuple[str, ...] = ()
    """Sets to evaluate every size on: RECIPE/SET, such as digits/unseen, or a folder with
    transcripts.tsv and audio/<utterance>.flac. The error rates of training stand there anyway."""
    data: Path | None = None
    """Folder of the corpora; by default ORTHO_EDGE_DATA, else ../shared/data."""
    synthetic: tuple[Path, ...] = ()
    """Synthesised voices, which are part of digits/dev when training had them."""
    threads: Threads = 1
    """CPU threads."""


def main(arguments: Arguments) -> None:
    """Writes the page.

    Raises:
        UserError: A checkpoint, device or set cannot be used, or the file cannot be written.
    """
    if arguments.out.is_dir():
        raise UserError(f"--out must be a file, {arguments.out} is a folder")

    import torch

    from ortho_edge import progress
    from ortho_edge.atomic import write_atomically
    from ortho_edge.checkpoint import shipped_checkpoint
    from ortho_edge.devices.catalogue import load_profile
    from ortho_edge.fleet import Demand
    from ortho_edge.pareto import fronts
    from ortho_edge.reporting.page import page
    from ortho_edge.reporting.runs import load_run, score_sizes, with_scores
    from ortho_edge.training.corpora import DataOptions
    from ortho_edge.training.speech_sets import speech_set

    torch.set_num_threads(arguments.threads)
    runs = [load_run(path) for path in arguments.checkpoints or (shipped_checkpoint(),)]
    profiles = [load_profile(name) for name in arguments.device]
    demands = [Demand(profile=one, budget=one.budget) for one in profiles]
    options = DataOptions(root=arguments.data, synthetic=arguments.synthetic)
    sets = {name: speech_set(name, options) for name in arguments.set}
    work = [(number, name) for name in sets for number in range(len(runs))]
    for number, name in progress.track(work, "evaluating", unit="runs"):
        runs[number] = with_scores(runs[number], name, score_sizes(runs[number], name, sets[name]))
    command = shlex.join(["python", "-m", "ortho_edge.report", *sys.argv[1:]])
    content = page(runs, fronts(runs[0].checkpoint, demands), command)
    write_atomically(arguments.out, content)
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    run(main, Arguments, prog="python -m ortho_edge.report")
