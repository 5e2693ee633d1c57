"""A checkpoint as a report reads it: sizes, costs, where it comes from and how it was trained."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from lhotse import CutSet

from ortho_edge.checkpoint import Checkpoint, TrainedSubnet, load_checkpoint
from ortho_edge.cli import UserError
from ortho_edge.json_files import number, parse_json, table
from ortho_edge.training.evaluation import (
    ErrorRates,
    Transcript,
    encode_gated,
    error_rates,
    rates_by_group,
    transcribe_cuts,
)
from ortho_edge.training.metrics import METRICS
from ortho_edge.training.speech_sets import speaker_groups


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What one set says of one size."""

    rates: ErrorRates
    groups: Mapping[str, ErrorRates]
    """By group of speakers, where the corpus states their age; else empty."""
    transcripts: Sequence[Transcript]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A checkpoint with what was logged and measured.

    Attributes:
        name: What the report calls it: the folder, or the run's folder.
        checkpoint: What was trained.
        curves: Numbers of the training by name, each as steps and values; empty without a log.
        scores: By name of a set, then of a size.
    """

    name: str
    checkpoint: Checkpoint
    curves: Mapping[str, tuple[list[float], list[float]]]
    scores: Mapping[str, Mapping[str, Scores]] = field(default_factory=dict)

    @property
    def settings(self) -> Mapping[str, object]:
        """Hyperparameters as the checkpoint records them."""
        return self.checkpoint.provenance.get("training", {})

    @property
    def method(self) -> str:
        """How subnets were chosen, such as `orthosoftmax, component, flops`."""
        names = [str(self.settings.get("method", "unknown"))]
        if names == ["orthosoftmax"]:
            names += [str(self.settings[key]) for key in ("granularity", "criterion")]
        return ", ".join(names)

    def flops_share(self, trained: TrainedSubnet) -> float:
        """FLOPs of a size over those of the full network."""
        space = self.checkpoint.supernet.space
        return space.cost(trained.subnet, "flops") / space.total_cost("flops")


def load_run(path: Path) -> Run:
    """Reads a checkpoint folder and the log in it.

    Raises:
        UserError: It is no checkpoint, or its log cannot be read.
    """
    checkpoint = load_checkpoint(path)
    resolved = path.resolve()
    name = resolved.parent.name if resolved.name == "checkpoint" else resolved.name
    return Run(name=name, checkpoint=checkpoint, curves=read_curves(path / METRICS))


def read_curves(log: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Steps and values of every logged number; none where there is no log.

    Raises:
        UserError: A line is no JSON object with a step.
    """
    curves: dict[str, tuple[list[float], list[float]]] = {}
    try:
        lines = log.read_text("utf-8").splitlines() if log.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {log}: {error}") from error
    for count, line in enumerate(lines, start=1):
        try:
            values = table(parse_json(line, "the line"), "the line")
            step = number(values.pop("step"), "step", 0.0)
            numbers = {name: _logged(name, value) for name, value in values.items()}
        except (ValueError, KeyError) as error:
            raise UserError(f"{log} line {count} is no logged step: {error}") from error
        for name, value in numbers.items():
            steps, logged = curves.setdefault(name, ([], []))
            steps.append(step)
            logged.append(value)
    return curves


def _logged(name: str, value: object) -> float:
    """A logged number; a loss that went wrong is NaN or infinite, and shown as such."""
    if isinstance(value, float) and not math.isfinite(value):
        return value
    return number(value, name)


def score_sizes(run: Run, name: str, cuts: CutSet) -> dict[str, Scores]:
    """Greedy error rates of every size of a run on a set.

    Args:
        run: The checkpoint.
        name: Of the set, for messages.
        cuts: The set.

    Raises:
        UserError: The set has no reference words.
    """
    supernet, cpu = run.checkpoint.supernet, torch.device("cpu")
    encoders = {
        one.name: partial(encode_gated, supernet, one, cpu) for one in run.checkpoint.subnets
    }
    transcripts = transcribe_cuts(encoders, cuts, run.checkpoint.tokens)
    groups = speaker_groups(cuts)
    try:
        return {
            size: Scores(
                rates=error_rates(texts),
                groups=rates_by_group(texts, groups),
                transcripts=texts,
            )
            for size, texts in transcripts.items()
        }
    except ValueError as error:
        raise UserError(f"set {name!r}: {error}") from error


def with_scores(run: Run, name: str, scores: Mapping[str, Scores]) -> Run:
    """The run with the scores of one more set."""
    return replace(run, scores={**run.scores, name: scores})
