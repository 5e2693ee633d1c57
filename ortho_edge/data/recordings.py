"""A table of utterances and the audio files that it names, as lhotse cuts.

The table is `transcripts.tsv` (or `.csv`) of a folder. Its columns are those of
`ortho_edge.data.tables`: an utterance or a path, and a text; speaker, age and gender where they are
known. Audio lies where the path says or in the folder `audio`, in any format: an utterance `u1` is
`audio/u1.flac`, `audio/u1.wav` and so on.
"""

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment
from lhotse.cut import Cut

from ortho_edge.cli import UserError
from ortho_edge.data.audio import ROUNDING_SECONDS, SAMPLE_RATE, say_resampled
from ortho_edge.data.audio_files import (
    LONGEST_SECONDS,
    AudioError,
    AudioHeader,
    find_audio,
    read_header,
)
from ortho_edge.data.tables import Row, check_unique, read_table
from ortho_edge.data.waveforms import MIXDOWN

logger = logging.getLogger(__name__)

TABLES = ("transcripts.tsv", "transcripts.csv")
UNREADABLE = "unreadable"
"""Custom field of a cut whose audio cannot be read: reason and message."""
UNKNOWN_SECONDS = "unknown_seconds"
"""Custom field of such a cut where the table does not tell the duration."""
_NAMED = 5


def transcribed_cuts(
    source: Path, *, whole_numbers: Sequence[str] = (), keep_unreadable: bool = False
) -> list[MonoCut]:
    """One cut for each row of a table.

    Args:
        source: The folder of the table, or the table itself.
        whole_numbers: Further columns to take over as custom fields, besides `age` and `gender`.
        keep_unreadable: Keep utterances whose audio cannot be read, marked by `UNREADABLE`;
            otherwise they are left out and a log line counts them.

    Raises:
        UserError: There is no table, it cannot be used, or no audio of it can be read.
    """
    table = _table(source)
    rows = read_table(table, (("utterance", "path"), "text"), "table of transcripts")
    names = [_name(row) for row in rows]
    check_unique(rows, names)
    files = _Files(table.parent)
    found = [_header(files, row) for row in rows]
    rate = next((one.rate for one in found if isinstance(one, AudioHeader)), SAMPLE_RATE)
    cuts, left_out = [], []
    for row, name, header in zip(rows, names, found, strict=True):
        if isinstance(header, AudioHeader):
            say_resampled(header.rate, header.path)
            cuts.append(_cut(row, name, _recording(name, header), whole_numbers, {}))
            continue
        left_out.append((name, header))
        if keep_unreadable:
            recording, custom = _stand_in(row, name, header, files, rate)
            cuts.append(_cut(row, name, recording, whole_numbers, custom))
    if not keep_unreadable:
        _say(source, len(cuts), left_out)
    if len(left_out) == len(rows) and not keep_unreadable:
        raise UserError(
            f"{table}: no audio of {len(rows)} utterances can be read: {left_out[0][1]}"
        )
    return cuts


def unreadable_because(cut: Cut) -> AudioError | None:
    """Why the audio of a cut cannot be read, if that was found when its table was."""
    found = (getattr(cut, "custom", None) or {}).get(UNREADABLE)
    return None if found is None else AudioError(found[1], reason=found[0])


def _table(source: Path) -> Path:
    if source.is_file():
        return source
    for name in TABLES:
        if (source / name).is_file():
            return source / name
    raise UserError(f"no corpus at '{source}': it has no {' or '.join(TABLES)}")


def _name(row: Row) -> str:
    name = row.fields.get("utterance")
    if name is None:
        name = row.fields["path"].removesuffix(PurePath(row.fields["path"]).suffix)
    if not name:
        raise row.error("the utterance has no name")
    return name


@dataclass(frozen=True)
class _Files:
    """Audio files by the names that tables give them."""

    folder: Path
    known: dict[Path, dict[str, Path]] = field(default_factory=dict)

    def find(self, row: Row) -> Path | None:
        """The file of a row, or None."""
        name = row.fields.get("path") or row.fields["utterance"]
        for base in (self.folder / "audio", self.folder):
            path = base / name
            # Unlike Path's own method this one takes names that no system allows.
            if os.path.isfile(path):  # noqa: PTH113
                return path
            if path.parent not in self.known:
                exists = os.path.isdir(path.parent)  # noqa: PTH112
                self.known[path.parent] = find_audio(path.parent) if exists else {}
            if found := self.known[path.parent].get(unicodedata.normalize("NFC", path.name)):
                return found
        return None

    def expected(self, row: Row) -> Path:
        """Where a missing file was looked for."""
        return self.folder / "audio" / (row.fields.get("path") or row.fields["utterance"])


def _header(files: _Files, row: Row) -> AudioHeader | AudioError:
    """What a row's file says of itself, or why it cannot be used."""
    path = files.find(row)
    if path is None:
        return AudioError(f"no audio file {files.expected(row)} (.flac, ...)", reason="missing")
    try:
        header = read_header(path)
    except AudioError as error:
        return error
    if header.cut_off or header.promised - header.frames > ROUNDING_SECONDS * header.rate:
        return AudioError(f"{path} {header.missing}", reason="truncated")
    return header


def _recording(name: str, header: AudioHeader) -> Recording:
    return Recording(
        id=name,
        sources=[
            AudioSource(type="file", channels=list(range(header.channels)), source=str(header.path))
        ],
        sampling_rate=header.rate,
        num_samples=header.frames,
        duration=header.frames / header.rate,
    )


def _stand_in(
    row: Row, name: str, error: AudioError, files: _Files, rate: int
) -> tuple[Recording, dict[str, object]]:
    """A recording in place of one that cannot be read, and the custom fields that say so."""
    try:
        stated = float(row.fields.get("seconds", ""))
    except ValueError:
        stated = 0.0
    known = 1 / rate <= stated <= LONGEST_SECONDS
    samples = round((stated if known else 1.0) * rate)
    path = files.find(row) or files.expected(row)
    recording = Recording(
        id=name,
        sources=[AudioSource(type="file", channels=[0], source=str(path))],
        sampling_rate=rate,
        num_samples=samples,
        duration=samples / rate,
    )
    custom: dict[str, object] = {UNREADABLE: [error.reason, str(error)]}
    return recording, custom if known else {**custom, UNKNOWN_SECONDS: True}


def _cut(
    row: Row,
    name: str,
    recording: Recording,
    whole_numbers: Sequence[str],
    custom: dict[str, object],
) -> MonoCut:
    numbers = {one: row.whole_number(one) for one in ("age", *whole_numbers)}
    custom = custom | {one: value for one, value in numbers.items() if value is not None}
    if gender := row.fields.get("gender"):
        custom["gender"] = gender
    if recording.num_channels > 1:
        custom[MIXDOWN] = True
    supervision = SupervisionSegment(
        id=name,
        recording_id=name,
        start=0.0,
        duration=recording.duration,
        text=row.fields["text"],
        speaker=row.fields.get("speaker") or None,
        language="English",
        gender=row.fields.get("gender") or None,
    )
    return MonoCut(
        id=name,
        start=0.0,
        duration=recording.duration,
        channel=0,
        recording=recording,
        supervisions=[supervision],
        custom=custom or None,
    )


def _say(source: Path, kept: int, left_out: Sequence[tuple[str, AudioError]]) -> None:
    reasons = Counter(error.reason for _, error in left_out)
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    names = ", ".join(name for name, _ in left_out[:_NAMED])
    more = ", ..." * (len(left_out) > _NAMED)
    first = f"left out {names}{more}; " if left_out else ""
    level = logging.WARNING if left_out else logging.INFO
    logger.log(level, "%s: %s%d utterances, skipped: %s", source, first, kept, counts or "none")
