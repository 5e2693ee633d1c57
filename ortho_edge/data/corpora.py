"""The speech corpora as lhotse CutSets.

Each is a folder that `ortho_edge.data.recordings` reads. A file that is missing, empty, cut off or
unreadable is left out of what is trained on, and one log line counts them by reason; a set that is
evaluated keeps it, so that the evaluation tells of it.
"""

import os
from collections.abc import Collection
from pathlib import Path

from lhotse import CutSet
from lhotse.cut import Cut

from ortho_edge.cli import UserError
from ortho_edge.data.recordings import transcribed_cuts

DATA_ROOT_VARIABLE = "ORTHO_EDGE_DATA"
"""Environment variable that names the folder of corpora."""
DEFAULT_DATA_ROOT = Path("../shared/data")
"""Where corpora are looked for, from the working folder, when nothing else is said."""


def data_root(path: str | Path | None = None) -> Path:
    """Finds the folder that holds the corpora.

    Args:
        path: The folder; None takes `DATA_ROOT_VARIABLE`, and without it `DEFAULT_DATA_ROOT`.

    Returns:
        An existing folder.

    Raises:
        UserError: There is no such folder.
    """
    chosen = Path(path or os.environ.get(DATA_ROOT_VARIABLE) or DEFAULT_DATA_ROOT)
    if not chosen.is_dir():
        raise UserError(
            f"no speech corpora at '{chosen}': name the folder with --data "
            f"or the environment variable {DATA_ROOT_VARIABLE}"
        )
    return chosen


def speechocean762(root: str | Path, split: str, *, keep_unreadable: bool = False) -> CutSet:
    """Read English sentences of non-native speakers, half of them children, 16 kHz.

    Args:
        root: Folder of corpora, as `data_root` returns it.
        split: ``train``, ``dev`` or ``test``; no speaker is in two of them.
        keep_unreadable: Keep utterances without readable audio, for an evaluation to count.

    Returns:
        Cuts with ``age`` (int, years) and ``gender`` (``m`` or ``f``) as custom fields.

    Raises:
        UserError: The corpus or the split is absent.
    """
    splits = ("train", "dev", "test")
    if split not in splits:
        raise UserError(f"unknown split '{split}' of speechocean762; known: {', '.join(splits)}")
    return CutSet.from_cuts(
        transcribed_cuts(
            Path(root) / "speechocean762" / split,
            whole_numbers=("age",),
            keep_unreadable=keep_unreadable,
        )
    )


def fsdd(
    root: str | Path,
    *,
    speakers: Collection[str] | None = None,
    takes: Collection[int] | None = None,
    keep_unreadable: bool = False,
) -> CutSet:
    """Isolated spoken digits (ZERO to NINE) of the Free Spoken Digit Dataset, 8 kHz.

    Args:
        root: Folder of corpora.
        speakers: Speakers to keep; None keeps all.
        takes: Takes to keep, from 0 to 49; None keeps all. Takes 0 to 4 are the official test.
        keep_unreadable: Keep utterances without readable audio, for an evaluation to count.

    Returns:
        Cuts with ``take`` (int) as a custom field.

    Raises:
        UserError: The corpus or a named speaker is absent.
    """
    cuts = transcribed_cuts(
        Path(root) / "fsdd", whole_numbers=("take",), keep_unreadable=keep_unreadable
    )
    known = sorted({_speaker(cut) for cut in cuts})
    unknown = sorted(set(speakers or ()) - set(known))
    if unknown:
        raise UserError(f"unknown speaker '{unknown[0]}' of fsdd; known: {', '.join(known)}")
    return CutSet.from_cuts(
        cut
        for cut in cuts
        if (speakers is None or _speaker(cut) in speakers)
        and (takes is None or (cut.custom or {}).get("take") in takes)
    )


def librivox(root: str | Path) -> CutSet:
    """Five sentences of one fluent reader, 16 kHz: a fixture, too small to train on.

    Args:
        root: Folder of corpora.

    Raises:
        UserError: The corpus is absent.
    """
    return CutSet.from_cuts(transcribed_cuts(Path(root) / "librivox"))


def synthetic(folder: str | Path, *, keep_unreadable: bool = False) -> CutSet:
    """Recordings with a table, as ``python -m ortho_edge.synthesize`` writes them.

    Args:
        folder: The folder with ``transcripts.tsv`` (or ``.csv``) and ``audio``, or a table.
        keep_unreadable: Keep utterances without readable audio, for an evaluation to count.

    Raises:
        UserError: There is no such folder, or its table cannot be used.
    """
    return CutSet.from_cuts(transcribed_cuts(Path(folder), keep_unreadable=keep_unreadable))


def _speaker(cut: Cut) -> str:
    return cut.supervisions[0].speaker or ""
