"""Error rates of encoders on a corpus."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jiwer
import torch
from lhotse import CutSet
from torch import Tensor

from ortho_edge.data.dataset import evaluation_batches
from ortho_edge.decoding import greedy_texts
from ortho_edge.tokens import Tokens

Encoder = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Features (B, T, 80) and lengths (B,) to log-probabilities (B, T', V) and lengths (B,)."""


@dataclass(frozen=True)
class Transcript:
    """What was said and what was understood."""

    cut_id: str
    speaker: str
    reference: str
    hypothesis: str


def error_rates(transcripts: Sequence[Transcript]) -> dict[str, float]:
    """WER and CER in per cent, with the number of reference words.

    Raises:
        ValueError: There is no reference word to compare with.
    """
    references = [one.reference for one in transcripts]
    hypotheses = [one.hypothesis for one in transcripts]
    words = sum(len(text.split()) for text in references)
    if not words:
        raise ValueError("no reference words to compare with")
    return {
        "wer": 100 * float(jiwer.wer(references, hypotheses)),
        "cer": 100 * float(jiwer.cer(references, hypotheses)),
        "words": float(words),
        "utterances": float(len(transcripts)),
    }


@torch.inference_mode()
def transcribe_cuts(
    encoders: dict[str, Encoder], cuts: CutSet, tokens: Tokens, batch_seconds: float = 200.0
) -> dict[str, list[Transcript]]:
    """Greedy transcripts of every cut by each of the encoders, features computed once."""
    results: dict[str, list[Transcript]] = {name: [] for name in encoders}
    for batch in evaluation_batches(cuts, tokens=tokens, max_duration=batch_seconds):
        for name, encoder in encoders.items():
            log_probs, lengths = encoder(batch.features, batch.feature_lengths)
            texts = greedy_texts(log_probs.float().cpu().numpy(), lengths.tolist(), tokens)
            results[name] += [
                Transcript(cut_id, speaker, reference, text)
                for cut_id, speaker, reference, text in zip(
                    batch.cut_ids, batch.speakers, batch.texts, texts, strict=True
                )
            ]
    return results
