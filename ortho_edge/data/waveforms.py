"""From a lhotse cut to its 16 kHz waveform, with decoded audio kept in memory if wanted.

Plain cuts and plain mixes (tracks that are only laid out in time) are assembled here; a cut with
transforms or signal-to-noise ratios is left to lhotse.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
from lhotse import CutSet, MonoCut
from lhotse.cut import Cut, MixedCut, PaddingCut

from ortho_edge.data.audio import SAMPLE_RATE, AudioError, read_samples, resample
from ortho_edge.data.features import FRAME_LENGTH

_INT16_SCALE = 32767.0
_Key = tuple[str, int, int, int]


class WaveformCache:
    """Decoded stretches of audio as int16, at the recordings' own rates.

    A stretch goes through int16 whether or not it still fits, so that results do not depend on
    how full the cache is. Processes forked from the one that filled it share the memory.
    """

    def __init__(self, max_bytes: int = 2 * 1024**3) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._stretches: dict[_Key, np.ndarray] = {}

    def __getstate__(self) -> dict[str, int]:
        # A spawned process starts empty: sending gigabytes through a pipe costs more than decoding.
        return {"max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(state["max_bytes"])

    def __len__(self) -> int:
        return len(self._stretches)

    def read(self, cut: MonoCut) -> np.ndarray:
        """Returns the cut's samples as float32 at its own rate, decoding them at most once."""
        key = (str(cut.recording.sources[0].source), cut.channel, *_stretch(cut))
        stretch = self._stretches.get(key)
        if stretch is None:
            stretch = np.rint(np.clip(_decode(cut), -1.0, 1.0) * _INT16_SCALE).astype(np.int16)
            if self.num_bytes + stretch.nbytes <= self.max_bytes:
                self._stretches[key] = stretch
                self.num_bytes += stretch.nbytes
        return stretch * np.float32(1.0 / _INT16_SCALE)

    def fill(self, cuts: Iterable[Cut]) -> None:
        """Decodes all plain audio that ``cuts`` need; what cannot be read is left for later."""
        for cut in cuts:
            for _, part in _parts(cut) or ():
                try:
                    self.read(part)
                except AudioError:
                    continue


@lru_cache(maxsize=1)
def shared_cache() -> WaveformCache:
    """Returns the cache that all data sets of this process share."""
    return WaveformCache()


def load_cut(cut: Cut, cache: WaveformCache | None = None) -> np.ndarray:
    """Reads the audio of a cut.

    Args:
        cut: A cut with a recording, at any sampling rate.
        cache: Keeps what it decoded, as int16; None decodes anew, exactly.

    Returns:
        float32 samples of shape ``(N,)``, mono, at `SAMPLE_RATE`.

    Raises:
        AudioError: Missing, unreadable, empty, truncated or non-finite audio.
    """
    parts = _parts(cut)
    if parts is None:
        return resample(_load_with_lhotse(cut), cut.sampling_rate, SAMPLE_RATE)
    read = _decode if cache is None else cache.read
    if isinstance(cut, MonoCut):
        return resample(read(cut), cut.sampling_rate, SAMPLE_RATE)
    samples = np.zeros(cut.num_samples, dtype=np.float32)
    for first, part in parts:
        room = samples[first : first + part.num_samples]
        room += read(part)[: len(room)]
    return resample(samples, cut.sampling_rate, SAMPLE_RATE)


def long_enough(samples: np.ndarray) -> np.ndarray:
    """Returns ``samples`` with silence after it if it is shorter than one analysis window."""
    return np.pad(samples, (0, max(0, FRAME_LENGTH - len(samples))))


def _parts(cut: Cut) -> list[tuple[int, MonoCut]] | None:
    """Returns (first sample, plain cut) pairs to add up, or None where lhotse must do it."""
    if isinstance(cut, MonoCut):
        return [(0, cut)] if _is_plain(cut) else None
    if not isinstance(cut, MixedCut) or cut.transforms:
        return None
    if any(track.snr is not None or track.mute for track in cut.tracks):
        return None
    audible = [track for track in cut.tracks if not isinstance(track.cut, PaddingCut)]
    if not all(isinstance(track.cut, MonoCut) and _is_plain(track.cut) for track in audible):
        return None
    return list(_laid_out(cut))


def _laid_out(cut: MixedCut) -> Iterator[tuple[int, MonoCut]]:
    for track in cut.tracks:
        if isinstance(track.cut, MonoCut):
            yield round(track.offset * cut.sampling_rate), track.cut


def _is_plain(cut: MonoCut) -> bool:
    recording = cut.recording
    return (
        recording is not None
        and not recording.transforms
        and len(recording.sources) == 1
        and recording.sources[0].type == "file"
    )


def _stretch(cut: MonoCut) -> tuple[int, int]:
    return round(cut.start * cut.sampling_rate), cut.num_samples


def _decode(cut: MonoCut) -> np.ndarray:
    path = cut.recording.sources[0].source
    first, count = _stretch(cut)
    channel = cut.channel if cut.recording.num_channels > 1 else None
    samples, rate = read_samples(path, first=first, count=count, channel=channel)
    if rate != cut.sampling_rate:
        message = f"{path} has {rate} Hz where its manifest says {cut.sampling_rate} Hz"
        raise AudioError(message, reason="unreadable")
    missing = count - len(samples)
    # A few samples come and go with rounding of durations; more than a window means a cut-off file.
    if missing > rate * FRAME_LENGTH // SAMPLE_RATE:
        message = f"{path} ends {missing} samples before the {first + count} that were expected"
        raise AudioError(message, reason="truncated")
    return np.pad(samples, (0, missing)) if missing > 0 else samples


def _load_with_lhotse(cut: Cut) -> np.ndarray:
    try:
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


def is_eager(cuts: CutSet) -> bool:
    """Tells whether ``cuts`` is held in memory, so that going through it twice is cheap."""
    return not cuts.is_lazy
