"""What each recipe trains and is evaluated on: epochs of cuts, evaluation sets, symbols."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from lhotse import CutSet
from lhotse.cut import Cut

from ortho_edge.cli import UserError
from ortho_edge.data import corpora
from ortho_edge.data.alignment import spread_evenly
from ortho_edge.data.audio import AudioError
from ortho_edge.data.digit_strings import digit_strings
from ortho_edge.data.preparation import CHARACTERS, PreparedCorpus
from ortho_edge.data.sounds import TRAINED, sound_cuts
from ortho_edge.data.transcripts import Normalizer
from ortho_edge.data.waveforms import each_cut, load_cut, shared_cache
from ortho_edge.tokens import Tokens, character_tokens

DIGITS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")

HELD_OUT_SPEAKER = "theo"
"""The speaker of the Free Spoken Digit Dataset whose voice no training ever hears."""
TRAINING_TAKES = tuple(range(5, 50))
TEST_TAKES = tuple(range(5))
"""The official test takes; used as development data for the speakers that are trained on."""

SOUND_SECONDS = (0.5, 6.0)

CUTS_FOR_DIGEST = 100_000


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Cuts and symbols of one recipe.

    Attributes:
        tokens: The symbol table.
        training_cuts: Cuts of an epoch, from its number and the share of all updates done before it
            (a curriculum may depend on it). The same arguments give the same cuts.
        development: Sets whose error rates choose between subnets, by name.
        test: Sets that nothing is chosen by, each made when asked for.
    """

    tokens: Tokens
    training_cuts: Callable[[int, float], CutSet]
    development: Mapping[str, CutSet]
    test: Mapping[str, Callable[[], CutSet]]

    def evaluation_set(self, name: str) -> CutSet:
        """The development or test set of that name.

        Raises:
            UserError: There is none.
        """
        if name in self.development:
            return self.development[name]
        if name in self.test:
            return self.test[name]()
        raise UserError(
            f"unknown set {name!r}; known: {', '.join([*self.development, *self.test])}"
        )


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Where data is.

    Attributes:
        root: Folder of the corpora; by default ORTHO_EDGE_DATA, else ../shared/data.
        synthetic: Folders made by `python -m ortho_edge.synthesize`.
    """

    root: Path | None = None
    synthetic: tuple[Path, ...] = ()


def is_digits(text: str) -> bool:
    """Whether a text consists of digit words alone."""
    words = _normalized(text).split()
    return bool(words) and set(words) <= set(DIGITS)


_normalized = Normalizer(digit_by_digit=True)


def _text(cut: Cut) -> str:
    return cut.supervisions[0].text or ""


def _filtered(cuts: CutSet, keep: Callable[[Cut], bool]) -> list[Cut]:
    return [cut for cut in each_cut(cuts) if keep(cut)]


def _repeated(cuts: list[Cut], times: int) -> list[Cut]:
    """Copies under names of their own, so that each is augmented in its own way."""
    return [cut.with_id(f"{cut.id}-copy{number}") for number in range(times) for cut in cuts]


def string_lengths(progress: float) -> tuple[int, int]:
    """Fewest and most digits of a string: short ones first, or CTC never leaves blank."""
    if progress < 0.05:
        return 1, 2
    return (1, 5) if progress < 0.12 else (3, 8)


def digits_corpus(
    options: DataOptions, *, digit_copies: int = 4, other_sentences: int = 360, sounds: int = 0
) -> Corpus:
    """Digit strings of few voices, made many by augmentation, and speech of many speakers.

    An epoch holds strings concatenated from FSDD recordings (without `HELD_OUT_SPEAKER`), strings
    of synthesised voices where `options.synthetic` names some, the digit sentences of
    speechocean762 several times and a sample of its other sentences, spelled in characters.

    Args:
        options: Where data is.
        digit_copies: How often an epoch holds each digit sentence of speechocean762.
        other_sentences: How many of its other sentences an epoch holds.
        sounds: How many sounds that are no speech an epoch holds, once words are being learned.
    """
    root = corpora.data_root(options.root)
    fsdd = corpora.fsdd(root)
    spoken = [cut for cut in each_cut(fsdd) if cut.supervisions[0].speaker != HELD_OUT_SPEAKER]
    speakers = sorted({str(cut.supervisions[0].speaker) for cut in spoken})
    takes = corpora.fsdd(root, speakers=speakers, takes=TRAINING_TAKES).to_eager()
    sentences = corpora.speechocean762(root, "train").to_eager()
    digit_sentences = _filtered(sentences, lambda cut: is_digits(_text(cut)))
    others = _filtered(sentences, lambda cut: not is_digits(_text(cut)))
    voices = _SyntheticVoices.load(options.synthetic)

    def training_cuts(epoch: int, progress: float) -> CutSet:
        low, high = string_lengths(progress)
        rng = np.random.default_rng((epoch, 77))
        cuts = _strings(takes, round(3600 / (low + high)), low, high, epoch, "fsdd")
        cuts += _strings(takes, 150, 1, 2, epoch + 10_000, "short")
        cuts += voices.training(epoch, rng, low, high)
        cuts += _repeated(digit_sentences, digit_copies)
        if progress >= 0.05:
            chosen = rng.choice(len(others), size=min(other_sentences, len(others)), replace=False)
            cuts += [others[index] for index in chosen]
            cuts += sound_cuts(tuple(TRAINED), sounds, SOUND_SECONDS, epoch)
        return CutSet.from_cuts(cuts)

    dev_takes = corpora.fsdd(
        root, speakers=speakers, takes=TEST_TAKES, keep_unreadable=True
    ).to_eager()
    dev_cuts = _strings(dev_takes, 160, 3, 8, 1, "dev")
    dev_cuts += _filtered(
        corpora.speechocean762(root, "dev", keep_unreadable=True),
        lambda cut: is_digits(_text(cut)),
    )
    dev_cuts += voices.development()

    return Corpus(
        tokens=character_tokens(DIGITS, CHARACTERS),
        training_cuts=training_cuts,
        development={"dev": CutSet.from_cuts(dev_cuts)},
        test={
            "unseen": lambda: CutSet.from_cuts(
                _strings(
                    corpora.fsdd(root, speakers=[HELD_OUT_SPEAKER], keep_unreadable=True),
                    400,
                    3,
                    8,
                    2,
                    "unseen",
                )
            ),
            "speechocean762-digits": lambda: CutSet.from_cuts(
                _filtered(
                    corpora.speechocean762(root, "test", keep_unreadable=True),
                    lambda cut: is_digits(_text(cut)),
                )
            ),
        },
    )


def _strings(
    isolated: CutSet, num_strings: int, low: int, high: int, seed: int, name: str
) -> list[Cut]:
    strings = digit_strings(
        isolated, num_strings=num_strings, min_digits=low, max_digits=high, seed=seed
    )
    return [cut.with_id(f"{name}-{seed}-{number}") for number, cut in enumerate(strings)]


@dataclass(frozen=True)
class _SyntheticVoices:
    """Cuts of synthesised voices; every twelfth voice is kept for development."""

    isolated: CutSet
    spoken_strings: list[Cut]
    held_out: list[Cut]

    @classmethod
    def load(cls, folders: Sequence[Path]) -> "_SyntheticVoices":
        if not folders:
            return cls(CutSet.from_cuts([]), [], [])
        cuts = [cut for folder in folders for cut in each_cut(corpora.synthetic(folder))]
        voices = sorted({str(cut.supervisions[0].speaker) for cut in cuts})
        kept_back = set(voices[5::12])
        training = [cut for cut in cuts if cut.supervisions[0].speaker not in kept_back]
        return cls(
            CutSet.from_cuts(cut for cut in training if " " not in _text(cut)),
            [cut for cut in training if " " in _text(cut)],
            [cut for cut in cuts if cut.supervisions[0].speaker in kept_back and " " in _text(cut)],
        )

    def training(self, epoch: int, rng: np.random.Generator, low: int, high: int) -> list[Cut]:
        if not len(self.isolated):
            return []
        cuts = _strings(self.isolated, round(2400 / (low + high)), low, high, epoch, "synthetic")
        if high > 2:
            number = min(200, len(self.spoken_strings))
            chosen = rng.choice(len(self.spoken_strings), size=number, replace=False)
            cuts += [self.spoken_strings[index] for index in chosen]
        return cuts

    def development(self) -> list[Cut]:
        return self.held_out[:: max(1, len(self.held_out) // 60)]


SHORT_SENTENCE = 3.2
"""Seconds of the sentences that a curriculum begins with: the shorter third."""


def speechocean762_corpus(
    options: DataOptions, *, short_first: float = 0.0, flat_start: bool = False
) -> Corpus:
    """All sentences of speechocean762 in characters.

    Args:
        options: Where data is.
        short_first: Share of the updates in which epochs begin that hold short sentences alone:
            CTC leaves blank sooner on these.
        flat_start: Spread the characters of each training sentence evenly over its loud part, for
            the cross-entropy of aligned frames.
    """
    root = corpora.data_root(options.root)
    tokens = character_tokens(characters=CHARACTERS)
    sentences = corpora.speechocean762(root, "train").to_eager()

    # Evaluation does without, and reading all audio takes a while.
    @cache
    def epochs() -> tuple[CutSet, CutSet]:
        cuts = [_spread(cut, tokens) for cut in each_cut(sentences)] if flat_start else sentences
        whole = CutSet.from_cuts(cuts)
        return whole, CutSet.from_cuts(_filtered(whole, lambda cut: cut.duration <= SHORT_SENTENCE))

    return Corpus(
        tokens=tokens,
        training_cuts=lambda epoch, progress: epochs()[progress < short_first],
        development={"dev": corpora.speechocean762(root, "dev", keep_unreadable=True).to_eager()},
        test={
            "test": lambda: corpora.speechocean762(root, "test", keep_unreadable=True).to_eager()
        },
    )


def _spread(cut: Cut, tokens: Tokens) -> Cut:
    try:
        return spread_evenly(cut, load_cut(cut, shared_cache()), tokens)
    except AudioError:
        return cut  # Counted where batches are made.


def librispeech_corpus(options: DataOptions) -> Corpus:
    """LibriSpeech as `python -m ortho_edge.prepare` left it; its dev sets choose."""
    return _prepared_corpus("librispeech", options)


def tedlium2_corpus(options: DataOptions) -> Corpus:
    """TED-LIUM release 2 as `python -m ortho_edge.prepare` left it."""
    return _prepared_corpus("tedlium2", options)


def _prepared_corpus(name: str, options: DataOptions) -> Corpus:
    """What parts are for stands in their names: train, dev and test."""
    prepared = PreparedCorpus.find(corpora.data_root(options.root), name)
    parts = prepared.facts.parts
    return Corpus(
        tokens=prepared.tokens,
        training_cuts=lambda epoch, progress: prepared.training_cuts(epoch),
        development={
            part: prepared.cuts(part).to_eager() for part in parts if part.startswith("dev")
        },
        test={part: partial(prepared.cuts, part) for part in parts if part.startswith("test")},
    )
