"""`python -m ortho_edge.train <recipe>`: train a supernet by a named recipe."""

import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ortho_edge.cli import INTERRUPTED_STATUS, UserError, run
from ortho_edge.options import Count, Range, Seed, Threads, Workers

if TYPE_CHECKING:
    from ortho_edge.training.distributed import Ranks
    from ortho_edge.training.trainer import Trainer


@dataclass(frozen=True)
class Arguments:
    """Train a supernet and its subnets in one run.

    The run's folder holds the state (an interrupted run goes on where it stopped when the same
    command is given again), metrics.jsonl, TensorBoard events and, at the end, the checkpoint.
    """

    recipe: Annotated[str, tyro.conf.Positional]
    """digits, digits_small, speechocean762, speechocean762_small, librispeech_512 or
    tedlium2_384."""
    out: Path | None = None
    """Folder of the run; runs/<recipe> by default."""
    data: Path | None = None
    """Folder of the corpora, by default ORTHO_EDGE_DATA, else ../shared/data; for librispeech_512
    and tedlium2_384 what `python -m ortho_edge.prepare` wrote."""
    synthetic: tuple[Path, ...] = ()
    """Synthesised voices made by `python -m ortho_edge.synthesize`, for the digits recipe."""
    steps: Annotated[int, Range(2, 10**9)] | None = None
    """Updates, instead of the recipe's number."""
    targets: tuple[str, ...] = ()
    """Sizes, instead of the recipe's: shares such as 0.7 0.3, or what devices allow, such as
    pixel8@8ms (latency) or raspberrypi5@12MB (memory)."""
    criterion: str | None = None
    """The cost that shares are of: flops, params, latency:DEVICE or memory:DEVICE."""
    granularity: str | None = None
    """What is selected: component or layer."""
    method: str | None = None
    """How subnets are chosen: orthosoftmax, top-k, zero-out, aux-loss or random; or alone (one
    target and nothing else) or full (the full network and nothing else)."""
    subnet_of: Path | None = None
    """Checkpoint whose subnet of the same target method alone trains anew."""
    loss_weighting: str | None = None
    """How the subnets' losses are weighed: focal (as released with the paper), detached or
    constant, instead of the recipe's."""
    distill: Annotated[float, Range(0, 10**6)] | None = None
    """Weight of the subnets' divergence from the full network's posteriors; none by default."""
    any_budget: bool = False
    """Also train subnets between the sizes, so that every budget between them has one."""
    front_end_chunks: Annotated[int, Range(1, 4096)] | None = None
    """Divide the front end's last convolution into so many chunks; all but the first can be dropped
    like any component. By default the front end is never dropped."""
    seed: Seed | None = None
    """Seed, instead of the recipe's."""
    device: str | None = None
    """cpu, cuda or mps; the best that is there by default."""
    accumulate: Annotated[int, Range(1, 10_000)] = 1
    """Parts in which each process takes its share of a batch, where memory is short."""
    compile: bool = False
    """Let torch.compile work on the network."""
    threads: Threads | None = None
    """CPU threads of the computation; all by default."""
    workers: Workers = 1
    """Processes that prepare batches."""
    save_every: Count | None = None
    """Updates between two saves of the state, instead of the recipe's number. What was done since
    the last one is lost if the process is killed; Ctrl-C and SIGTERM save first."""


def main(arguments: Arguments) -> None:
    """Trains and writes the checkpoint."""
    import torch

    from ortho_edge.training.corpora import DataOptions
    from ortho_edge.training.distributed import started_ranks
    from ortho_edge.training.recipes import recipe, with_elastic_front_end
    from ortho_edge.training.stopping import STOPPED_STATUS
    from ortho_edge.training.trainer import Trainer
    from ortho_kernels.dispatch import requested

    chosen = recipe(arguments.recipe)
    changes = {
        name: value
        for name, value in (
            ("num_steps", arguments.steps),
            ("seed", arguments.seed),
            ("save_every", arguments.save_every),
            ("criterion", arguments.criterion),
            ("granularity", arguments.granularity),
            ("method", arguments.method),
            ("loss_weighting", arguments.loss_weighting),
            ("distill", arguments.distill),
            ("any_budget", arguments.any_budget or None),
            ("targets", tuple(map(_target, arguments.targets)) or None),
        )
        if value is not None
    }
    if arguments.subnet_of is not None:
        changes["kept"] = _kept(arguments.subnet_of, arguments.targets)
    try:
        requested()
        chosen = replace(chosen, training=replace(chosen.training, **changes))
        if arguments.front_end_chunks is not None:
            chosen = with_elastic_front_end(chosen, arguments.front_end_chunks)
    except ValueError as error:
        raise UserError(str(error)) from error
    device = _device(arguments.device)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    corpus = chosen.corpus(DataOptions(root=arguments.data, synthetic=arguments.synthetic))
    folder = arguments.out or Path("runs") / chosen.name
    with started_ranks(device) as (ranks, own_device), _folder_for(ranks, folder):
        trainer = Trainer(
            recipe=chosen,
            corpus=corpus,
            folder=folder,
            device=own_device,
            num_workers=arguments.workers,
            command=shlex.join(["python", "-m", "ortho_edge.train", *sys.argv[1:]]),
            ranks=ranks,
            accumulate=arguments.accumulate,
            compile=arguments.compile,
        )
        try:
            path = trainer.run()
        except KeyboardInterrupt:
            print(_lost(trainer))
            raise
    if trainer.stopped:
        by = "Ctrl-C" if trainer.interrupted else "SIGTERM"
        step = trainer.progress.step
        print(
            f"stopped by {by} after update {step}, which is saved in {folder}: nothing is lost; "
            "the same command goes on from there"
        )
        sys.exit(INTERRUPTED_STATUS if trainer.interrupted else STOPPED_STATUS)
    if path is not None:
        print(f"checkpoint: {path}")


def _folder_for(ranks: "Ranks", folder: Path) -> AbstractContextManager[None]:
    """Keeps other runs out of the folder, which the first process alone writes to."""
    from ortho_edge.training.run_lock import run_lock

    return run_lock(folder) if ranks.is_first else nullcontext()


def _lost(trainer: "Trainer") -> str:
    """What a run that ends at once leaves."""
    done, saved = trainer.progress.step, trainer.saved_step
    lost = "no update is lost"
    if done > saved:
        lost = (
            f"update {done} is lost"
            if done == saved + 1
            else (f"updates {saved + 1} to {done} are lost")
        )
    if saved == 0:
        return f"{lost}; nothing is saved in {trainer.folder}, the same command begins anew"
    return f"{lost}; the same command goes on after update {saved}, saved in {trainer.folder}"


def _target(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _kept(path: Path, targets: tuple[str, ...]) -> tuple[int, ...]:
    """What a checkpoint's subnet of the only target keeps."""
    from ortho_edge.checkpoint import load_checkpoint

    subnets = load_checkpoint(path).subnets
    for one in subnets if len(targets) == 1 else ():
        wanted = _target(targets[0])
        if isinstance(wanted, str):
            found = one.name == wanted.replace("@", "-")
        else:
            found = abs(one.target - wanted) < 1e-6
        if found:
            return one.subnet.kept
    known = ", ".join(f"{one.target:g} ({one.name})" for one in subnets)
    raise UserError(f"--targets must name one size of {path}; it holds {known}")


def _device(name: str | None):
    import torch

    accelerator = torch.accelerator.current_accelerator()
    best = accelerator.type if accelerator is not None else "cpu"
    known = ["cpu"] if best == "cpu" else ["cpu", best]
    if name is not None and name not in known:
        raise UserError(f"no device {name!r} here; known: {', '.join(known)}")
    return torch.device(name or best)


if __name__ == "__main__":
    run(main, Arguments, prog="python -m ortho_edge.train")
