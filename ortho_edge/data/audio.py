"""Audio files in, one mono 16 kHz waveform out: the one way that every command hears a file.

Everything that soundfile reads (wav, flac, ogg with opus or vorbis, mp3, aiff, sphere) is accepted
at any sampling rate and with any number of channels. Channels are averaged unless that cancels or
loses what they hold; then the louder one is taken. Files are decoded block by block.
"""

import logging
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import soundfile
import soxr

from ortho_edge.data.audio_files import (
    HIGHEST_RATE,
    LONGEST_SECONDS,
    LOWEST_RATE,
    AudioError,
    AudioHeader,
    read_header,
    unreadable,
)

__all__ = [
    "ROUNDING_SECONDS",
    "SAMPLE_RATE",
    "AudioError",
    "audio_blocks",
    "check_duration",
    "load_audio",
    "read_samples",
    "resample",
    "say_resampled",
]

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16000
"""The only sampling rate (Hz) that the models of this package hear."""
ROUNDING_SECONDS = 0.025
"""A header may promise this much more than its file holds; beyond it the file is cut off."""
INEXACT_SHARE = 0.02
"""Of the length, by which an estimated one (mp3) may be off."""
AVERAGING_KEEPS = 0.56
"""Least level of the channels' average, against the loudest channel's.

Equal channels keep 1, unrelated ones 0.71; one silent channel of two leaves 0.5, opposite phase 0.
"""
_BLOCK_FRAMES = 4096
"""Decoded at once: where a file is damaged, so many samples at most are lost before the damage."""


class _Said:
    """Of the process: what was said already, for each file would be too often."""

    topics: ClassVar[set[object]] = set()

    @classmethod
    def first(cls, topic: object) -> bool:
        # Loader processes have nothing to add to what the main one says.
        if topic in cls.topics or multiprocessing.parent_process() is not None:
            return False
        cls.topics.add(topic)
        return True


def say_resampled(rate: float, what: object) -> None:
    """Logs, once for each rate, that audio has another rate than models hear."""
    if rate != SAMPLE_RATE and _Said.first(("rate", rate)):
        logger.info("audio of %g Hz is resampled to %d Hz, such as %s", rate, SAMPLE_RATE, what)


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


def check_duration(seconds: float, rate: float, what: str) -> None:
    """Checks length and sampling rate of audio before anything is allocated for it.

    Raises:
        AudioError: One is out of bounds; `what` names the audio.
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        message = f"{what} has {rate:g} Hz; a sampling rate is {LOWEST_RATE} to {HIGHEST_RATE} Hz"
        raise AudioError(message, reason="unreadable")
    if not 0 <= seconds <= LONGEST_SECONDS:
        message = f"{what} is {seconds:g} s long; at most {LONGEST_SECONDS:g} s are read"
        raise AudioError(message, reason="too long")


def read_samples(
    path: str | Path,
    *,
    first: int = 0,
    count: int = -1,
    channel: int | None = None,
    strict: bool = False,
) -> tuple[np.ndarray, int]:
    """Reads an audio file, or a stretch of it, at its own sampling rate.

    Args:
        path: The file.
        first: First sample of the stretch.
        count: Samples to read; -1 reads to the end.
        channel: Channel to take; None makes one of all, as the module says.
        strict: Refuse a file that ends early instead of warning of it.

    Returns:
        float32 samples of shape ``(N,)`` with full scale at 1.0, and the sampling rate in Hz.

    Raises:
        AudioError: The file is missing, is not audio, has no samples there, holds NaN or infinity,
            or, with `strict`, ends early.
    """
    header = read_header(path)
    blocks = list(_mono_blocks(header, first, count, channel, strict))
    return np.concatenate(blocks), header.rate


LOUDEST = 1e12
"""Of samples whose energies and filters stay finite in float32."""


def audio_blocks(path: str | Path, *, strict: bool = False) -> Iterator[np.ndarray]:
    """The same samples as `load_audio`, block by block, so that memory is bounded.

    Args:
        path: The file.
        strict: Refuse a file that ends early instead of warning of it.

    Yields:
        float32 samples at `SAMPLE_RATE`, of blocks that are not empty.

    Raises:
        AudioError: As `load_audio`, when the place is reached.
    """
    header = read_header(path)
    say_resampled(header.rate, header.path)
    blocks = _mono_blocks(header, 0, -1, None, strict)
    if header.rate == SAMPLE_RATE:
        yield from blocks
        return
    stream = soxr.ResampleStream(header.rate, SAMPLE_RATE, 1, dtype="float32")
    for block in blocks:
        resampled = stream.resample_chunk(block)
        if len(resampled):
            yield resampled
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def load_audio(path: str | Path, *, strict: bool = False) -> np.ndarray:
    """Reads an audio file as one mono waveform at `SAMPLE_RATE`.

    Args:
        path: wav, flac, ogg (opus, vorbis) or any other format that soundfile reads, at any rate.
        strict: Refuse a file that ends early instead of warning of it.

    Returns:
        float32 samples of shape ``(N,)``, full scale at 1.0 and not clipped.

    Raises:
        AudioError: The file is missing, is not audio, has no samples, holds NaN or infinity, has a
            rate or length out of bounds or, with `strict`, ends early.
    """
    samples = np.concatenate(list(audio_blocks(path, strict=strict)))
    if len(samples) == 0:
        raise AudioError(f"{path} is shorter than a sample at {SAMPLE_RATE} Hz", reason="empty")
    return samples


def _mono_blocks(
    header: AudioHeader, first: int, count: int, channel: int | None, strict: bool
) -> Iterator[np.ndarray]:
    """Samples (N,) of the stretch; checks that they are there and finite."""
    stop = header.frames if count < 0 else min(header.frames, first + count)
    if not 0 <= first < stop:
        raise AudioError(f"{header.path} holds no audio samples there", reason="empty")
    if channel is not None and channel >= header.channels:
        message = f"{header.path} has no channel {channel} but {header.channels}"
        raise AudioError(message, reason="unreadable")
    if stop == header.frames and header.missing:
        _ends_early(f"{header.path} {header.missing}", strict)
    weights = _weights(header, first, stop, channel)
    done = 0
    for block in _blocks(header, first, stop):
        done += len(block)
        if not np.isfinite(block).all():
            message = f"{header.path} holds NaN or infinite samples"
            raise AudioError(message, reason="non-finite")
        if np.abs(block).max() > LOUDEST:
            message = f"{header.path} holds samples beyond {LOUDEST:g}, where full scale is 1"
            raise AudioError(message, reason="non-finite")
        yield block[:, 0] if header.channels == 1 else block @ weights
    if done == 0:
        raise AudioError(f"{header.path} holds no audio samples", reason="empty")
    lacking = stop - first - done
    allowed = ROUNDING_SECONDS * header.rate + header.inexact * INEXACT_SHARE * header.frames
    if lacking > allowed:
        _ends_early(
            f"{header.path} ends early or is damaged: {(first + done) / header.rate:.2f} s of "
            f"{header.seconds:.2f} s can be read",
            strict,
        )


def _blocks(header: AudioHeader, first: int, stop: int) -> Iterator[np.ndarray]:
    """Frames (n, channels) as far as they can be decoded."""
    at = first
    try:
        with soundfile.SoundFile(str(header.path)) as file:
            file.seek(first)
            while at < stop:
                frames = min(_BLOCK_FRAMES, stop - at)
                block = file.read(frames, dtype="float32", always_2d=True)
                if len(block) == 0:
                    return
                at += len(block)
                yield block
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        if at == first:
            raise unreadable(header.path, error) from error


def _ends_early(message: str, strict: bool) -> None:
    if strict:
        raise AudioError(message, reason="truncated")
    if _Said.first(message):
        logger.warning("%s", message)


def _weights(header: AudioHeader, first: int, stop: int, channel: int | None) -> np.ndarray:
    """How much of each channel is heard, (channels,) float32."""
    if channel is not None or header.channels == 1:
        return np.eye(header.channels, dtype=np.float32)[channel or 0]
    average = np.full(header.channels, 1 / header.channels, dtype=np.float32)
    energies, of_average = np.zeros(header.channels), 0.0
    for block in _blocks(header, first, stop):
        wide = block.astype(np.float64)
        energies += np.square(wide).sum(0)
        of_average += np.square(wide.mean(1)).sum()
    loudest = int(energies.argmax())
    if not of_average < AVERAGING_KEEPS**2 * energies[loudest]:
        return average
    if _Said.first(("channel", header.channels)):
        logger.info(
            "%s: averaging its %d channels would lose what they hold; the loudest is taken, "
            "channel %d, and so in other files of the kind",
            header.path,
            header.channels,
            loudest + 1,
        )
    return np.eye(header.channels, dtype=np.float32)[loudest]
