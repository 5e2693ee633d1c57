"""Audio files in, one mono 16 kHz waveform out.

Everything that soundfile reads (wav, flac, ogg with opus or vorbis, mp3, sphere) is accepted at any
sampling rate and with any number of channels.
"""

from pathlib import Path

import numpy as np
import soundfile
import soxr

from ortho_edge.cli import UserError

SAMPLE_RATE = 16000
"""The only sampling rate (Hz) that the models of this package hear."""


class AudioError(UserError):
    """Audio that cannot be used.

    Attributes:
        reason: One word or two for counting: ``missing``, ``unreadable``, ``empty``,
            ``truncated`` or ``non-finite``.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        # The default would call the class without the keyword when a loader process sends it.
        return _rebuild_audio_error, (str(self), self.reason)


def _rebuild_audio_error(message: str, reason: str) -> AudioError:
    return AudioError(message, reason=reason)


def resample(samples: np.ndarray, from_rate: float, to_rate: float) -> np.ndarray:
    """Changes the sampling rate with soxr's high-quality filter.

    Args:
        samples: Waveform, shape ``(N,)``, float32.
        from_rate: Present rate in Hz; need not be whole.
        to_rate: Wanted rate in Hz.

    Returns:
        float32 of about ``N * to_rate / from_rate`` samples; the input where the rates agree.
    """
    if from_rate == to_rate or len(samples) == 0:
        return samples
    return soxr.resample(samples, from_rate, to_rate)


def read_samples(
    path: str | Path, *, first: int = 0, count: int = -1, channel: int | None = None
) -> tuple[np.ndarray, int]:
    """Reads an audio file, or a stretch of it, at its own sampling rate.

    Args:
        path: The file.
        first: First sample of the stretch.
        count: Samples to read; -1 reads to the end.
        channel: Channel to take; None averages all of them.

    Returns:
        float32 samples of shape ``(N,)`` with full scale at 1.0, and the sampling rate in Hz.

    Raises:
        AudioError: The file is missing, is not audio, has no samples or holds NaN or infinity.
    """
    path = Path(path)
    if not path.is_file():
        raise AudioError(f"no such audio file: {path}", reason="missing")
    if path.stat().st_size == 0:
        raise AudioError(f"{path} is an empty file", reason="empty")
    try:
        samples, rate = soundfile.read(
            str(path), start=first, frames=count, dtype="float32", always_2d=True
        )
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        detail = str(error).splitlines()[0].removeprefix(f"Error opening {str(path)!r}: ")
        message = f"cannot read audio from {path}: {detail}"
        raise AudioError(message, reason="unreadable") from error
    mono = samples.mean(axis=1) if channel is None else samples[:, channel]
    if len(mono) == 0:
        raise AudioError(f"{path} holds no audio samples", reason="empty")
    if not np.isfinite(mono).all():
        raise AudioError(f"{path} holds NaN or infinite samples", reason="non-finite")
    return np.ascontiguousarray(mono), rate


def load_audio(path: str | Path) -> np.ndarray:
    """Reads an audio file as one mono waveform at `SAMPLE_RATE`.

    Args:
        path: wav, flac, ogg (opus, vorbis) or any other format that soundfile reads, at any rate.

    Returns:
        float32 samples of shape ``(N,)``, full scale at 1.0 and not clipped.

    Raises:
        AudioError: The file is missing, is not audio, has no samples or holds NaN or infinity.
    """
    samples, rate = read_samples(path)
    return resample(samples, rate, SAMPLE_RATE)
