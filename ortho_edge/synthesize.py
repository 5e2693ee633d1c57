"""Command: writes a corpus of synthesised spoken digits for training.

python -m ortho_edge.synthesize --out synthetic [--seed 0] [--takes 8]
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ortho_edge.cli import run
from ortho_edge.options import Range, Seed


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Speak digits and digit strings with espeak-ng, flite and festival; write them as a corpus."""

    out: Path
    """Folder to create; it appears complete or not at all."""
    seed: Seed = 0
    """Fixes every draw of rate, pitch, level and digits."""
    takes: Annotated[int, Range(1, 1000)] = 8
    """Takes of each of the ten digits per voice."""


def main(arguments: Arguments) -> None:
    """Writes the corpus.

    Raises:
        UserError: the folder exists or a synthesiser is missing.
    """
    from ortho_edge.data.synthesis import synthesize_corpus

    print(synthesize_corpus(arguments.out, takes=arguments.takes, seed=arguments.seed))


if __name__ == "__main__":
    run(main, Arguments, prog="python -m ortho_edge.synthesize")
