"""A prepared corpus: a folder that training starts from at once, made of an unpacked archive.

    prepared.json         what it was made of, how much of it there is, what was left out
    cuts/PART.jsonl.gz    lhotse's manifest of each part, read lazily; audio stays where it is
    cuts/noise.jsonl.gz   noise to mix in, if wanted
    tokens.txt            CTC symbols
    bpe.model             the sentencepiece model behind them, or
    lexicon.txt           the pronunciations behind them
    text.txt              training transcripts, for a language model
    oov.tsv               words of the training transcripts that the symbols cannot spell: how often

Parts that are done are not read again, so an interrupted preparation goes on where it stopped.
"""

import gzip
import io
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.cut.set import LazyCutMixer

from ortho_edge.atomic import write_atomically
from ortho_edge.cli import UserError
from ortho_edge.data.archives import ARCHIVES, musan_noise
from ortho_edge.data.cut_files import read_cuts
from ortho_edge.data.prepared_facts import DESCRIPTION, Facts
from ortho_edge.data.transcripts import Normalizer
from ortho_edge.data.waveforms import each_cut
from ortho_edge.lexicon import Lexicon, lexicon_tokens, with_lexicon
from ortho_edge.tokens import Tokens, character_tokens, sentencepiece_tokens

logger = logging.getLogger(__name__)

SYMBOLS, PIECES, LEXICON = "tokens.txt", "bpe.model", "lexicon.txt"
TEXT, UNSPELLED, NOISE = "text.txt", "oov.tsv", "noise"
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ'"

NOISE_PROBABILITY = 0.5
NOISE_SNR_DB = (10.0, 20.0)
"""How often and how loud recorded noise is mixed into training speech: icefall's usual values."""

Units = Literal["bpe", "characters", "phonemes"]


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What is to be prepared.

    Attributes:
        corpus: A name in `ARCHIVES`.
        source: Where it is unpacked.
        out: The folder to make.
        parts: Parts of it; all by default.
        units: What the symbols are.
        num_pieces: Word pieces, for `bpe`.
        lexicon: Pronunciations, for `phonemes`.
        noise: MUSAN, or None for no noise.
    """

    corpus: str
    source: Path
    out: Path
    parts: Sequence[str] = ()
    units: Units = "bpe"
    num_pieces: int = 500
    lexicon: Path | None = None
    noise: Path | None = None


def prepare(wanted: Preparation) -> Facts:
    """Makes or completes a prepared corpus.

    Returns:
        What it consists of now.

    Raises:
        UserError: The archive, a part of it or the lexicon is missing or unreadable, or `out` holds
            another corpus.
    """
    archive = ARCHIVES[wanted.corpus]
    source = archive.locate(wanted.source)
    parts = list(wanted.parts or archive.parts)
    archive.check(source, parts)
    # Everything that can be wrong is looked at before the hours of reading begin.
    lexicon = _wanted_lexicon(wanted)
    noise = None if wanted.noise is None else musan_noise(wanted.noise)
    facts = Facts(wanted.corpus, str(source))
    if (wanted.out / DESCRIPTION).exists():
        facts = Facts.read(wanted.out)
        if (facts.corpus, facts.source) != (wanted.corpus, str(source)):
            raise UserError(
                f"{wanted.out} holds {facts.corpus} of {facts.source}; choose another --out"
            )
    for part in parts:
        if part in facts.parts:
            logger.info("%s: already prepared", part)
            continue
        cuts, dropped = archive.read(source, part)
        _write_cuts(wanted.out, part, cuts)
        done = {"utterances": len(cuts), "hours": _hours(cuts), "dropped": dict(dropped)}
        facts = replace(facts, parts={**facts.parts, part: done})
        facts.write(wanted.out)
    if noise is not None:
        _write_cuts(wanted.out, NOISE, noise)
    facts = replace(facts, noise=None if wanted.noise is None else str(wanted.noise.resolve()))
    facts = replace(facts, units="", unspelled_utterances=0)
    facts.write(wanted.out)
    unspelled = _write_symbols(wanted, lexicon, training_parts(facts.parts))
    facts = replace(facts, units=wanted.units, unspelled_utterances=unspelled)
    facts.write(wanted.out)
    return facts


def training_parts(parts: Iterable[str]) -> list[str]:
    """Those parts that are trained on."""
    return [part for part in parts if part.startswith("train")]


def _wanted_lexicon(wanted: Preparation) -> Lexicon | None:
    if wanted.units == "phonemes":
        if wanted.lexicon is None:
            raise UserError("phonemes need --lexicon, a file of 'WORD PHONEME ...' lines")
        return Lexicon.load(wanted.lexicon)
    if wanted.lexicon is not None:
        raise UserError(f"--lexicon belongs to --units phonemes, not {wanted.units}")
    return None


def _write_cuts(folder: Path, name: str, cuts: Iterable[Cut] | CutSet) -> None:
    content = io.StringIO()
    path = folder / "cuts" / f"{name}.jsonl.gz"
    for cut in cuts:  # pyright: ignore[reportGeneralTypeIssues] - see each_cut
        content.write(json.dumps(cut.to_dict()) + "\n")
    write_atomically(path, gzip.compress(content.getvalue().encode(), 6, mtime=0))


def _hours(cuts: Sequence[Cut]) -> float:
    return round(sum(cut.duration for cut in cuts) / 3600, 4)


def _write_symbols(wanted: Preparation, lexicon: Lexicon | None, training: Sequence[str]) -> int:
    """Makes symbols from the training transcripts.

    Returns:
        How many training utterances they cannot spell.
    """
    if not training:
        raise UserError("symbols are made from training transcripts: name a train part")
    normalized = Normalizer()
    texts = [
        normalized(cut.supervisions[0].text or "")
        for part in training
        for cut in each_cut(_read_cuts(wanted.out, part))
    ]
    write_atomically(wanted.out / TEXT, "".join(f"{text}\n" for text in texts))
    if wanted.units == "characters":
        tokens = character_tokens(characters=CHARACTERS)
    elif lexicon is not None:
        tokens = lexicon_tokens(lexicon)
        write_atomically(wanted.out / LEXICON, lexicon.lines())
    else:
        tokens = _word_pieces(texts, wanted.num_pieces, wanted.out / PIECES)
    unspelled, words = 0, Counter()
    for one in texts:
        wrong = [word for word in one.split() if not _spells(tokens, word)]
        unspelled += bool(wrong)
        words.update(wrong)
    lines = (f"{word}\t{count}\n" for word, count in words.most_common())
    write_atomically(wanted.out / UNSPELLED, "word\tcount\n" + "".join(lines))
    write_atomically(wanted.out / SYMBOLS, tokens.lines())
    return unspelled


def _spells(tokens: Tokens, word: str) -> bool:
    try:
        tokens.encode(word)
    except ValueError:
        return False
    return True


def _word_pieces(texts: Sequence[str], num_pieces: int, path: Path) -> Tokens:
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=num_pieces,
            model_type="bpe",
            character_coverage=1.0,
            # Blank is symbol 0 of ours; sentences have no beginning or end of their own.
            bos_id=-1,
            eos_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise UserError(
            f"cannot make {num_pieces} word pieces of the transcripts: {detail}"
        ) from error
    write_atomically(path, model.getvalue())
    return sentencepiece_tokens(model.getvalue())


def _read_cuts(folder: Path, name: str) -> CutSet:
    return read_cuts(folder / "cuts" / f"{name}.jsonl.gz", with_text=name != NOISE)


@dataclass(frozen=True)
class PreparedCorpus:
    """A complete prepared corpus.

    Attributes:
        folder: Where it is.
        facts: What it consists of.
        tokens: Its symbols, with their lexicon where they are phonemes.
    """

    folder: Path
    facts: Facts
    tokens: Tokens

    @classmethod
    def find(cls, root: Path, corpus: str) -> "PreparedCorpus":
        """The prepared corpus at `root` or in its folder of that name.

        Raises:
            UserError: There is none, it is of another corpus, or it is not complete.
        """
        again = f"python -m ortho_edge.prepare {corpus} --corpus FOLDER --out FOLDER"
        for folder in (root, root / corpus):
            if (folder / DESCRIPTION).is_file():
                break
        else:
            raise UserError(f"no prepared {corpus} in {root}: make it with {again}")
        facts = Facts.read(folder)
        if facts.corpus != corpus:
            raise UserError(f"{folder} holds {facts.corpus}, not {corpus}")
        try:
            tokens = Tokens.parse((folder / SYMBOLS).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{folder} is incomplete or damaged ({error}): repeat {again}"
            ) from error
        if not facts.units:
            raise UserError(f"{folder} is incomplete: repeat {again}")
        if facts.units == "phonemes":
            tokens = with_lexicon(tokens, Lexicon.load(folder / LEXICON))
        return cls(folder, facts, tokens)

    def cuts(self, part: str) -> CutSet:
        """The utterances of a part, lazily.

        Raises:
            UserError: It was not prepared.
        """
        path = self.folder / "cuts" / f"{part}.jsonl.gz"
        if part not in self.facts.parts or not path.is_file():
            known = ", ".join(self.facts.parts)
            raise UserError(f"{self.folder} has no part {part!r}; known: {known}")
        return _read_cuts(self.folder, part)

    def training_cuts(self, epoch: int) -> CutSet:
        """All training utterances, parts interleaved, noise mixed in where it was prepared.

        Raises:
            UserError: No training part was prepared.
        """
        parts = training_parts(self.facts.parts)
        if not parts:
            raise UserError(f"{self.folder} has no train part")
        cuts = self.cuts(parts[0])
        if len(parts) > 1:
            sizes = [self.facts.parts[part]["utterances"] for part in parts]
            cuts = CutSet.mux(*map(self.cuts, parts), weights=sizes, seed=0)
        if self.facts.noise is None:
            return cuts
        noise = _read_cuts(self.folder, NOISE).to_eager()
        if not noise:
            raise UserError(f"{self.folder / 'cuts' / NOISE}.jsonl.gz holds no noise to mix in")
        # Stateless, unlike CutSet.mix: an epoch has the same noise however often it is begun.
        return CutSet(
            LazyCutMixer(
                cuts,
                noise,
                snr=NOISE_SNR_DB,
                mix_prob=NOISE_PROBABILITY,
                preserve_id="left",
                seed=epoch,
                random_mix_offset=True,
                stateful=False,
            )
        )
