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
    """Speak digits and strings of digits with espeak-ng, flite and festival, or with Kokoro."""

    out: Path
    """Folder to create; it appears complete or not at all."""
    seed: Seed = 0
    """Fixes every draw of rate, pitch, level and digits."""
    takes: Annotated[int, Range(1, 1000)] = 8
    """Takes of each of the ten digits per voice."""
    kokoro: Path | None = None
    """Speak with Kokoro instead (extra `kokoro`): folder of its voices, such as package/voices of
    `npm pack kokoro-js@1.2.1`. Interrupted, the same command goes on."""
    voices: Annotated[int, Range(1, 100_000)] = 100
    """Voices of --kokoro: its 28 English ones first, then blends of these."""


def main(arguments: Arguments) -> None:
    """Writes the corpus.

    Raises:
        UserError: the folder exists or a synthesiser is missing.
    """
    from ortho_edge.data.kokoro import synthesize_kokoro
    from ortho_edge.data.synthesis import synthesize_corpus

    if arguments.kokoro is not None:
        number = arguments.voices
        print(
            synthesize_kokoro(
                arguments.out, voices=arguments.kokoro, number=number, seed=arguments.seed
            )
        )
        return
    print(synthesize_corpus(arguments.out, takes=arguments.takes, seed=arguments.seed))


if __name__ == "__main__":
    run(main, Arguments, prog="python -m ortho_edge.synthesize")
