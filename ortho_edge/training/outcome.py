"""What a run ends in: the error rates of its sizes, and the record of where they come from."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from ortho_edge.checkpoint import TrainedSubnet
from ortho_edge.ortho_softmax import Target
from ortho_edge.supernet import Supernet
from ortho_edge.training.corpora import Corpus
from ortho_edge.training.evaluation import encode_gated, error_rates, transcribe_cuts
from ortho_edge.training.provenance import package_versions, training_data
from ortho_edge.training.recipes import Recipe
from ortho_edge.training.state import Progress


def development_rates(
    supernet: Supernet, sizes: Sequence[TrainedSubnet], corpus: Corpus, device: torch.device
) -> dict[str, float]:
    """WER and CER of every size on the development sets, in per cent, by `SET_RATE/SIZE`."""
    supernet.eval()
    encoders = {one.name: partial(encode_gated, supernet, one, device) for one in sizes}
    numbers: dict[str, float] = {}
    for name, cuts in corpus.development.items():
        for size, transcripts in transcribe_cuts(encoders, cuts, corpus.tokens).items():
            rates = error_rates(transcripts)
            numbers |= {f"{name}_wer/{size}": rates.wer, f"{name}_cer/{size}": rates.cer}
    supernet.train()
    return numbers


def rated(
    sizes: Sequence[TrainedSubnet], numbers: Mapping[str, float], sets: Sequence[str]
) -> tuple[TrainedSubnet, ...]:
    """The sizes with their error rates, each the mean over the development sets."""
    return tuple(
        replace(
            one,
            metrics={
                f"dev_{rate}": float(
                    np.mean([numbers[f"{name}_{rate}/{one.name}"] for name in sets])
                )
                for rate in ("wer", "cer")
            },
        )
        for one in sizes
    )


def run_facts(
    recipe: Recipe, corpus: Corpus, targets: Sequence[Target], progress: Progress
) -> dict[str, Any]:
    """What a checkpoint says of the run that it comes from."""
    return {
        "recipe": recipe.name,
        "training": dataclasses.asdict(recipe.training),
        "augmentation": dataclasses.asdict(recipe.augmentation),
        "targets": [one.facts() for one in targets],
        "row_entropy_at_freeze": progress.entropy,
        "row_collisions_at_freeze": progress.collisions,
        "epochs": progress.epoch,
        "skipped": dict(progress.skipped),
        "data_digest": training_data(corpus).digest,
        "versions": package_versions(),
    }
