"""Labelled speech by name: a set of a recipe's corpora, or a folder of one's own."""

from pathlib import Path

from lhotse import CutSet

from ortho_edge.cli import UserError
from ortho_edge.data.corpora import synthetic
from ortho_edge.data.waveforms import each_cut
from ortho_edge.training.corpora import DataOptions
from ortho_edge.training.recipes import RECIPES, recipe


def speech_set(name: str, options: DataOptions) -> CutSet:
    """The utterances of a set, each with its words, also those whose audio cannot be read.

    Args:
        name: RECIPE/SET, such as `digits/dev`, or a folder with `transcripts.tsv` (or `.csv`) and
            `audio`, see `ortho_edge.data.recordings`; or such a table.
        options: Where the corpora are.

    Raises:
        UserError: There is no such set or folder, or its corpora are absent.
    """
    if Path(name).exists():
        return synthetic(name, keep_unreadable=True)
    first, slash, part = name.partition("/")
    if not slash or first not in RECIPES:
        raise UserError(
            f"unknown set {name!r}: neither a folder nor RECIPE/SET with a recipe of "
            f"{', '.join(RECIPES)}"
        )
    return recipe(first).corpus(options).evaluation_set(part)


CHILDREN_BELOW = 16
"""Years; speechocean762 has speakers from 6 to 15 and from 19 on."""


def speaker_groups(cuts: CutSet) -> dict[str, str]:
    """`children` or `adults` by cut, for the cuts whose corpus states an age."""
    ages = {cut.id: (getattr(cut, "custom", None) or {}).get("age") for cut in each_cut(cuts)}
    return {
        cut_id: "children" if age < CHILDREN_BELOW else "adults"
        for cut_id, age in ages.items()
        if isinstance(age, int)
    }


def development_set(name: str, tested: str, options: DataOptions) -> CutSet:
    """The utterances of a set that may choose something which another set is then tested with.

    Args:
        name: As for `speech_set`.
        tested: The other set.
        options: Where the corpora are.

    Raises:
        UserError: It is the tested set or a recipe's test set, or it is not there.
    """
    if name == tested:
        raise UserError(f"{name} cannot both choose and test; name a development set")
    first, _, part = name.partition("/")
    if first in RECIPES and not Path(name).is_dir():
        known = recipe(first).corpus(options).development
        if part not in known:
            choices = ", ".join(f"{first}/{one}" for one in known)
            raise UserError(f"{name} is no development set; known: {choices}")
    return speech_set(name, options)
