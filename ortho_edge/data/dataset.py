"""Batches for training and evaluation: cuts in, padded features and tokens out.

Training batches come from lhotse's dynamic bucketing and are augmented; what cannot be used is
skipped and counted. Evaluation batches keep every readable cut. The chance in a cut's augmentation
depends on (seed, epoch, cut) alone, so batches are the same for any number of loader processes and
after a resume.

Shapes: B batch, T frames of 10 ms.
"""

import logging
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

import numpy as np
import torch
from lhotse import CutSet
from lhotse.dataset import DynamicBucketingSampler, DynamicCutSampler
from lhotse.dataset.sampling.base import CutSampler
from lhotse.dataset.sampling.dynamic_bucketing import estimate_duration_buckets
from torch.utils.data import DataLoader, Dataset

from ortho_edge.conformer.architecture import subsampled_length
from ortho_edge.data.alignment import UNKNOWN, Vocabulary
from ortho_edge.data.augmentation import Augmentation
from ortho_edge.data.examples import Example, SkipError, evaluation_example, training_example
from ortho_edge.data.features import NUM_BINS, fbank
from ortho_edge.data.waveforms import WaveformCache, each_cut, shared_cache

logger = logging.getLogger(__name__)

_CUTS_FOR_BUCKETS = 10_000


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Utterances of like length, padded with zeros."""

    features: torch.Tensor
    """Log-mel features, ``(B, T, 80)`` float32, zero beyond each utterance's end."""
    feature_lengths: torch.Tensor
    """Frames of each utterance, ``(B,)`` int64."""
    tokens: torch.Tensor
    """All utterances' tokens one after another, ``(sum of token_lengths,)`` int64."""
    token_lengths: torch.Tensor
    """Tokens of each utterance, ``(B,)`` int64."""
    frame_targets: torch.Tensor
    """Symbol of each encoder frame where the cut's words are aligned, `UNKNOWN` elsewhere and
    beyond the end, ``(B, T')`` int64."""
    texts: tuple[str, ...]
    """Reference texts."""
    cut_ids: tuple[str, ...]
    """Names of the cuts."""
    speakers: tuple[str, ...]
    """Speakers; empty where unknown."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Cuts left out since the previous batch, by reason."""
    position: int = 0
    """Batches of the epoch up to and with this one, those that were passed over included. As
    ``skip_batches`` it makes `training_batches` go on after this batch."""

    def to(self, device: torch.device | str) -> "Batch":
        """Returns the batch with its tensors on ``device``."""
        names = ("features", "feature_lengths", "tokens", "token_lengths", "frame_targets")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def training_batches(
    cuts: CutSet,
    *,
    tokens: Vocabulary,
    augmentation: Augmentation,
    max_duration: float,
    seed: int,
    epoch: int,
    num_buckets: int = 10,
    skip_batches: int = 0,
    part: int = 0,
    num_parts: int = 1,
    num_workers: int = 0,
    cache: bool | WaveformCache = False,
) -> Iterator[Batch]:
    """Makes one epoch of shuffled, augmented batches.

    Args:
        cuts: Cuts with audio and one supervision with text; eager or lazy.
        tokens: Turns texts into ids.
        augmentation: What is done to the audio; `Augmentation.none()` for nothing.
        max_duration: Most seconds in a batch, padding included (before augmentation).
        seed: Seed of the order and of the augmentation.
        epoch: Number of this pass; every pass has another order and augmentation.
        num_buckets: Groups of like duration; fewer where there are fewer cuts.
        skip_batches: Leaves out so many batches without loading them, to resume: the
            `Batch.position` of the last batch that was used.
        part: Which part of every batch to make, from 0.
        num_parts: Processes that share every batch; the sequence of batches does not depend on it.
        num_workers: Loader processes; 0 loads in this process.
        cache: Keep decoded waveforms, as int16, in the given cache or in the one of this process.
            Eager cuts are then decoded before loader processes start, which share the memory.

    Yields:
        Batches without the cuts that cannot be read, are shorter than a window, have a text
        that ``tokens`` cannot spell or too few frames for CTC. These are counted in
        `Batch.skipped`; a batch of nothing else is passed over and its counts go to the next.
        With several parts, that of a batch without usable cuts is empty instead, for the others
        may have some.
    """
    sampler = _bucketing_sampler(cuts, max_duration, num_buckets, seed)
    if sampler is None:
        return
    sampler.set_epoch(epoch)
    kept = _chosen(cache)
    if kept is not None and num_workers > 0 and not cuts.is_lazy:
        kept.fill(cuts)
    prepare = partial(
        training_example,
        tokens=tokens,
        augmentation=augmentation,
        seed=seed,
        epoch=epoch,
        cache=kept,
    )
    batches = islice(iter(sampler), skip_batches, None)
    parts = batches if num_parts == 1 else (_part(one, part, num_parts) for one in batches)
    yield from _batches(parts, prepare, num_workers, skip_batches, num_parts > 1)


def evaluation_batches(
    cuts: CutSet,
    *,
    tokens: Vocabulary,
    max_duration: float,
    num_workers: int = 0,
    cache: bool | WaveformCache = False,
    features: Callable[[np.ndarray], torch.Tensor] = fbank,
) -> Iterator[Batch]:
    """Makes batches of every readable cut, unchanged, the same way each time.

    Args:
        cuts: Cuts with audio and one supervision with text. Eager ones are taken from short to
            long, lazy ones as they come.
        tokens: Turns texts into ids. A text that it cannot spell has no tokens in the batch, but
            stays in `Batch.texts`: an error rate counts it.
        max_duration: Most seconds in a batch, padding included.
        num_workers: Loader processes; 0 loads in this process.
        cache: Keep decoded waveforms, as int16, in the given cache or in the one of this process.
        features: What encoders take, of samples; the samples themselves for an encoder of audio.

    Yields:
        Batches of every cut whose audio can be read; others are counted in `Batch.skipped`.
    """
    if not cuts.is_lazy:
        cuts = cuts.sort_by_duration(ascending=True)
    # Every process evaluates everything: splitting is up to the caller.
    with _eager_by_choice():
        sampler = DynamicCutSampler(cuts, max_duration=max_duration, world_size=1, rank=0)
    kept = _chosen(cache)
    prepare = partial(evaluation_example, tokens=tokens, cache=kept, features=features)
    yield from _batches(iter(sampler), prepare, num_workers, 0)


def _chosen(cache: bool | WaveformCache) -> WaveformCache | None:
    if isinstance(cache, WaveformCache):
        return cache
    return shared_cache() if cache else None


def _bucketing_sampler(
    cuts: CutSet, max_duration: float, num_buckets: int, seed: int
) -> CutSampler | None:
    sample = list(islice(each_cut(cuts), _CUTS_FOR_BUCKETS))
    if not sample:
        return None
    num_buckets = min(num_buckets, len(sample))
    bins = estimate_duration_buckets(sample, num_buckets) if num_buckets > 1 else []
    with _eager_by_choice():
        return DynamicBucketingSampler(
            cuts,
            max_duration=max_duration,
            # The sampler cannot do without a boundary.
            duration_bins=bins or [max(cut.duration for cut in sample)],
            shuffle=True,
            seed=seed,
            # One sequence of batches, whatever shares them: `_part` does the rest.
            world_size=1,
            rank=0,
        )


def _part(cuts: CutSet, part: int, num_parts: int) -> CutSet:
    """Every so many-th cut: the cuts of a batch are of like length."""
    return CutSet.from_cuts(list(each_cut(cuts))[part::num_parts])


@contextmanager
def _eager_by_choice() -> Iterator[None]:
    """Silences lhotse's advice to read lazily: small corpora fit in memory."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*eagerly read CutSet")
        yield


class _Loader(Dataset):
    """Maps the cuts of a batch to its examples; the sampler's items are the indices."""

    def __init__(self, prepare: partial) -> None:
        self.prepare = prepare

    def __getitem__(self, cuts: CutSet) -> tuple[list[Example], Counter]:
        examples, skipped = [], Counter()
        with _one_thread():
            for cut in each_cut(cuts):
                try:
                    examples.append(self.prepare(cut))
                except SkipError as reason:
                    skipped[str(reason)] += 1
        return examples, skipped


def _batches(
    samples: Iterator[CutSet],
    prepare: partial,
    num_workers: int,
    done: int,
    keep_empty: bool = False,
) -> Iterator[Batch]:
    loader = DataLoader(
        _Loader(prepare),
        sampler=samples,  # pyright: ignore[reportArgumentType]
        batch_size=None,
        collate_fn=_as_is,
        num_workers=num_workers,
        worker_init_fn=_start_worker,
    )
    carried = Counter()
    for position, (examples, skipped) in enumerate(loader, start=done + 1):
        carried.update(skipped)
        if examples or keep_empty:
            yield _collate(examples, dict(carried), position)
            carried = Counter()
    if carried:
        logger.warning("skipped after the last batch: %s", dict(carried))


def _as_is(item: object) -> object:
    return item


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    # Who takes a machine back, or types Ctrl-C, signals every process; the trainer then ends its
    # loaders itself.
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, signal.SIG_IGN)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keeps torch on one thread, so that sums are rounded alike here and in a loader process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _collate(examples: list[Example], skipped: dict[str, int], position: int) -> Batch:
    lengths = torch.tensor([len(example.features) for example in examples], dtype=torch.int64)
    longest = max((len(example.features) for example in examples), default=0)
    shape = examples[0].features.shape[1:] if examples else (NUM_BINS,)
    features = torch.zeros(len(examples), longest, *shape)
    for row, example in zip(features, examples, strict=True):
        row[: len(example.features)] = example.features
    targets = torch.full((len(examples), subsampled_length(longest)), UNKNOWN)
    for row, example in zip(targets, examples, strict=True):
        row[: len(example.frame_targets)] = example.frame_targets
    return Batch(
        features=features,
        feature_lengths=lengths,
        tokens=torch.tensor([i for e in examples for i in e.tokens], dtype=torch.int64),
        token_lengths=torch.tensor([len(e.tokens) for e in examples], dtype=torch.int64),
        frame_targets=targets,
        texts=tuple(e.text for e in examples),
        cut_ids=tuple(e.cut_id for e in examples),
        speakers=tuple(e.speaker for e in examples),
        skipped=skipped,
        position=position,
    )
