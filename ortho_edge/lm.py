"""`python -m ortho_edge.lm --text FILE... --out lm.arpa`: an n-gram language model of texts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ortho_edge.cli import run
from ortho_edge.options import Range


@dataclass(frozen=True)
class Arguments:
    """Estimate an n-gram language model (interpolated modified Kneser-Ney) and write it as ARPA.

    Texts are upper-cased. They are counted in memory: some ten million words fit; for more use
    KenLM's lmplz or a published model.
    """

    text: tuple[Path, ...]
    """Texts of one sentence a line, or .tsv or .csv tables with a column text."""
    out: Path
    """The ARPA file to write."""
    order: Annotated[int, Range(2, 6)] = 4
    """Words of the longest n-grams."""
    held_out: tuple[Path, ...] = ()
    """Texts whose sentences are taken out of the others, such as a test set's transcripts."""


def main(arguments: Arguments) -> None:
    """Estimates, writes and reports."""
    from ortho_edge.atomic import write_atomically
    from ortho_edge.ngrams import estimate

    held_out = {one for path in arguments.held_out for one in sentences(path)}
    kept: list[str] = []
    for path in arguments.text:
        found = sentences(path)
        own = [one for one in found if one not in held_out]
        kept += own
        left_out = f", {len(found) - len(own)} left out as held out" if held_out else ""
        print(f"{path}: {len(found)} sentences{left_out}")
    model = estimate(kept, arguments.order)
    write_atomically(arguments.out, "".join(model.arpa()))
    sizes = ", ".join(f"{len(grams)}" for grams in model.probabilities)
    words = sum(len(one.split()) for one in kept)
    print(
        f"written: {arguments.out}, of {words} words; n-grams of order 1 to {model.order}: {sizes}"
    )


def sentences(path: Path) -> list[str]:
    """The sentences of a text or of a table's column `text`, upper-cased.

    Raises:
        UserError: There is no such file, it is no text, or the table lacks the column.
    """
    from ortho_edge.data.tables import read_table
    from ortho_edge.lexicon import read_lines

    if path.suffix.lower() in (".tsv", ".csv"):
        lines = [row.fields["text"] for row in read_table(path, ("text",))]
    else:
        lines = read_lines(path, "text")
    return [" ".join(line.upper().split()) for line in lines if line.strip()]


if __name__ == "__main__":
    run(main, Arguments, prog="python -m ortho_edge.lm")
