"""Decoding encoders with a language model: which words, how they are spelled, which weights."""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from lhotse import CutSet
from torch import Tensor

from ortho_edge.beam_search import BeamSearch, LanguageModel, SearchOptions
from ortho_edge.data.dataset import evaluation_batches
from ortho_edge.data.examples import Limits
from ortho_edge.data.features import fbank
from ortho_edge.data.waveforms import each_cut
from ortho_edge.lexicon import LexiconTokens
from ortho_edge.tokens import Tokens
from ortho_edge.training.evaluation import Encoder, Transcript, error_rates

logger = logging.getLogger(__name__)

LM_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
WORD_SCORES = (-1.0, 0.0, 1.0, 2.0)
TUNING_UTTERANCES = 500
"""So many at most choose the weights: enough to tell them apart, and decoded ten times."""


def beam_search(
    tokens: Tokens, model: LanguageModel, options: SearchOptions, words: Iterable[str] | None = None
) -> BeamSearch:
    """The search over the words that both symbols and model know.

    Args:
        tokens: Symbols; those of a lexicon bring their words along.
        model: The language model.
        options: Weights and limits.
        words: The words where symbols spell; by default those of the model.

    Raises:
        UserError: No word can be spelled, or the model does not list its words.
    """
    if isinstance(tokens, LexiconTokens):
        spellings = {
            word: [tokens.spell(sounds) for sounds in variants]
            for word, variants in tokens.lexicon.pronunciations.items()
        }
        return BeamSearch(spellings, model, options)
    spelled, unspelled = {}, 0
    for word in words if words is not None else model.words():
        try:
            spelled[word] = [tokens.encode(word)]
        except ValueError:
            unspelled += 1
    if unspelled:
        logger.warning("%d words cannot be spelled and will not be recognised", unspelled)
    return BeamSearch(spelled, model, options)


def tuned(
    search: BeamSearch,
    encoder: Encoder,
    cuts: CutSet,
    tokens: Tokens,
    features: Callable[[np.ndarray], Tensor] = fbank,
    most: int = TUNING_UTTERANCES,
    limits: Limits | None = None,
) -> BeamSearch:
    """The search with the weights of fewest word errors: first `lm_weight`, then `word_score`.

    Args:
        search: Over the right words; its weights are tried first and win where others tie.
        encoder: What is decoded.
        cuts: Development data; of more than `most` every second, third, ... is used.
        tokens: The encoder's symbols.
        features: Makes what the encoder takes, see `evaluation_batches`.
        most: Utterances that choose.
        limits: What the encoder takes; other utterances are logged.

    Raises:
        ValueError: The data has no words.
    """
    outputs = _outputs(encoder, cuts, tokens, features, most, limits)
    best, fewest = search, _wer(search, outputs)
    for name, values in (("lm_weight", LM_WEIGHTS), ("word_score", WORD_SCORES)):
        around = best.options
        for value in values:
            candidate = search.weighed(replace(around, **{name: value}))
            wer = _wer(candidate, outputs)
            if wer < fewest:
                best, fewest = candidate, wer
    return best


@torch.inference_mode()
def _outputs(
    encoder: Encoder,
    cuts: CutSet,
    tokens: Tokens,
    features: Callable[[np.ndarray], Tensor],
    most: int,
    limits: Limits | None,
) -> list[tuple[str, np.ndarray]]:
    outputs: list[tuple[str, np.ndarray]] = []
    every = list(each_cut(cuts))
    some = CutSet.from_cuts(every[:: math.ceil(len(every) / most) or 1])
    batches = evaluation_batches(
        some, tokens=tokens, max_duration=200.0, features=features, limits=limits
    )
    for batch in batches:
        log_probs, lengths = encoder(batch.features, batch.feature_lengths)
        rows = log_probs.float().cpu().numpy()
        outputs += [
            (text, row[:length])
            for text, row, length in zip(batch.texts, rows, lengths.tolist(), strict=True)
        ]
    return outputs


def _wer(search: BeamSearch, outputs: Sequence[tuple[str, np.ndarray]]) -> float:
    return error_rates(
        [Transcript("", "", text, search.decode(log_probs)) for text, log_probs in outputs]
    ).wer
