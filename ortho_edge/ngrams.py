"""N-gram language models: interpolated modified Kneser-Ney estimates, written as ARPA.

Chen and Goodman 1998, in the form of KenLM's `lmplz` without pruning. With c the count of an n-gram
(for orders below the highest: in how many contexts it was seen, unless it begins a sentence), D the
discount of its count and N_i the number of words seen i times after a context,

    p(w | h) = (c(hw) - D(c(hw))) / sum_x c(hx)  +  g(h) p(w | h'),
    g(h) = (D(1) N_1(h) + D(2) N_2(h) + D(3) N_3+(h)) / sum_x c(hx),

h' being h without its first word. Single words fall back on an even share, which is also all that
the unknown word gets.
"""

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ortho_edge.cli import UserError

logger = logging.getLogger(__name__)

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""For counts of 1, 2 and more where the text is too small to estimate them, as lmplz has them."""
NO_MASS = -99.0
"""The base 10 logarithm that stands for a probability of 0."""

Ngram = tuple[str, ...]


@dataclass(frozen=True)
class NgramModel:
    """Probabilities and back-off weights, natural numbers.

    Attributes:
        probabilities: For each order from 1, of every n-gram.
        backoffs: For each order below the highest, of every n-gram that is a context.
    """

    probabilities: tuple[dict[Ngram, float], ...]
    backoffs: tuple[dict[Ngram, float], ...]

    @property
    def order(self) -> int:
        """The longest n-grams."""
        return len(self.probabilities)

    def arpa(self) -> Iterator[str]:
        """The lines of an ARPA file."""
        yield "\\data\\\n"
        for order, grams in enumerate(self.probabilities, 1):
            yield f"ngram {order}={len(grams)}\n"
        for order, grams in enumerate(self.probabilities, 1):
            yield f"\n\\{order}-grams:\n"
            for gram, probability in grams.items():
                line = f"{_log10(probability):.7g}\t{' '.join(gram)}"
                if order < self.order:
                    line += f"\t{_log10(self.backoffs[order - 1].get(gram, 1.0)):.7g}"
                yield line + "\n"
        yield "\n\\end\\\n"


def estimate(sentences: Iterable[str], order: int) -> NgramModel:
    """The model of a text.

    Args:
        sentences: One a string, words parted by white space.
        order: Words of the longest n-grams.

    Raises:
        UserError: There is no word, a word is one of the marks, or the order is not from 2 to 6,
            which is what KenLM reads.
    """
    if not 2 <= order <= 6:
        raise UserError(f"the order must be from 2 to 6, not {order}")
    counts = _adjusted_counts(_counts(sentences, order))
    discounts = [_discounts(grams, length) for length, grams in enumerate(counts, 1)]
    totals: list[dict[Ngram, int]] = []
    backoffs: list[dict[Ngram, float]] = []
    for grams, discount in zip(counts, discounts, strict=True):
        total: dict[Ngram, int] = defaultdict(int)
        freed: dict[Ngram, float] = defaultdict(float)
        for gram, count in grams.items():
            total[gram[:-1]] += count
            freed[gram[:-1]] += discount[min(count, 3)]
        totals.append(total)
        backoffs.append({context: mass / total[context] for context, mass in freed.items()})
    # Everything but the beginning, which is never predicted, and with the unknown word.
    even = backoffs[0][()] / (len(counts[0]) + 1)
    probabilities: list[dict[Ngram, float]] = [{(UNKNOWN,): even, (BEGIN,): 1.0}]
    for gram, count in counts[0].items():
        seen = (count - discounts[0][min(count, 3)]) / totals[0][()]
        probabilities[0][gram] = seen + even
    for level in range(1, order):
        lower, grams = probabilities[level - 1], {}
        for gram, count in counts[level].items():
            context = gram[:-1]
            seen = (count - discounts[level][min(count, 3)]) / totals[level][context]
            grams[gram] = seen + backoffs[level][context] * lower[gram[1:]]
        probabilities.append(grams)
    return NgramModel(tuple(probabilities), tuple(backoffs[1:]))


def _counts(sentences: Iterable[str], order: int) -> list[Counter[Ngram]]:
    """How often every n-gram of every order occurs; sentences are marked at both ends."""
    counts: list[Counter[Ngram]] = [Counter() for _ in range(order)]
    for sentence in sentences:
        words = sentence.split()
        if not words:
            continue
        marks = {BEGIN, END, UNKNOWN} & set(words)
        if marks:
            raise UserError(f"the text holds {marks.pop()!r}, which models use as a mark")
        padded = (BEGIN, *words, END)
        for length, grams in enumerate(counts, 1):
            grams.update(padded[at : at + length] for at in range(len(padded) - length + 1))
    if not counts[0]:
        raise UserError("the text holds no word")
    return counts


def _adjusted_counts(counts: list[Counter[Ngram]]) -> list[dict[Ngram, int]]:
    """Counts of the highest order; below it the number of words seen before an n-gram."""
    adjusted: list[dict[Ngram, int]] = [dict(counts[-1])]
    for lower, higher in zip(counts[-2::-1], counts[:0:-1], strict=True):
        contexts = Counter(gram[1:] for gram in higher)
        # Nothing stands before a beginning.
        kept = {gram: count for gram, count in lower.items() if gram[0] == BEGIN}
        adjusted.insert(0, {gram: kept.get(gram) or contexts[gram] for gram in lower})
    adjusted[0].pop((BEGIN,))
    return adjusted


def _discounts(grams: dict[Ngram, int], order: int) -> tuple[float, ...]:
    """What is taken from counts of 0 (nothing), 1, 2 and more."""
    ones, twos, threes, fours = (
        sum(count == times for count in grams.values()) for times in (1, 2, 3, 4)
    )
    if min(ones, twos, threes) > 0:
        share = ones / (ones + 2 * twos)
        found = (
            1 - 2 * share * twos / ones,
            2 - 3 * share * threes / twos,
            3 - 4 * share * fours / threes,
        )
        if all(0 <= discount <= count for count, discount in enumerate(found, 1)):
            return (0.0, *found)
    logger.warning(
        "the text is too small for discounts of %d-grams of its own; taken are %s",
        order,
        FALLBACK_DISCOUNTS,
    )
    return (0.0, *FALLBACK_DISCOUNTS)


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else NO_MASS
