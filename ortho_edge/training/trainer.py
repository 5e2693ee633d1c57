"""The training loop: two stages, exact resume, a checkpoint at the end.

Everything random in update t depends on (seed, t) alone, so a run that is interrupted and resumed
gives the same losses as one that is not.
"""

import dataclasses
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from signal import SIGINT

import numpy as np
import torch
from torch import nn

from ortho_edge.checkpoint import Checkpoint, TrainedSubnet, save_checkpoint
from ortho_edge.cli import UserError
from ortho_edge.components import ComponentSpace
from ortho_edge.data.dataset import Batch, training_batches
from ortho_edge.nesting import between
from ortho_edge.ortho_softmax import SelectionProblem
from ortho_edge.plots import selection_map, to_png
from ortho_edge.subnet import Subnet
from ortho_edge.supernet import Regularization, Supernet
from ortho_edge.training.config import TrainingConfig
from ortho_edge.training.corpora import Corpus
from ortho_edge.training.distributed import ALONE, Ranks
from ortho_edge.training.evaluation import wer_summary
from ortho_edge.training.metrics import METRICS, RunLog
from ortho_edge.training.optimization import SupernetTraining, make_optimizer
from ortho_edge.training.outcome import development_rates, rated, run_facts
from ortho_edge.training.parts import BatchCounts, count
from ortho_edge.training.provenance import development_data, source_commit, training_data
from ortho_edge.training.recipes import Recipe
from ortho_edge.training.selection import make_selection
from ortho_edge.training.state import DEVELOPMENT_DATA, TRAINING_DATA, load_state, save_state
from ortho_edge.training.stopping import StopSignal
from ortho_edge.training.subnet_sampling import (
    Step,
    any_budget_step,
    droppable_modules,
    sandwich_step,
)
from ortho_edge.training.targets import device_settings, resolve_targets
from ortho_edge.training.update import Updater

logger = logging.getLogger(__name__)

CHECKPOINT_FOLDER = "checkpoint"
SELECTION_PICTURE = "selection.png"


@dataclass
class Trainer:
    """A run in its folder.

    Attributes:
        recipe: What is trained.
        corpus: On what.
        folder: Where state, logs and the checkpoint go.
        device: Where it runs.
        num_workers: Loader processes.
        command: The command line, for the record.
        ranks: The processes that train together, each with its share of every batch.
        accumulate: Parts in which each takes its share, one after the other.
        compile: Let torch.compile work on the supernet.
    """

    recipe: Recipe
    corpus: Corpus
    folder: Path
    device: torch.device
    num_workers: int = 0
    command: str = ""
    ranks: Ranks = ALONE
    accumulate: int = 1
    compile: bool = False

    def __post_init__(self) -> None:
        config = self.recipe.training
        torch.manual_seed(config.seed)
        architecture = self.recipe.architecture(len(self.corpus.tokens))
        space = ComponentSpace(architecture)
        self.problem = SelectionProblem(space, config.granularity)
        try:
            selection = make_selection(self.problem, config, resolve_targets(config, space))
        except ValueError as error:
            raise UserError(str(error)) from error
        self.targets = selection.targets
        supernet = Supernet(architecture, 1 + len(self.targets))
        self.model = SupernetTraining(supernet, selection).to(self.device)
        self.optimizer = make_optimizer(self.model, config)
        self.progress = load_state(self.folder, self.model, self.optimizer, self._run_settings())
        if not self.ranks.agree(self.progress.step):
            raise UserError(
                f"the processes see different states in {self.folder}: it must be shared"
            )
        network: nn.Module = supernet
        if self.compile:
            network = torch.compile(supernet)  # pyright: ignore[reportAssignmentType]
        self.updater = Updater(
            model=self.model,
            network=self.ranks.wrap(network),
            optimizer=self.optimizer,
            config=config,
            ranks=self.ranks,
            accumulate=self.accumulate,
        )
        self.stopped = self.interrupted = False
        self.saved_step = self.progress.step
        self._started_from = source_commit()

    @property
    def config(self) -> TrainingConfig:
        """The recipe's hyperparameters."""
        return self.recipe.training

    def _run_settings(self) -> dict:
        """What a resumed run must share with the one that was interrupted."""
        settings = dataclasses.asdict(self.config)
        for name in ("log_every", "evaluate_every", "save_every"):
            del settings[name]
        # Younger than some states: a run that does without is the same as before.
        for name in ("distill", "any_budget"):
            if not settings[name]:
                del settings[name]
        if settings["loss_weighting"] == "detached":
            del settings["loss_weighting"]
        if (chunks := self.problem.space.architecture.front_end_chunks) > 1:
            settings["front_end_chunks"] = chunks
        return {
            "recipe": self.recipe.name,
            **device_settings(self.targets),
            **self._data,
            "symbols": hashlib.sha256(self.corpus.tokens.lines().encode()).hexdigest(),
            **settings,
        }

    @cached_property
    def _data(self) -> dict[str, dict]:
        """What identifies the data."""
        return {
            TRAINING_DATA: dataclasses.asdict(training_data(self.corpus)),
            DEVELOPMENT_DATA: dataclasses.asdict(development_data(self.corpus)),
        }

    def run(self, stop_after: int | None = None) -> Path | None:
        """Trains to the end and writes the checkpoint, or stops early after an update.

        Args:
            stop_after: Updates after which to save and return, as an interruption would.

        Returns:
            The checkpoint's folder, or None when stopped early, by `stop_after`, SIGTERM or
            Ctrl-C; or in all processes but the first, which alone writes.
        """
        config = self.config
        last = min(config.num_steps, stop_after or config.num_steps)
        with StopSignal() as signal, ExitStack() as stack:
            log = None
            if self.ranks.is_first:
                log = RunLog(self.folder, self.progress.step, config.num_steps)
                stack.enter_context(log)
            for batch in self._batches():
                if self.progress.step >= last:
                    break
                counts = count(batch, self.ranks, stopping=signal.received is not None)
                if counts.stopping:
                    self.stopped, self.interrupted = True, signal.received == SIGINT
                    break
                self._update(batch, counts, log)
        self._save()
        done = self.progress.step >= config.num_steps
        path = self._write_checkpoint() if done and self.ranks.is_first else None
        self.ranks.wait()
        return path

    def _batches(self) -> Iterator[Batch]:
        """Batches without end, from where the run stands."""
        while True:
            progress = self.progress
            cuts = self.corpus.training_cuts(
                progress.epoch, progress.epoch_start / self.config.num_steps
            )
            yield from training_batches(
                cuts,
                tokens=self.corpus.tokens,
                augmentation=self.recipe.augmentation,
                max_duration=self.config.batch_seconds,
                num_buckets=self.config.num_buckets,
                seed=self.config.seed,
                epoch=progress.epoch,
                skip_batches=progress.position,
                part=self.ranks.rank,
                num_parts=self.ranks.count,
                num_workers=self.num_workers,
                cache=self.recipe.cache_audio,
            )
            if self.progress.step == progress.step and progress.position == 0:
                raise UserError(
                    f"no usable audio for {self.recipe.name}: every cut is unreadable, too short "
                    "or has a text that the symbols cannot spell"
                )
            self.progress = replace(
                self.progress,
                epoch=self.progress.epoch + 1,
                epoch_start=self.progress.step,
                position=0,
            )

    def _update(self, batch: Batch, counts: BatchCounts, log: RunLog | None) -> None:
        step = self.progress.step
        ended = step >= self.model.selection.stage1_steps and self.progress.selected is None
        if ended and (frozen := self._freeze()) and log is not None:
            log.log(step, frozen)
        started = time.perf_counter()
        # Where a process has no usable cut the others may have some; all agree on the counts.
        numbers = self._train_step(batch, counts, step) if counts.frames else {}
        numbers["seconds"] = time.perf_counter() - started
        skipped = self.ranks.merged(batch.skipped) if counts.skipped else {}
        self.progress = replace(
            self.progress,
            step=step + (counts.frames > 0),
            position=batch.position,
            skipped=dict(Counter(self.progress.skipped) + Counter(skipped)),
        )
        if log is not None and counts.frames:
            self._record(step, numbers, log)

    def _record(self, step: int, numbers: dict[str, float], log: RunLog) -> None:
        """What the first process does after an update."""
        config, skipped = self.config, self.progress.skipped
        log.advance()
        if step % config.log_every == 0:
            log.log(step, numbers | {f"skipped/{name}": float(n) for name, n in skipped.items()})
            log.show(loss=f"{numbers['loss/full']:.3f}", skipped=sum(skipped.values()))
        if (step + 1) % config.evaluate_every == 0:
            log.log(step, self.evaluate())
        if (step + 1) % config.save_every == 0:
            self._save()

    def _save(self) -> None:
        if self.ranks.is_first:
            run = self._run_settings()
            save_state(self.folder, self.model, self.optimizer, self.progress, run)
        self.saved_step = self.progress.step

    def _train_step(self, batch: Batch, counts: BatchCounts, step: int) -> dict[str, float]:
        chosen = self._choose(step)
        return self.updater.update(batch, counts, chosen, self._regularization(chosen), step)

    def _choose(self, step: int) -> Step:
        rng = np.random.default_rng((self.config.seed, step, 1))
        if self.progress.selected is None:
            return self.model.selection.choose(step, rng)
        largest = self.model.selection.largest.subnet
        if self._between:
            return any_budget_step(largest, self._sizes()[-1], self._between, rng, self.device)
        return sandwich_step(largest, self.selected_subnets(), rng, self.device)

    @cached_property
    def _order(self) -> tuple[int, ...] | None:
        """Every component in the order of the slots, once stage 1 has ended."""
        return self.model.selection.frozen(self.model.selection.stage1_steps).order

    @cached_property
    def _between(self) -> tuple[TrainedSubnet, ...]:
        """What any-budget training draws from once stage 1 has ended."""
        if not self.config.any_budget:
            return ()
        assert self._order is not None
        return between(self.problem.space, self._sizes(), self._order, self.problem.groups)

    def _regularization(self, chosen: Step) -> Regularization:
        config = self.config
        rates = Regularization(
            ffn_dropout=config.ffn_dropout,
            attention_dropout=config.attention_dropout,
            residual_dropout=config.residual_dropout,
        )
        if self.progress.selected is None:
            return rates
        sizes = [self.model.selection.largest.subnet, *self.selected_subnets()]
        droppable = droppable_modules(self.problem.space, sizes[-1])
        # Only the full network drops layers; its subnets are small already.
        others = (frozenset(),) * (len(chosen.heads) - 1)
        return replace(rates, layer_drop=config.layer_drop, droppable=(droppable, *others))

    def selected_subnets(self) -> list[Subnet]:
        """The subnets of the targets: frozen ones, or what would be frozen now."""
        if self.progress.selected is not None:
            return [Subnet(len(self.problem.space), kept) for kept in self.progress.selected]
        return self.model.selection.frozen(self.progress.step).subnets

    def _freeze(self) -> dict[str, float]:
        outcome = self.model.selection.frozen(self.progress.step)
        entropy = "" if outcome.entropy is None else f" at row entropy {outcome.entropy:.4f}"
        logger.info("stage 2 begins: selection frozen%s", entropy)
        self.progress = replace(
            self.progress,
            selected=tuple(one.kept for one in outcome.subnets),
            entropy=outcome.entropy,
            collisions=outcome.collisions,
        )
        # Nothing selects any more: without a gradient AdamW leaves the scores alone.
        for scores in self.model.selection.parameters():
            scores.grad = None
        return outcome.numbers

    def evaluate(self) -> dict[str, float]:
        """WER and CER of every size on the development sets, in per cent."""
        sizes = self._sizes()
        numbers = development_rates(self.model.supernet, sizes, self.corpus, self.device)
        logger.info("step %d: %s", self.progress.step, wer_summary(numbers))
        return numbers

    def _sizes(self) -> list[TrainedSubnet]:
        """What every update trains and the target sizes, the largest first."""
        return [self.model.selection.largest] + [
            TrainedSubnet(name=one.name, subnet=subnet, head=1 + number, target=one.share)
            for number, (one, subnet) in enumerate(
                zip(self.targets, self.selected_subnets(), strict=True)
            )
        ]

    def _write_checkpoint(self) -> Path:
        sizes = rated(self._sizes(), self.evaluate(), list(self.corpus.development))
        checkpoint = Checkpoint(
            supernet=self.model.supernet.cpu().eval(),
            tokens=self.corpus.tokens,
            subnets=sizes,
            provenance={
                "command": self.command,
                **run_facts(self.recipe, self.corpus, self.targets, self.progress),
                "commit": self._started_from,
            },
            order=self._order,
            leading=tuple(len(one.subnet.kept) for one in self._between),
        )
        path = self.folder / CHECKPOINT_FOLDER
        picture = to_png(selection_map(self.problem.space, sizes))
        metrics = (self.folder / METRICS).read_bytes()
        save_checkpoint(checkpoint, path, {SELECTION_PICTURE: picture, METRICS: metrics})
        return path
