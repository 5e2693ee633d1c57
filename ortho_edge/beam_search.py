"""CTC beam search for words of a lexicon, with an n-gram language model.

A hypothesis W = w_1 ... w_n of output frames x scores

    log sum over spellings s of W of P_ctc(s | x)  +  a log P_lm(W)  +  b n,

natural logarithms, the language model's mark of a sentence's end included. All alignments of all
spellings are summed, and hypotheses of different words are never merged, so that a beam without
limits finds the exact maximum. States are those of CTC prefix search, held within a trie of the
lexicon: each has the probability of ending in blank and that of ending in its last symbol.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ortho_edge.arpa import DATA, check_arpa, opened
from ortho_edge.cli import UserError

ARPA_BEGINS, BINARY_BEGINS = DATA, b"mmap lm http://kheafield.com/code"
_NATURAL = math.log(10.0)
_NEVER = -math.inf


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How hypotheses are weighed and how many are kept.

    Attributes:
        lm_weight: a of the score.
        word_score: b of the score, for every word.
        beam: Most hypotheses after a frame.
        beam_threshold: Hypotheses that score less than the best by more are dropped.
        token_threshold: Symbols whose log-probability in a frame is lower are not tried there.
    """

    lm_weight: float = 0.5
    word_score: float = 0.0
    beam: int = 64
    beam_threshold: float = 20.0
    token_threshold: float = -12.0

    def __post_init__(self) -> None:
        """Raises ValueError naming the field, the value and the rule."""
        if not self.lm_weight >= 0:
            raise ValueError(f"lm_weight must not be negative, but is {self.lm_weight}")
        if not math.isfinite(self.lm_weight + self.word_score):
            raise ValueError("lm_weight and word_score must be finite")
        if self.beam < 1:
            raise ValueError(f"beam must be at least 1, but is {self.beam}")

    def weights(self) -> dict[str, float]:
        """What is tuned."""
        return {"lm_weight": self.lm_weight, "word_score": self.word_score}


class LanguageModel:
    """A KenLM model: word by word, natural logarithms."""

    def __init__(self, path: Path) -> None:
        """Loads ARPA text, which may be gzipped, or KenLM's binary form.

        Raises:
            UserError: kenlm is not installed, or the file is missing or no language model.
        """
        try:
            import kenlm
        except ImportError:
            raise UserError(
                "language models need kenlm: pip install 'ortho-edge[decoding]'"
            ) from None
        self.path = path
        self.is_text = _is_text(path)
        self._words = check_arpa(path) if self.is_text else []
        config = kenlm.Config()
        config.show_progress = False
        config.arpa_complain = kenlm.ARPALoadComplain.NONE
        try:
            self._model = kenlm.Model(str(path), config)
        except (OSError, RuntimeError, UnicodeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"cannot read the language model {path}: {reason}") from error
        self._state = kenlm.State
        self.start, self.nothing = kenlm.State(), kenlm.State()
        self._model.BeginSentenceWrite(self.start)
        self._model.NullContextWrite(self.nothing)

    def score(self, state: object, word: str) -> tuple[float, object]:
        """The logarithm of a word's probability after a state, and the state then."""
        after = self._state()
        return _NATURAL * self._model.BaseScore(state, word, after), after

    def words(self) -> Iterator[str]:
        """The vocabulary, without marks.

        Raises:
            UserError: The model is in binary form, which does not tell.
        """
        if not self.is_text:
            raise UserError(f"{self.path} is binary and lists no words: name them by --lexicon")
        return iter(self._words)


def _is_text(path: Path) -> bool:
    """Whether a language model is ARPA text rather than binary."""
    if not path.is_file():
        raise UserError(f"no language model at {path}")
    with opened(path) as file:
        beginning = file.read(256).lstrip()
    if beginning.startswith(BINARY_BEGINS):
        return False
    if not beginning.startswith(ARPA_BEGINS):
        raise UserError(f"{path} is no language model: neither ARPA text nor KenLM's binary form")
    return True


@dataclass(eq=False)
class _Node:
    """A place in the trie of spellings; its symbol is the last of what led there."""

    symbol: int | None
    children: dict[int, "_Node"] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    hope: float = _NEVER
    """The best unigram log-probability of a word below, to rank a word before it is complete."""


@dataclass(eq=False)
class _Words:
    """The words of a hypothesis, shared by all that begin alike."""

    text: tuple[str, ...]
    score: float
    state: object
    longer: dict[str, "_Words"] = field(default_factory=dict)


class BeamSearch:
    """Finds the words of output frames."""

    def __init__(
        self,
        spellings: Mapping[str, Iterable[Sequence[int]]],
        model: LanguageModel,
        options: SearchOptions,
    ) -> None:
        """Builds the trie.

        Args:
            spellings: Symbol ids of every word, in one or several ways.
            model: The language model.
            options: Weights and limits.

        Raises:
            UserError: There is no word.
        """
        if not spellings:
            raise UserError("the lexicon has no word that the symbols can spell")
        self.model, self.options = model, options
        self._root = _Node(None)
        for word, ways in spellings.items():
            hope, _ = model.score(model.nothing, word)
            for way in dict.fromkeys(tuple(one) for one in ways):
                self._insert(word, way, hope)

    def _insert(self, word: str, spelling: Sequence[int], hope: float) -> None:
        assert spelling, word
        node = self._root
        for symbol in spelling:
            node = node.children.setdefault(symbol, _Node(symbol))
            node.hope = max(node.hope, hope)
        node.words.append(word)

    def weighed(self, options: SearchOptions) -> "BeamSearch":
        """The same search with other options; the trie is shared."""
        other = copy.copy(self)
        other.options = options
        return other

    def decode(self, log_probs: np.ndarray) -> str:
        """The words of one utterance (T', V), blank first.

        Where no sequence of words survives, which a beam can bring about, there are none.
        """
        start = _Words((), 0.0, self.model.start)
        beam: _Beam = {(start, self._root, True): (0.0, _NEVER)}
        for frame in np.asarray(log_probs, dtype=np.float64):
            beam = self._pruned(self._step(beam, frame))
        totals: dict[_Words, float] = {}
        for (words, _, ended), (blank, symbol) in beam.items():
            if ended:
                totals[words] = _add(totals.get(words, _NEVER), _add(blank, symbol))
        if not totals:
            return ""
        return " ".join(max(totals, key=lambda words: totals[words] + self._final(words)).text)

    def _final(self, words: _Words) -> float:
        end, _ = self.model.score(words.state, "</s>")
        return words.score + self.options.lm_weight * end

    def _step(self, beam: "_Beam", frame: np.ndarray) -> "_Beam":
        likely = np.flatnonzero(frame >= self.options.token_threshold)
        tried = {int(symbol): float(frame[symbol]) for symbol in likely if symbol}
        silent = float(frame[0])
        longer: _Beam = {}

        def put(key: _Key, blank: float, symbol: float) -> None:
            before = longer.get(key)
            if before is not None:
                blank, symbol = _add(before[0], blank), _add(before[1], symbol)
            longer[key] = (blank, symbol)

        for (words, node, ended), (blank, symbol) in beam.items():
            total = _add(blank, symbol)
            held = _NEVER if node.symbol is None else symbol + float(frame[node.symbol])
            put((words, node, ended), total + silent, held)
            children = (self._root if ended else node).children
            # Most places have few children, and most frames few likely symbols.
            for token in children if len(children) < len(tried) else tried:
                child = children.get(token)
                if child is None or token not in tried:
                    continue
                # The same symbol twice needs a blank between.
                reached = (blank if token == node.symbol else total) + tried[token]
                if reached == _NEVER:
                    continue
                if child.children:
                    put((words, child, False), _NEVER, reached)
                for word in child.words:
                    put((self._with(words, word), child, True), _NEVER, reached)
        return longer

    def _with(self, words: _Words, word: str) -> _Words:
        found = words.longer.get(word)
        if found is None:
            chance, state = self.model.score(words.state, word)
            gained = self.options.lm_weight * chance + self.options.word_score
            found = _Words((*words.text, word), words.score + gained, state)
            words.longer[word] = found
        return found

    def _pruned(self, beam: "_Beam") -> "_Beam":
        weight = self.options.lm_weight
        scores = {
            key: _add(*ends) + key[0].score + (0.0 if key[2] else weight * key[1].hope)
            for key, ends in beam.items()
        }
        lowest = max(scores.values()) - self.options.beam_threshold
        kept = [key for key, score in scores.items() if score >= lowest]
        if len(kept) > self.options.beam:
            kept = sorted(kept, key=scores.__getitem__, reverse=True)[: self.options.beam]
        return {key: beam[key] for key in kept}


_Key = tuple[_Words, _Node, bool]
"""Complete words, the place in the trie, and whether that place ended the last of them."""
_Beam = dict[_Key, tuple[float, float]]


def _add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    if a < b:
        a, b = b, a
    return a if b == _NEVER else a + math.log1p(math.exp(b - a))
