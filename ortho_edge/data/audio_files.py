"""Which audio files there are, and what their headers promise.

Headers are read by libsndfile, which believes the length of a file more than its header; a file
that ends early shows by what the header says besides. Formats that libsndfile cannot read are
recognised by their first bytes, so that the message can say how to convert them.
"""

import re
import shlex
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import soundfile

from ortho_edge.cli import UserError

LOWEST_RATE, HIGHEST_RATE = 4_000, 768_000
"""Sampling rates (Hz) between which speech is recorded; others are a mistake in a header."""
LONGEST_SECONDS = 4 * 3600.0
MOST_CHANNELS = 64

READABLE = (
    ".flac", ".wav", ".opus", ".ogg", ".mp3", ".aiff", ".aif", ".aifc", ".sph", ".caf", ".w64",
    ".rf64", ".au", ".snd", ".wave", ".oga",
)  # fmt: skip
"""Extensions of audio, the first first where one stem has several."""
FOREIGN = (".m4a", ".mp4", ".aac", ".wma", ".webm", ".mka", ".amr", ".3gp", ".ape", ".wv", ".ac3")
"""Extensions of audio that libsndfile cannot read."""

_MAGIC = (
    (4, b"ftyp", "MPEG-4 audio (m4a, mp4)"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (0, bytes.fromhex("3026b2758e66cf11"), "Windows Media Audio (wma)"),
    (0, bytes.fromhex("1a45dfa3"), "Matroska or WebM"),
    (0, b"#!AMR", "AMR"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"wvpk", "WavPack"),
    (0, b"\x0b\x77", "AC-3"),
)
_SHORT_CHUNK = re.compile(
    r"^\s*(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE
)
_SHORT_DS64 = re.compile(r"frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
_SPHERE_COUNT = re.compile(rb"^sample_count -i (\d+)\s", re.MULTILINE)
_UNKNOWN_LENGTH = 0x7FFFFF00
"""What programs that write into a pipe promise, or more: they cannot know the length."""
_OGG_PAGE, _LAST_PAGE = b"OggS", 4
_LONGEST_PAGE = 65307


class AudioError(UserError):
    """Audio that cannot be used.

    Attributes:
        reason: One word or two for counting: ``missing``, ``unreadable``, ``empty``,
            ``truncated``, ``too long`` or ``non-finite``.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        # The default would call the class without the keyword when a loader process sends it.
        return _rebuild_audio_error, (str(self), self.reason)


def _rebuild_audio_error(message: str, reason: str) -> AudioError:
    return AudioError(message, reason=reason)


@dataclass(frozen=True, kw_only=True)
class AudioHeader:
    """What an audio file says of itself.

    Attributes:
        path: The file.
        rate: Sampling rate in Hz.
        channels: Number of channels.
        frames: Samples of each channel that libsndfile expects to read.
        promised: Samples of each channel according to the header, if these are more.
        cut_off: Whether the file lacks its end, by how much is unknown.
        inexact: Whether the format's length is an estimate.
    """

    path: Path
    rate: int
    channels: int
    frames: int
    promised: int
    cut_off: bool
    inexact: bool

    @property
    def seconds(self) -> float:
        """Duration that libsndfile expects to read."""
        return self.frames / self.rate

    @cached_property
    def missing(self) -> str:
        """That the file ends early, as a clause; empty where it does not."""
        if self.promised > self.frames:
            return (
                f"ends early: {self.seconds:.2f} s are there of the "
                f"{self.promised / self.rate:.2f} s that its header promises"
            )
        return f"ends early: its last page is missing after {self.seconds:.2f} s" * self.cut_off


def read_header(path: str | Path) -> AudioHeader:
    """Reads the header of an audio file and checks its bounds; no sample is decoded.

    Raises:
        AudioError: The file is missing, is not audio, is empty, or its rate, length or number of
            channels is out of bounds.
    """
    path = Path(path)
    if not path.is_file():
        raise AudioError(f"no such audio file: {path}", reason="missing")
    if path.stat().st_size == 0:
        raise AudioError(f"{path} is an empty file", reason="empty")
    try:
        info = soundfile.info(str(path), verbose=True)
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        raise unreadable(path, error) from error
    if not LOWEST_RATE <= info.samplerate <= HIGHEST_RATE:
        message = (
            f"{path} says that it has {info.samplerate} samples a second; "
            f"a sampling rate is {LOWEST_RATE} to {HIGHEST_RATE} Hz"
        )
        raise AudioError(message, reason="unreadable")
    if not 1 <= info.channels <= MOST_CHANNELS:
        message = f"{path} has {info.channels} channels; at most {MOST_CHANNELS} are read"
        raise AudioError(message, reason="unreadable")
    if info.frames <= 0:
        raise AudioError(f"{path} holds no audio samples", reason="empty")
    if info.frames > LONGEST_SECONDS * info.samplerate:
        message = (
            f"{path} says that it is {info.frames / info.samplerate / 3600:.1f} h long; "
            f"at most {LONGEST_SECONDS / 3600:g} h are read: split it"
        )
        raise AudioError(message, reason="too long")
    return AudioHeader(
        path=path,
        rate=info.samplerate,
        channels=info.channels,
        frames=info.frames,
        promised=_promised(path, info.extra_info, info.frames),
        cut_off=info.format == "OGG" and not _has_last_page(path),
        inexact=info.format == "MP3",
    )


def unreadable(path: Path, error: Exception) -> AudioError:
    """The error that says why libsndfile cannot read a file, and how to convert a foreign one."""
    kind = _foreign(path)
    if kind is not None:
        source, target = shlex.quote(str(path)), shlex.quote(str(path.with_suffix(".flac")))
        message = (
            f"{path} is {kind}, which libsndfile cannot read; convert it: "
            f"ffmpeg -i {source} -ac 1 -ar 16000 {target}"
        )
    else:
        lines = str(error).splitlines() or [type(error).__name__]
        detail = lines[0].removeprefix(f"Error opening {str(path)!r}: ") or "damaged"
        message = f"cannot read audio from {path}: {detail}"
    return AudioError(message, reason="unreadable")


def find_audio(folder: Path) -> dict[str, Path]:
    """The audio files of a folder by name (NFC), and by stem where that is no file's name.

    Of several files with one stem the extension that stands first in `READABLE` is taken.
    """
    ranks = {suffix: rank for rank, suffix in enumerate((*READABLE, *FOREIGN))}
    files = [one for one in sorted(folder.iterdir()) if one.suffix.lower() in ranks]
    files.sort(key=lambda one: ranks[one.suffix.lower()])
    # Systems compose accents differently; tables and folders need not come from the same one.
    found = {unicodedata.normalize("NFC", one.name): one for one in files}
    for one in files:
        found.setdefault(unicodedata.normalize("NFC", one.stem), one)
    return found


def _promised(path: Path, extra_info: str, frames: int) -> int:
    """Samples that a header promises by libsndfile's account of what is wrong with it."""
    if match := _SHORT_CHUNK.search(extra_info):
        says, holds = map(int, match.groups())
        if holds < says < _UNKNOWN_LENGTH:
            return round(frames * says / max(1, holds))
    elif match := _SHORT_DS64.search(extra_info):
        return max(frames, int(match[2]))
    with path.open("rb") as file:
        start = file.read(1024)
    if start.startswith(b"NIST_1A") and (match := _SPHERE_COUNT.search(start)):
        return max(frames, int(match[1]))
    return frames


def _has_last_page(path: Path) -> bool:
    """Whether an Ogg file ends with the page that says so, and that page is whole."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LONGEST_PAGE))
        tail = file.read()
    at = tail.rfind(_OGG_PAGE)
    # Version, flags, three numbers of 8, 4 and 4 bytes, a checksum; then the segments' lengths.
    if at < 0 or len(tail) < at + 27 + tail[at + 26 : at + 27][0]:
        return False
    segments = tail[at + 27 : at + 27 + tail[at + 26]]
    return bool(tail[at + 5] & _LAST_PAGE) and len(tail) >= at + 27 + len(segments) + sum(segments)


def _foreign(path: Path) -> str | None:
    """What kind of audio a file holds that libsndfile cannot read."""
    with path.open("rb") as file:
        start = file.read(16)
    for offset, magic, kind in _MAGIC:
        if start[offset : offset + len(magic)] == magic:
            return kind
    suffix = path.suffix.lower()
    return f"{suffix.removeprefix('.')} audio by its name" if suffix in FOREIGN else None
