"""From a lhotse cut to its 16 kHz waveform, with decoded audio kept in memory if wanted.

Plain cuts and plain mixes (tracks that are only laid out in time) are assembled here; a cut with
transforms or signal-to-noise ratios is left to lhotse.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
from lhotse import CutSet, MonoCut
from lhotse.audio.backend import audio_backend
from lhotse.cut import Cut, MixedCut, PaddingCut

from ortho_edge.data.audio import (
    ROUNDING_SECONDS,
    SAMPLE_RATE,
    AudioError,
    check_duration,
    read_samples,
    resample,
)

_INT16_SCALE = 32767.0
MIXDOWN = "mixdown"
"""Custom field of a cut whose channels become one by the rule of `ortho_edge.data.audio`; without
it the cut names its channel."""


@dataclass(frozen=True, kw_only=True)
class _Stretch:
    """Some samples of one channel of a file, at the file's own rate."""

    path: str
    rate: int
    channel: int | None
    first: int
    count: int


class WaveformCache:
    """Decoded stretches of audio as int16, at the recordings' own rates.

    A stretch goes through int16 whether or not it still fits, so that results do not depend on
    how full the cache is. Processes forked from the one that filled it share the memory.
    """

    def __init__(self, max_bytes: int = 2 * 1024**3) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._decoded: dict[_Stretch, np.ndarray] = {}

    def __reduce__(self) -> tuple[object, ...]:
        # A spawned process starts empty: sending gigabytes through a pipe costs more than decoding.
        return WaveformCache, (self.max_bytes,)

    def __len__(self) -> int:
        return len(self._decoded)

    def read(self, stretch: _Stretch) -> np.ndarray:
        """Returns the stretch as float32, decoding it at most once while there is room."""
        decoded = self._decoded.get(stretch)
        if decoded is None:
            samples = np.clip(_decode(stretch), -1.0, 1.0)
            decoded = np.rint(samples * _INT16_SCALE).astype(np.int16)
            if self.num_bytes + decoded.nbytes <= self.max_bytes:
                self._decoded[stretch] = decoded
                self.num_bytes += decoded.nbytes
        return decoded * np.float32(1.0 / _INT16_SCALE)

    def fill(self, cuts: CutSet) -> None:
        """Decodes all plain audio that ``cuts`` need; what cannot be read is left for later."""
        for cut in each_cut(cuts):
            for _, stretch in _stretches(cut) or ():
                try:
                    self.read(stretch)
                except AudioError:
                    continue


@lru_cache(maxsize=1)
def shared_cache() -> WaveformCache:
    """Returns the cache that all data sets of this process share."""
    return WaveformCache()


def each_cut(cuts: CutSet) -> Iterator[Cut]:
    """Goes through a CutSet, whose own annotation hides that it is iterable."""
    return iter(cast("Iterable[Cut]", cuts))


def load_cut(cut: Cut, cache: WaveformCache | None = None) -> np.ndarray:
    """Reads the audio of a cut.

    Args:
        cut: A cut with a recording, at any sampling rate.
        cache: Keeps what it decoded, as int16; None decodes anew, exactly.

    Returns:
        float32 samples of shape ``(N,)``, mono, at `SAMPLE_RATE`.

    Raises:
        AudioError: Missing, unreadable, empty, truncated, too long or non-finite audio.
    """
    check_duration(cut.duration, cut.sampling_rate, f"cut {cut.id}")
    stretches = _stretches(cut)
    if stretches is None:
        return resample(_load_with_lhotse(cut), cut.sampling_rate, SAMPLE_RATE)
    read = _decode if cache is None else cache.read
    if isinstance(cut, MonoCut):
        return resample(read(stretches[0][1]), cut.sampling_rate, SAMPLE_RATE)
    samples = np.zeros(cut.num_samples or 0, dtype=np.float32)
    for start, stretch in stretches:
        room = samples[start : start + stretch.count]
        room += read(stretch)[: len(room)]
    return resample(samples, cut.sampling_rate, SAMPLE_RATE)


def _stretches(cut: Cut) -> list[tuple[int, _Stretch]] | None:
    """Returns (start in the cut, stretch) pairs to add up, or None where lhotse must do it."""
    if isinstance(cut, MonoCut):
        stretch = _stretch(cut)
        return None if stretch is None else [(0, stretch)]
    if not isinstance(cut, MixedCut) or cut.transforms:
        return None
    placed = []
    for track in cut.tracks:
        if isinstance(track.cut, PaddingCut):
            continue
        stretch = _stretch(track.cut) if isinstance(track.cut, MonoCut) else None
        if stretch is None or track.snr is not None or track.mute:
            return None
        placed.append((round(track.offset * stretch.rate), stretch))
    return placed


def _stretch(cut: MonoCut) -> _Stretch | None:
    """Returns where a cut's samples lie, or None if they are not simply a part of a file."""
    recording = cut.recording
    if recording is None or recording.transforms or len(recording.sources) != 1:
        return None
    source = recording.sources[0]
    if source.type != "file":
        return None
    rate = recording.sampling_rate
    mixed_down = bool((cut.custom or {}).get(MIXDOWN))
    return _Stretch(
        path=str(source.source),
        rate=rate,
        channel=None if recording.num_channels == 1 or mixed_down else cut.channel,
        first=round(cut.start * rate),
        count=cut.num_samples or 0,
    )


def _decode(stretch: _Stretch) -> np.ndarray:
    path, count = stretch.path, stretch.count
    samples, rate = read_samples(
        path, first=stretch.first, count=count, channel=stretch.channel, strict=True
    )
    if rate != stretch.rate:
        message = f"{path} has {rate} Hz where its manifest says {stretch.rate} Hz"
        raise AudioError(message, reason="unreadable")
    missing = count - len(samples)
    if missing > ROUNDING_SECONDS * rate:
        message = f"{path} ends {missing} of {count} samples early"
        raise AudioError(message, reason="truncated")
    return np.pad(samples, (0, missing)) if missing > 0 else samples


def _load_with_lhotse(cut: Cut) -> np.ndarray:
    try:
        # By itself lhotse calls the program sph2pipe for sphere files; libsndfile reads these.
        with audio_backend("LibsndfileBackend"):
            samples = cut.load_audio()
    except Exception as error:  # lhotse's backends raise whatever they like
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = f"cannot read the audio of cut {cut.id}: {detail}"
        raise AudioError(message, reason="unreadable") from error
    if samples is None or samples.size == 0:
        raise AudioError(f"cut {cut.id} holds no audio samples", reason="empty")
    if not np.isfinite(samples).all():
        raise AudioError(f"cut {cut.id} holds NaN or infinite samples", reason="non-finite")
    return samples.mean(axis=0, dtype=np.float32)
