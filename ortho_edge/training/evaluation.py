"""Error rates of encoders on a corpus, with how far chance could move them."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import jiwer
import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from torch import Tensor

from ortho_edge.checkpoint import TrainedSubnet
from ortho_edge.data.dataset import evaluation_batches
from ortho_edge.data.examples import TOO_LONG, Limits, Omission, evaluation_example
from ortho_edge.data.features import FRAME_SHIFT, fbank
from ortho_edge.data.segmentation import can_be_cut
from ortho_edge.data.waveforms import each_cut
from ortho_edge.decoding import greedy_text
from ortho_edge.long_audio import stretches
from ortho_edge.progress import track
from ortho_edge.supernet import Supernet
from ortho_edge.tokens import Tokens
from ortho_edge.training.account import Account

logger = logging.getLogger(__name__)

Encoder = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Features (B, T, 80) and lengths (B,) to log-probabilities (B, T', V) and lengths (B,)."""
Decoder = Callable[[np.ndarray], str]
"""Log-probabilities (T', V) of one utterance to its text."""

BOOTSTRAP_SAMPLES = 2000
FEWEST_SPEAKERS = 10
"""With fewer speakers the bootstrap draws utterances: too few speakers say nothing of others."""


@dataclass(frozen=True)
class Transcript:
    """What was said and what was understood; `seconds` is how long it took to say."""

    cut_id: str
    speaker: str
    reference: str
    hypothesis: str
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What encoders made of a set.

    Attributes:
        transcripts: By encoder, in one order.
        account: What of the set they are of, and what not.
    """

    transcripts: dict[str, list[Transcript]]
    account: Account


@dataclass(frozen=True, kw_only=True)
class ErrorRates:
    """Error rates of one model on one set, in per cent.

    Attributes:
        wer: Word error rate.
        wer_interval: 95 % bootstrap interval of the word error rate.
        cer: Character error rate.
        cer_interval: 95 % bootstrap interval of the character error rate.
        words: Reference words.
        utterances: Utterances with a reference, which are those of the rates.
        speakers: Speakers of them.
        resampled: What the bootstrap drew, `speakers` or `utterances`.
        seconds: Audio of the utterances.
        wordless_seconds: Audio in which, by its empty reference, nothing is said.
        inserted_words: Words heard in it; they count in no rate.
        inserted_words_per_minute: The same per minute; None without such audio.
        not_scored: Utterances that were left out, by reason.
        not_scored_seconds: Audio of those whose length is known.
    """

    wer: float
    wer_interval: tuple[float, float]
    cer: float
    cer_interval: tuple[float, float]
    words: int
    utterances: int
    speakers: int
    resampled: str
    seconds: float = 0.0
    wordless_seconds: float = 0.0
    inserted_words: int = 0
    inserted_words_per_minute: float | None = None
    not_scored: Mapping[str, int] = field(default_factory=dict)
    not_scored_seconds: float = 0.0


def error_rates(
    transcripts: Sequence[Transcript], seed: int = 0, omitted: Sequence[Omission] = ()
) -> ErrorRates:
    """WER and CER of transcripts, and their bootstrap intervals.

    Args:
        transcripts: At least one reference word in total. Those without a reference are audio in
            which nothing is said; words heard there are counted by themselves.
        seed: Of the bootstrap.
        omitted: What of the set was not transcribed.

    Raises:
        ValueError: There is no reference word to compare with.
    """
    spoken = [one for one in transcripts if one.reference.strip()]
    if not spoken:
        raise ValueError("no reference words to compare with")
    wrong_words, words = np.array([word_errors(one) for one in spoken], dtype=np.float64).T
    wrong, characters = np.array([character_errors(one) for one in spoken], dtype=np.float64).T
    groups = resampling_groups(spoken)
    speakers = len({one.speaker for one in spoken})
    wordless = [one for one in transcripts if not one.reference.strip()]
    inserted = sum(len(one.hypothesis.split()) for one in wordless)
    silence = sum(one.seconds for one in wordless)
    return ErrorRates(
        wer=float(100 * wrong_words.sum() / words.sum()),
        wer_interval=_bootstrap(wrong_words, words, groups, seed),
        cer=float(100 * wrong.sum() / characters.sum()),
        cer_interval=_bootstrap(wrong, characters, groups, seed),
        words=int(words.sum()),
        utterances=len(spoken),
        speakers=speakers,
        resampled="speakers" if speakers >= FEWEST_SPEAKERS else "utterances",
        seconds=sum(one.seconds for one in spoken),
        wordless_seconds=silence,
        inserted_words=inserted,
        inserted_words_per_minute=60 * inserted / silence if silence else None,
        not_scored=dict(Counter(one.reason for one in omitted)),
        not_scored_seconds=sum(one.seconds or 0.0 for one in omitted),
    )


def rates_by_group(
    transcripts: Sequence[Transcript], groups: Mapping[str, str]
) -> dict[str, ErrorRates]:
    """Error rates of each group of speakers.

    Args:
        transcripts: Of one model.
        groups: The group of an utterance by its name; others are left out, and so is a group of
            which no utterance has a reference.
    """
    members: dict[str, list[Transcript]] = {}
    for one in transcripts:
        if one.cut_id in groups and one.reference.strip():
            members.setdefault(groups[one.cut_id], []).append(one)
    return {group: error_rates(members[group]) for group in sorted(members)}


def resampling_groups(transcripts: Sequence[Transcript]) -> np.ndarray:
    """What a bootstrap draws together, as a number from 0 for every utterance."""
    speakers = [one.speaker for one in transcripts]
    if len(set(speakers)) < FEWEST_SPEAKERS:
        return np.arange(len(transcripts))
    return np.unique(speakers, return_inverse=True)[1]


def word_errors(transcript: Transcript) -> tuple[int, int]:
    """Wrong words (substituted, deleted, inserted) and reference words of one utterance."""
    measures = jiwer.process_words(transcript.reference, transcript.hypothesis)
    wrong = measures.substitutions + measures.deletions + measures.insertions
    return wrong, measures.hits + measures.substitutions + measures.deletions


def character_errors(transcript: Transcript) -> tuple[int, int]:
    """Wrong characters and reference characters of one utterance."""
    measures = jiwer.process_characters(transcript.reference, transcript.hypothesis)
    wrong = measures.substitutions + measures.deletions + measures.insertions
    return wrong, measures.hits + measures.substitutions + measures.deletions


def _bootstrap(
    errors: np.ndarray, words: np.ndarray, groups: np.ndarray, seed: int
) -> tuple[float, float]:
    """95 % interval of sum(errors) / sum(words) in per cent, drawing groups with replacement."""
    errors, words = np.bincount(groups, errors), np.bincount(groups, words)
    drawn = np.random.default_rng(seed).integers(len(errors), size=(BOOTSTRAP_SAMPLES, len(errors)))
    rates = 100 * errors[drawn].sum(1) / np.maximum(words[drawn].sum(1), 1)
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)


def transcribe_cuts(
    encoders: Mapping[str, Encoder],
    cuts: CutSet,
    tokens: Tokens,
    batch_seconds: float = 200.0,
    features: Callable[[np.ndarray], Tensor] = fbank,
    decoders: Mapping[str, Decoder] | None = None,
) -> dict[str, list[Transcript]]:
    """The transcripts of `transcribe_set`; what is left out is logged."""
    heard = transcribe_set(encoders, cuts, tokens, batch_seconds, features, decoders)
    if heard.account.omitted:
        logger.warning("%s", "; ".join(heard.account.lines()))
    return heard.transcripts


@torch.inference_mode()
def transcribe_set(
    encoders: Mapping[str, Encoder],
    cuts: CutSet,
    tokens: Tokens,
    batch_seconds: float = 200.0,
    features: Callable[[np.ndarray], Tensor] = fbank,
    decoders: Mapping[str, Decoder] | None = None,
    limits: Limits | None = None,
) -> Heard:
    """Transcripts of every cut by each of the encoders, features computed once.

    Args:
        encoders: By name.
        cuts: What they hear.
        tokens: Their symbols.
        batch_seconds: Audio in a batch.
        features: Makes what the encoders take, see `evaluation_batches`.
        decoders: How an encoder of that name is decoded; greedily where there is none.
        limits: Which cuts are left out although they can be read; none by default. What is too
            long for the encoders is heard in pieces, cut at pauses.
    """
    results: dict[str, list[Transcript]] = {name: [] for name in encoders}
    omitted: list[Omission] = []
    batches = evaluation_batches(
        cuts,
        tokens=tokens,
        max_duration=batch_seconds,
        features=features,
        limits=limits,
        on_omission=omitted.append,
    )
    for batch in batches:
        for name, encoder in encoders.items():
            decode = (decoders or {}).get(name) or partial(greedy_text, tokens=tokens)
            log_probs, lengths = encoder(batch.features, batch.feature_lengths)
            rows = log_probs.float().cpu().numpy()
            texts = [
                decode(row[:length]) for row, length in zip(rows, lengths.tolist(), strict=True)
            ]
            columns = (batch.cut_ids, batch.speakers, batch.texts, texts, batch.seconds)
            results[name] += [Transcript(*fields) for fields in zip(*columns, strict=True)]
    if limits is not None and can_be_cut(limits.longest):
        too_long = {one.utterance for one in omitted if one.reason == TOO_LONG}
        omitted = [one for one in omitted if one.utterance not in too_long]
        for cut in (one for one in each_cut(cuts) if one.id in too_long):
            for name, found in _in_pieces(
                cut, encoders, tokens, features, decoders, limits
            ).items():
                results[name].append(found)
    some = next(iter(results.values()), [])
    spoken = {one.cut_id: one.reference for one in some}
    account = Account.of(spoken, sum(one.seconds for one in some), omitted, tokens)
    return Heard(transcripts=results, account=account)


def _in_pieces(
    cut: Cut,
    encoders: Mapping[str, Encoder],
    tokens: Tokens,
    features: Callable[[np.ndarray], Tensor],
    decoders: Mapping[str, Decoder] | None,
    limits: Limits,
) -> dict[str, Transcript]:
    """Transcripts of a cut that no encoder takes as a whole, by encoder."""
    assert limits.longest is not None
    example = evaluation_example(
        cut,
        tokens=tokens,
        cache=None,
        features=torch.from_numpy,
        limits=replace(limits, longest=None),
    )
    found = {}
    for name, encoder in encoders.items():
        decode = (decoders or {}).get(name) or partial(greedy_text, tokens=tokens)
        pieces = stretches(
            iter([example.features.numpy()]),
            partial(_log_probs, encoder, features),
            FRAME_SHIFT * limits.longest,
        )
        texts = track((decode(one.log_probs) for one in pieces), f"hearing {cut.id}", unit="pieces")
        found[name] = Transcript(
            cut.id, example.speaker, example.text, " ".join(filter(None, texts)), example.seconds
        )
    return found


def _log_probs(
    encoder: Encoder, features: Callable[[np.ndarray], Tensor], samples: np.ndarray
) -> np.ndarray:
    one = features(samples)
    log_probs, lengths = encoder(one[None], torch.tensor([len(one)]))
    return log_probs[0, : int(lengths[0])].float().cpu().numpy()


@torch.inference_mode()
def encode_gated(
    supernet: Supernet,
    trained: TrainedSubnet,
    device: torch.device,
    features: Tensor,
    lengths: Tensor,
) -> tuple[Tensor, Tensor]:
    """An `Encoder` of one size of a supernet, which need not be compacted for it."""
    gates = trained.subnet.gates()[None].to(device)
    log_probs, lengths = supernet(features.to(device), lengths.to(device), gates, [trained.head])
    return log_probs[0], lengths


def wer_summary(numbers: Mapping[str, float]) -> str:
    """The word error rates among named numbers, in one line."""
    return ", ".join(f"{name} {value:.1f}" for name, value in numbers.items() if "wer" in name)
