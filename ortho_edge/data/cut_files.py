"""Prepared cuts: lines of JSON that are checked before lhotse makes objects of them.

lhotse reads whatever a line names: a recording may be a shell command, a URL or a stored feature.
Here a line is one utterance in a file on disk, with the entries that `prepare` writes and no other.
"""

import gzip
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lhotse import CutSet, MonoCut
from lhotse.lazy import Dillable

from ortho_edge.cli import UserError
from ortho_edge.json_files import array, number, parse_json, shown, table, text, whole

LONGEST_LINE = 2**20
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
MOST_SECONDS = 24 * 3600.0
SLACK = 0.01
"""Seconds by which a rounded duration may be longer than what it is a part of."""

_CUT = {"id", "start", "duration", "channel", "supervisions", "recording", "type"}
_SUPERVISION = {
    "id", "recording_id", "start", "duration", "channel", "text", "language", "speaker", "gender",
}  # fmt: skip
_RECORDING = {"id", "sources", "sampling_rate", "num_samples", "duration", "channel_ids"}
_SOURCE = {"type", "channels", "source"}


def read_cuts(path: Path, *, with_text: bool = True) -> CutSet:
    """The cuts in a gzipped file of JSON lines, read lazily.

    Args:
        path: The file. What is wrong in it is a UserError when it is come to, which names the line.
        with_text: Whether every cut has exactly one supervision with a text.
    """
    return CutSet(_CheckedCuts(path, with_text))


class _CheckedCuts(Dillable):
    """What lhotse takes for a lazy manifest."""

    def __init__(self, path: Path, with_text: bool) -> None:
        self.path, self.with_text = path, with_text

    def __iter__(self) -> Iterator[MonoCut]:
        seen: set[str] = set()
        for where, line in _lines(self.path):
            try:
                content = checked_cut(parse_json(line, "the line"), self.with_text)
            except KeyError as error:
                raise UserError(f"{where} lacks {error}") from error
            except ValueError as error:
                raise UserError(f"{where}: {error}") from error
            name = content["id"]
            if name in seen:
                raise UserError(f"{where}: the cut {shown(name)} stands there twice")
            seen.add(name)
            del content["type"]
            yield MonoCut.from_dict(content)

    def __len__(self) -> int:
        return sum(1 for _ in _lines(self.path))


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Lines and what they are called in a message."""
    try:
        with gzip.open(path) as file:
            count = 0
            while line := file.readline(LONGEST_LINE + 1):
                count += 1
                if len(line) > LONGEST_LINE:
                    raise UserError(f"{path}, line {count} is longer than {LONGEST_LINE:,} bytes")
                yield f"{path}, line {count}", line
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def checked_cut(content: object, with_text: bool) -> dict[str, Any]:
    """Checks what a line holds.

    Args:
        content: Its JSON.
        with_text: Whether there must be one supervision with a text.

    Raises:
        KeyError: An entry is missing.
        ValueError: One is unknown, or out of type or range; the message names it.
    """
    cut = _entries(content, _CUT, "cut")
    if cut["type"] != "MonoCut":
        raise ValueError(f"type must be MonoCut, not {shown(cut['type'])}")
    text(cut["id"], "id")
    recording = _recording(cut["recording"])
    whole(cut["channel"], "channel", 0, 63)
    if cut["channel"] not in recording["sources"][0]["channels"]:
        raise ValueError(f"channel {cut['channel']} is not in the recording")
    length = recording["duration"]
    start = number(cut["start"], "start", 0.0, MOST_SECONDS)
    duration = _duration(cut["duration"], "duration")
    if start + duration > length + SLACK:
        raise ValueError(f"it ends at {start + duration:g} s of a recording of {length:g} s")
    supervisions = array(cut["supervisions"], "supervisions")
    for one in supervisions:
        _supervision(one, duration)
    if with_text and len(supervisions) != 1:
        raise ValueError(f"supervisions must hold one, not {len(supervisions)}")
    return cut


def _entries(content: object, known: set[str], where: str) -> dict[str, Any]:
    entries = table(content, where)
    if unknown := sorted(entries.keys() - known):
        raise ValueError(f"{where} has an unknown entry {shown(unknown[0])}")
    return entries


def _duration(value: object, where: str) -> float:
    seconds = number(value, where, 0.0, MOST_SECONDS)
    if seconds == 0:
        raise ValueError(f"{where} must be above 0")
    return seconds


def _recording(content: object) -> Mapping[str, Any]:
    recording = _entries(content, _RECORDING, "recording")
    text(recording["id"], "recording.id")
    rate = whole(recording["sampling_rate"], "recording.sampling_rate", LOWEST_RATE, HIGHEST_RATE)
    duration = _duration(recording["duration"], "recording.duration")
    samples = whole(recording["num_samples"], "recording.num_samples", 1)
    if abs(samples / rate - duration) > SLACK:
        raise ValueError(
            f"recording has {samples} samples at {rate} Hz, which are not {duration:g} s"
        )
    sources = array(recording["sources"], "recording.sources")
    if len(sources) != 1:
        raise ValueError(f"recording.sources must hold one, not {len(sources)}")
    source = _entries(sources[0], _SOURCE, "source")
    if source["type"] != "file":
        raise ValueError(f"source.type must be file, not {shown(source['type'])}")
    text(source["source"], "source.source")
    channels = array(source["channels"], "source.channels")
    if channels != list(range(len(channels))) or not 0 < len(channels) <= 64:
        raise ValueError(f"source.channels must be 0, 1, ..., not {shown(channels)}")
    if recording.get("channel_ids", channels) != channels:
        raise ValueError(f"recording.channel_ids must be {channels}")
    return recording


def _supervision(content: object, duration: float) -> None:
    one = _entries(content, _SUPERVISION, "supervision")
    for name in ("id", "recording_id", "text"):
        text(one[name], f"supervision.{name}", LONGEST_LINE)
    for name in ("language", "speaker", "gender"):
        if one.get(name) is not None:
            text(one[name], f"supervision.{name}")
    whole(one["channel"], "supervision.channel", 0, 63)
    start = number(one["start"], "supervision.start", -SLACK, MOST_SECONDS)
    if start + _duration(one["duration"], "supervision.duration") > duration + SLACK:
        raise ValueError("supervision is longer than its cut")
