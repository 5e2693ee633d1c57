"""`python -m ortho_edge.prepare NAME --corpus DIR --out DIR`: a corpus ready for training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ortho_edge.cli import run
from ortho_edge.options import Range


@dataclass(frozen=True)
class Arguments:
    """Prepare an unpacked corpus for training: manifests, symbols, text for a language model.

    Audio stays where it is and features are computed while training. The same command goes on
    after an interruption and adds parts to what is there.
    """

    name: Annotated[Literal["librispeech", "tedlium2"], tyro.conf.Positional]
    """Which corpus."""
    corpus: Path
    """Where it is unpacked: LibriSpeech or TEDLIUM_release2, or the folder that holds it."""
    out: Path
    """Folder to write, which training takes as --data."""
    parts: tuple[str, ...] = ()
    """Parts, such as train-clean-100 dev-clean test-clean; all by default."""
    units: Literal["bpe", "characters", "phonemes"] = "bpe"
    """What the symbols are; phonemes need --lexicon."""
    pieces: Annotated[int, Range(2, 10**6)] = 500
    """Word pieces, for bpe."""
    lexicon: Path | None = None
    """Pronunciations, such as librispeech-lexicon.txt or TEDLIUM.152k.dic."""
    musan: Path | None = None
    """MUSAN unpacked, whose noise and music are mixed into half of the training speech."""


def main(arguments: Arguments) -> None:
    """Prepares and prints what there is."""
    from ortho_edge.data.preparation import UNSPELLED, Preparation, prepare, training_parts

    facts = prepare(
        Preparation(
            corpus=arguments.name,
            source=arguments.corpus,
            out=arguments.out,
            parts=arguments.parts,
            units=arguments.units,
            num_pieces=arguments.pieces,
            lexicon=arguments.lexicon,
            noise=arguments.musan,
        )
    )
    for part, one in facts.parts.items():
        reasons = ", ".join(f"{count} {reason}" for reason, count in one["dropped"].items())
        left_out = f", left out: {reasons}" if reasons else ""
        print(f"{part}: {one['utterances']} utterances, {one['hours']:.1f} h{left_out}")
    total = sum(facts.parts[part]["utterances"] for part in training_parts(facts.parts))
    if facts.unspelled_utterances:
        print(
            f"{facts.unspelled_utterances} of {total} training utterances will be left out: they "
            f"have words that the symbols cannot spell, listed in {arguments.out / UNSPELLED}"
        )
    print(f"prepared: {arguments.out}")


if __name__ == "__main__":
    run(main, Arguments, prog="python -m ortho_edge.prepare")
