"""Word error rates of artefacts beside those of the fp32 encoder that they were made from."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lhotse import CutSet
from torch import Tensor

from ortho_edge.cli import UserError
from ortho_edge.compaction import DenseEncoder
from ortho_edge.conformer.architecture import subsampled_length
from ortho_edge.tokens import Tokens
from ortho_edge.training.corpora import DataOptions
from ortho_edge.training.evaluation import (
    Encoder,
    ErrorRates,
    Transcript,
    error_rates,
    rates_by_group,
    transcribe_cuts,
)
from ortho_edge.training.speech_sets import speaker_groups, speech_set
from ortho_export.words import WordAgreement, word_agreement

REFERENCE = "fp32"


@dataclass(frozen=True, kw_only=True)
class DevSet:
    """Labelled speech: its name and its utterances."""

    name: str
    cuts: CutSet


def dev_set(name: str, data: Path | None = None) -> DevSet:
    """Labelled speech by its name, see `ortho_edge.training.speech_sets`.

    Args:
        name: RECIPE/SET or a folder.
        data: Folder of the corpora.

    Raises:
        UserError: There is no such speech.
    """
    return DevSet(name=name, cuts=speech_set(name, DataOptions(root=data)))


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Error rates on one development set, in per cent.

    Attributes:
        name: Of the set.
        fp32: Word error rate of the eager encoder.
        artefacts: Word error rate of every artefact, by its file.
        words: Reference words; one of them is the finest difference there is.
        groups: The same of children and adults apart, where the corpus states ages.
        agreement: Of every artefact with the words that the eager encoder hears, right or wrong.
    """

    name: str
    fp32: float
    artefacts: Mapping[str, float]
    words: int
    groups: tuple["Accuracy", ...] = ()
    agreement: Mapping[str, WordAgreement] = field(default_factory=dict)


def measure_accuracy(
    reference: DenseEncoder,
    artefacts: Mapping[str, Encoder],
    speech: DevSet,
    tokens: Tokens,
) -> Accuracy:
    """Word error rates on a development set, every utterance alone as on a device.

    Args:
        reference: The eager compact encoder.
        artefacts: `Recognizer.encode_batch` by file.
        speech: The development set.
        tokens: Symbols of the outputs.

    Raises:
        UserError: The set has no words, or an utterance that an artefact does not take.
    """
    encoders = {REFERENCE: reference, **{name: alone(one) for name, one in artefacts.items()}}
    transcripts = transcribe_cuts(encoders, speech.cuts, tokens)
    members = speaker_groups(speech.cuts)
    try:
        rates = {name: error_rates(texts) for name, texts in transcripts.items()}
        by_group = {name: rates_by_group(texts, members) for name, texts in transcripts.items()}
    except ValueError as error:
        raise UserError(f"development set {speech.name}: {error}") from error
    groups = [
        _accuracy(group, {name: found[group] for name, found in by_group.items()})
        for group in by_group[REFERENCE]
    ]
    return dataclasses.replace(
        _accuracy(speech.name, rates),
        groups=tuple(groups),
        agreement=_agreement(transcripts, speech.name),
    )


def _agreement(
    transcripts: Mapping[str, Sequence[Transcript]], name: str
) -> dict[str, WordAgreement]:
    """Of every artefact; nothing where the eager encoder hears no word."""
    expected = [one.hypothesis for one in transcripts[REFERENCE]]
    found = {
        file: word_agreement(zip(expected, (one.hypothesis for one in texts), strict=True), name)
        for file, texts in transcripts.items()
        if file != REFERENCE
    }
    return {file: one for file, one in found.items() if one is not None}


def _accuracy(name: str, rates: Mapping[str, ErrorRates]) -> Accuracy:
    """The word error rates among those of the reference and of artefacts."""
    return Accuracy(
        name=name,
        fp32=rates[REFERENCE].wer,
        artefacts={file: one.wer for file, one in rates.items() if file != REFERENCE},
        words=rates[REFERENCE].words,
    )


def alone(encoder: Encoder) -> Encoder:
    """An encoder that takes the utterances of a batch one by one.

    In a padded batch a quantised ONNX model rounds by the scale of all utterances together.
    """

    def one_by_one(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        outputs = [
            encoder(one[None, :length], torch.tensor([length]))[0][0]
            for one, length in zip(features, lengths.tolist(), strict=True)
        ]
        return torch.nn.utils.rnn.pad_sequence(outputs, batch_first=True), subsampled_length(
            lengths
        )

    return one_by_one
