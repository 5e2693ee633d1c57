"""Transcripts that are equally right: those that the allowed errors could turn into each other.

Letters: T' encoder frames, V vocabulary.
"""

import numpy as np
from jaxtyping import Float

from ortho_edge.tokens import Tokens

MOST_TIES = 12
"""Frames without a clear best symbol, above which a clip says nothing about a transcript."""


def could_say(
    log_probs: Float[np.ndarray, "T4 V"], text: str, tokens: Tokens, error: float
) -> bool:
    """Whether greedy decoding says `text` where every log-probability may be off by `error`.

    A symbol may come out best where it is at most twice that below the best one: both may be off.

    Args:
        log_probs: Of one utterance.
        text: The transcript in question.
        tokens: Symbols of the outputs.
        error: Largest error of a log-probability.
    """
    possible = log_probs >= log_probs.max(-1, keepdims=True) - 2 * error
    if (possible.sum(-1) > 1).sum() > MOST_TIES:
        return True
    heard: set[tuple[tuple[int, ...], int]] = {((), 0)}
    for row in possible:
        symbols = np.flatnonzero(row).tolist()
        heard = {
            (ids if one in (0, last) else (*ids, one), one)
            for ids, last in heard
            for one in symbols
        }
    return any(tokens.decode(list(ids)) == text for ids, _ in heard)
