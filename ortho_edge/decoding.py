"""Greedy CTC decoding: the best symbol of each frame, repeats merged, blanks dropped."""

import numpy as np

from ortho_edge.tokens import Tokens


def greedy_ids(log_probs: np.ndarray) -> list[int]:
    """Symbol ids of one utterance.

    Args:
        log_probs: (T', V) log-probabilities or logits of the real frames; blank is column 0.
    """
    best = np.asarray(log_probs).argmax(axis=-1)
    keep = np.concatenate([[True], best[1:] != best[:-1]])[: len(best)] & (best != 0)
    return best[keep].tolist()


def greedy_text(log_probs: np.ndarray, tokens: Tokens) -> str:
    """The text of one utterance (T', V)."""
    return tokens.decode(greedy_ids(log_probs))
