"""Making few voices and rooms sound like many: random changes of waveforms and features.

Every function is pure: the same input and the same state of the generator give the same output.
Shapes: N samples at 16 kHz, T frames of 10 ms, 80 mel bins.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from scipy.fft import irfft, next_fast_len
from scipy.signal import oaconvolve

from ortho_edge.data.audio import SAMPLE_RATE, resample

Range = tuple[float, float]

_NATS_PER_DB = np.log(10.0) / 10.0
_LOW_HZ, _HIGH_HZ = 20.0, SAMPLE_RATE / 2 - 400.0


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How often and how strongly training audio is changed. Ranges are (lowest, highest)."""

    silence_probability: float = 0.0
    """Of silence in front, and again of silence behind: few recordings begin with their speech."""
    silence_seconds: Range = (0.0, 1.5)
    """How long that is."""
    speed_probability: float = 0.9
    """Of playing faster or slower, which moves tempo, pitch and formants together."""
    speed: Range = (0.8, 1.25)
    """Playback speed, drawn on a logarithmic scale."""
    reverberation_probability: float = 0.25
    """Of a synthetic room."""
    reverberation_seconds: Range = (0.08, 0.5)
    """Time in which the room's echo decays by 60 dB."""
    reverberation_direct_db: Range = (0.0, 15.0)
    """Level of the direct sound over the echo."""
    band_limit_probability: float = 0.4
    """Of removing the upper band, as a telephone does."""
    band_limit_rate: Range = (7000.0, 9000.0)
    """Sampling rate (Hz) that the audio passes through; half of it is the highest frequency."""
    noise_probability: float = 0.8
    """Of stationary noise, before or after band limiting."""
    noise_snr_db: Range = (8.0, 45.0)
    """Level of the utterance over the noise."""
    noise_slope: Range = (0.0, 2.0)
    """Exponent of the noise's power spectrum 1 / f: 0 white, 1 pink, 2 brown."""
    gain_db: Range = (-20.0, 6.0)
    """Change of level of the whole utterance, always applied."""
    tempo_probability: float = 0.5
    """Of stretching features in time, which leaves pitch and formants alone."""
    tempo: Range = (0.85, 1.2)
    """Tempo, drawn on a logarithmic scale."""
    vocal_tract_probability: float = 0.7
    """Of moving formants but not tempo: vocal tract length perturbation."""
    vocal_tract: Range = (0.85, 1.18)
    """Factor on frequencies, drawn on a logarithmic scale; above 1 a shorter tract."""
    vocal_tract_cutoff_hz: float = 4800.0
    """Frequencies below it are scaled by the factor; those above it fill the rest of the band."""
    channel_probability: float = 0.7
    """Of a smooth random equalisation."""
    channel_db: float = 4.0
    """Standard deviation of the equalisation at its control points."""
    channel_points: int = 6
    """Control points of the equalisation, evenly spaced on the mel axis."""
    mask_probability: float = 0.9
    """Of SpecAugment."""
    time_masks_at_least: int = 2
    """Time masks in the shortest utterance."""
    time_mask_every: int = 25
    """One time mask for so many frames."""
    time_mask_frames: int = 20
    """Longest time mask."""
    time_mask_share: float = 0.4
    """Time masks stop when they cover this share of the frames."""
    frequency_masks: tuple[int, int] = (2, 5)
    """Fewest and most frequency masks."""
    frequency_mask_bins: int = 8
    """Widest frequency mask."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_probability") and not 0.0 <= value <= 1.0:
                raise ValueError(f"`{field.name}` must be from 0 to 1, but is {value}")
            if isinstance(value, tuple) and not value[0] <= value[1]:
                raise ValueError(f"`{field.name}` must be (lowest, highest), but is {value}")
        for name in ("speed", "tempo", "vocal_tract", "band_limit_rate", "reverberation_seconds"):
            if getattr(self, name)[0] <= 0.0:
                raise ValueError(f"`{name}` must be positive, but is {getattr(self, name)}")
        for name in ("time_mask_every", "channel_points"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, but is {getattr(self, name)}")

    @classmethod
    def none(cls) -> "Augmentation":
        """Returns the setting that changes nothing."""
        off = {f.name: 0.0 for f in fields(cls) if f.name.endswith("_probability")}
        return cls(**off, gain_db=(0.0, 0.0))  # pyright: ignore[reportArgumentType]


def draw_silences(rng: np.random.Generator, augmentation: Augmentation) -> tuple[int, int]:
    """Samples of silence to put in front of an utterance and behind it, before all else."""
    a = augmentation
    if a.silence_probability == 0:
        return 0, 0
    front, behind = (
        int(rng.uniform(*a.silence_seconds) * SAMPLE_RATE)
        if rng.random() < a.silence_probability
        else 0
        for _ in range(2)
    )
    return front, behind


def augment_waveform(
    samples: np.ndarray, rng: np.random.Generator, augmentation: Augmentation
) -> np.ndarray:
    """Changes speed, room, band, noise and level of one utterance.

    Args:
        samples: float32, shape ``(N,)``, 16 kHz.
        rng: Source of all chance.
        augmentation: Strengths and probabilities.

    Returns:
        float32, shape ``(N',)`` with ``N'`` about ``N / speed``. Not clipped.
    """
    a = augmentation
    if rng.random() < a.speed_probability:
        samples = resample(samples, SAMPLE_RATE * _log_uniform(rng, a.speed), SAMPLE_RATE)
    if rng.random() < a.reverberation_probability:
        samples = _reverberate(samples, rng, a)
    noisy = rng.random() < a.noise_probability
    # A microphone's noise passes the channel with the voice; a receiver's own noise does not.
    noise_first = rng.random() < 0.5
    if noisy and noise_first:
        samples = _add_noise(samples, rng, a)
    if rng.random() < a.band_limit_probability:
        samples = _limit_band(samples, rng.uniform(*a.band_limit_rate))
    if noisy and not noise_first:
        samples = _add_noise(samples, rng, a)
    gain = np.float32(10.0 ** (rng.uniform(*a.gain_db) / 20.0))
    return samples * gain


def augment_features(
    features: torch.Tensor, rng: np.random.Generator, augmentation: Augmentation
) -> torch.Tensor:
    """Changes tempo, vocal tract and channel of log-mel features, then masks parts of them.

    Args:
        features: float32 natural-log mel energies, shape ``(T, 80)``.
        rng: Source of all chance.
        augmentation: Strengths and probabilities.

    Returns:
        float32, shape ``(T', 80)`` with ``T'`` about ``T / tempo``; the input is left alone.
    """
    a = augmentation
    frames = features.numpy()
    if rng.random() < a.tempo_probability:
        frames = _stretch_time(frames, _log_uniform(rng, a.tempo))
    if rng.random() < a.vocal_tract_probability:
        frames = _warp_frequencies(frames, _log_uniform(rng, a.vocal_tract), a)
    if rng.random() < a.channel_probability:
        frames = frames + _channel(frames.shape[1], rng, a)
    if rng.random() < a.mask_probability:
        frames = _mask(frames, rng, a)
    return torch.from_numpy(np.ascontiguousarray(frames, dtype=np.float32))


def _log_uniform(rng: np.random.Generator, bounds: Range) -> float:
    return float(np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]))))


def _limit_band(samples: np.ndarray, rate: float) -> np.ndarray:
    limited = resample(resample(samples, SAMPLE_RATE, rate), rate, SAMPLE_RATE)
    # Two roundings of the length can lose or add a sample.
    limited = limited[: len(samples)]
    return np.pad(limited, (0, len(samples) - len(limited)))


def _add_noise(samples: np.ndarray, rng: np.random.Generator, a: Augmentation) -> np.ndarray:
    slope, snr_db = rng.uniform(*a.noise_slope), rng.uniform(*a.noise_snr_db)
    length = int(next_fast_len(max(len(samples), 2), real=True))  # pyright: ignore[reportArgumentType]
    num_bins = length // 2 + 1
    spectrum = rng.standard_normal(2 * num_bins, dtype=np.float32).view(np.complex64)
    # Below 50 Hz the slope stops, or brown noise would be nothing but rumble.
    corner = max(1, 50 * length // SAMPLE_RATE)
    shape = np.maximum(np.arange(num_bins, dtype=np.float32), corner) ** np.float32(-slope / 2)
    noise = np.asarray(irfft(spectrum * shape, n=length))[: len(samples)]
    power, noise_power = float(np.mean(samples**2)), float(np.mean(noise**2))
    scale = np.sqrt(power / max(noise_power, 1e-20) * 10.0 ** (-snr_db / 10.0))
    return samples + noise * np.float32(scale)


def _reverberate(samples: np.ndarray, rng: np.random.Generator, a: Augmentation) -> np.ndarray:
    seconds, direct_db = (
        rng.uniform(*a.reverberation_seconds),
        rng.uniform(*a.reverberation_direct_db),
    )
    time = np.arange(int(seconds * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE
    # 60 dB are a factor 1000 of amplitude: exp(-6.91).
    echo = rng.standard_normal(len(time), dtype=np.float32) * np.exp(-6.91 / seconds * time)
    # Nothing arrives within 2 ms of the direct sound.
    echo[: SAMPLE_RATE // 500] = 0.0
    energy = max(float(np.sum(echo**2)), 1e-20)
    echo *= np.float32(np.sqrt(10.0 ** (-direct_db / 10.0) / energy))
    if len(echo) == 0 or len(samples) == 0:
        return samples
    return samples + oaconvolve(samples, echo)[: len(samples)].astype(np.float32)


def _stretch_time(frames: np.ndarray, tempo: float) -> np.ndarray:
    length = max(1, round(len(frames) / tempo))
    return _interpolate(frames, np.linspace(0.0, len(frames) - 1.0, length, dtype=np.float32))


def _interpolate(rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Reads ``rows`` at fractional row numbers, linearly."""
    lower = np.clip(np.floor(positions).astype(np.intp), 0, max(len(rows) - 2, 0))
    upper = np.minimum(lower + 1, len(rows) - 1)
    weight = (positions - lower).astype(np.float32)[:, None]
    return rows[lower] * (1.0 - weight) + rows[upper] * weight


def _mel(hertz: np.ndarray | float) -> np.ndarray | np.floating:
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)


def _warp_frequencies(frames: np.ndarray, factor: float, a: Augmentation) -> np.ndarray:
    """Moves energy at frequency f to ``factor * f``, linearly up to a knee and then to the end."""
    num_bins = frames.shape[1]
    lowest, highest = float(_mel(_LOW_HZ)), float(_mel(_HIGH_HZ))
    step = (highest - lowest) / (num_bins + 1)
    centres_hz = 700.0 * np.expm1((lowest + step * np.arange(1, num_bins + 1)) / 1127.0)
    # The knee lies so that neither side of it leaves the band, whatever the factor.
    knee = a.vocal_tract_cutoff_hz * min(1.0, factor)
    source_hz = np.interp(centres_hz, [0.0, knee, _HIGH_HZ], [0.0, knee / factor, _HIGH_HZ])
    positions = np.clip((_mel(source_hz) - lowest) / step - 1.0, 0.0, num_bins - 1.0)
    return _interpolate(frames.T, positions.astype(np.float32)).T


def _channel(num_bins: int, rng: np.random.Generator, a: Augmentation) -> np.ndarray:
    levels = rng.normal(0.0, a.channel_db * _NATS_PER_DB, a.channel_points)
    knots = np.linspace(0.0, num_bins - 1.0, a.channel_points)
    return np.interp(np.arange(num_bins), knots, levels).astype(np.float32)


def _mask(frames: np.ndarray, rng: np.random.Generator, a: Augmentation) -> np.ndarray:
    num_frames, num_bins = frames.shape
    mean = frames.mean(axis=0)
    masked = frames.copy()
    for _ in range(rng.integers(a.frequency_masks[0], a.frequency_masks[1] + 1)):
        width = int(rng.integers(0, min(a.frequency_mask_bins, num_bins) + 1))
        first = int(rng.integers(0, num_bins - width + 1))
        masked[:, first : first + width] = mean[first : first + width]
    left = int(a.time_mask_share * num_frames)
    for _ in range(max(a.time_masks_at_least, num_frames // a.time_mask_every)):
        width = int(rng.integers(0, min(a.time_mask_frames, num_frames) + 1))
        first = int(rng.integers(0, num_frames - width + 1))
        width = min(width, left)
        masked[first : first + width] = mean
        left -= width
    return masked
