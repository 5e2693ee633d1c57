"""The speech corpora as lhotse CutSets.

A folder of recordings with a ``transcripts.tsv`` (tab-separated, one line of column names, then one
line for each utterance) becomes an eager CutSet. A file that is missing, empty or unreadable is
left out, and one log line counts them by reason.
"""

import csv
import logging
import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import soundfile
from lhotse import AudioSource, CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.cut import Cut

from ortho_edge.cli import UserError

logger = logging.getLogger(__name__)

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


def speechocean762(root: str | Path, split: str) -> CutSet:
    """Read English sentences of non-native speakers, half of them children, 16 kHz.

    Args:
        root: Folder of corpora, as `data_root` returns it.
        split: ``train``, ``dev`` or ``test``; no speaker is in two of them.

    Returns:
        Cuts with ``age`` (int, years) and ``gender`` (``m`` or ``f``) as custom fields.

    Raises:
        UserError: The corpus or the split is absent.
    """
    splits = ("train", "dev", "test")
    if split not in splits:
        raise UserError(f"unknown split '{split}' of speechocean762; known: {', '.join(splits)}")
    return CutSet.from_cuts(
        _transcribed_cuts(
            Path(root) / "speechocean762" / split,
            suffix=".opus",
            custom={"age": int, "gender": str},
        )
    )


def fsdd(
    root: str | Path,
    *,
    speakers: Collection[str] | None = None,
    takes: Collection[int] | None = None,
) -> CutSet:
    """Isolated spoken digits (ZERO to NINE) of the Free Spoken Digit Dataset, 8 kHz.

    Args:
        root: Folder of corpora.
        speakers: Speakers to keep; None keeps all.
        takes: Takes to keep, from 0 to 49; None keeps all. Takes 0 to 4 are the official test.

    Returns:
        Cuts with ``take`` (int) as a custom field.

    Raises:
        UserError: The corpus or a named speaker is absent.
    """
    cuts = _transcribed_cuts(Path(root) / "fsdd", suffix=".flac", custom={"take": int})
    known = sorted({_speaker(cut) for cut in cuts})
    unknown = sorted(set(speakers or ()) - set(known))
    if unknown:
        raise UserError(f"unknown speaker '{unknown[0]}' of fsdd; known: {', '.join(known)}")
    return CutSet.from_cuts(
        cut
        for cut in cuts
        if (speakers is None or _speaker(cut) in speakers) and (takes is None or cut.take in takes)
    )


def librivox(root: str | Path) -> CutSet:
    """Five sentences of one fluent reader, 16 kHz: a fixture, too small to train on.

    Args:
        root: Folder of corpora.

    Raises:
        UserError: The corpus is absent.
    """
    return CutSet.from_cuts(_transcribed_cuts(Path(root) / "librivox", suffix=".flac"))


def synthetic(folder: str | Path) -> CutSet:
    """Synthesised speech as ``python -m ortho_edge.synthesize`` writes it.

    Args:
        folder: The folder with ``transcripts.tsv`` and ``audio/<utterance>.flac``.

    Raises:
        UserError: There is no such folder.
    """
    return CutSet.from_cuts(_transcribed_cuts(Path(folder), suffix=".flac"))


def _speaker(cut: Cut) -> str:
    return cut.supervisions[0].speaker or ""


def _transcribed_cuts(
    folder: Path, *, suffix: str, custom: dict[str, type] | None = None
) -> list[MonoCut]:
    """Reads ``transcripts.tsv`` and the headers of ``audio/<utterance><suffix>``."""
    table = folder / "transcripts.tsv"
    if not table.is_file():
        raise UserError(f"no corpus at '{folder}': it has no transcripts.tsv")
    cuts, skipped = [], Counter()
    with table.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            path = folder / "audio" / f"{row['utterance']}{suffix}"
            recording = _recording(path, row["utterance"])
            if isinstance(recording, str):
                skipped[recording] += 1
                continue
            extra = {name: kind(row[name]) for name, kind in (custom or {}).items()}
            cuts.append(_cut(recording, row, extra))
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
    level = logging.WARNING if skipped else logging.INFO
    logger.log(level, "%s: %d utterances, skipped: %s", folder, len(cuts), counts or "none")
    return cuts


def _recording(path: Path, name: str) -> Recording | str:
    """Returns a recording after a look at the file's header, or why there is none."""
    if not path.is_file():
        return "missing"
    if path.stat().st_size == 0:
        return "empty"
    try:
        info = soundfile.info(str(path))
    except soundfile.SoundFileError:
        return "unreadable"
    if info.frames == 0:
        return "empty"
    return Recording(
        id=name,
        sources=[AudioSource(type="file", channels=list(range(info.channels)), source=str(path))],
        sampling_rate=info.samplerate,
        num_samples=info.frames,
        duration=info.frames / info.samplerate,
    )


def _cut(recording: Recording, row: dict[str, str], custom: dict[str, object]) -> MonoCut:
    supervision = SupervisionSegment(
        id=recording.id,
        recording_id=recording.id,
        start=0.0,
        duration=recording.duration,
        text=row["text"],
        speaker=row["speaker"],
        language="English",
        gender=row.get("gender"),
    )
    return MonoCut(
        id=recording.id,
        start=0.0,
        duration=recording.duration,
        channel=0,
        recording=recording,
        supervisions=[supervision],
        custom=dict(custom) or None,
    )
