"""Sounds that are no speech: what a recogniser must answer with nothing.

Silence, noise, hum and tones are trained on with empty references; alarms and knocks are kept from
training, so that a rate of inserted words on them tells what other sounds will do. All are made
from a seed. Shapes: N samples at 16 kHz.
"""

import io
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import soundfile
from lhotse import MonoCut, Recording, SupervisionSegment
from scipy.fft import irfft, rfft
from scipy.signal import chirp

from ortho_edge.data.audio import SAMPLE_RATE

SPEAKER = "sound"
"""Begins the name of the speaker of a sound, which ends with its kind."""
LEVELS_DB = (-60.0, -12.0)
"""Root mean square of a sound, of full scale."""

Sound = Callable[[int, np.random.Generator], np.ndarray]


def coloured_noise(
    num_samples: int, rng: np.random.Generator, slope: float, lowest_hz: float = 50.0
) -> np.ndarray:
    """Gaussian noise with power 1 / f^slope, flat below `lowest_hz`; root mean square 1.

    Args:
        num_samples: N, at least 1.
        rng: Source of all chance.
        slope: 0 white, 1 pink, 2 brown.
        lowest_hz: Where the slope stops, or brown noise would be nothing but rumble.

    Returns:
        float32 (N,).
    """
    length = max(num_samples, 2)
    spectrum = np.asarray(rfft(rng.standard_normal(length, dtype=np.float32)))
    corner = max(1.0, lowest_hz * length / SAMPLE_RATE)
    spectrum *= np.maximum(np.arange(len(spectrum)), corner) ** (-slope / 2)
    return _normalised(np.asarray(irfft(spectrum, n=length))[:num_samples])


def _silence(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Digital silence, or the last bit of a converter that hears nothing."""
    steps = rng.integers(-1, 2, num_samples) if rng.random() < 0.7 else np.zeros(num_samples)
    return steps.astype(np.float32) / 32768


def _noise(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Coloured noise, steady or swelling as wind and traffic do."""
    noise = coloured_noise(num_samples, rng, rng.uniform(0.0, 2.0))
    if rng.random() < 0.5:
        return noise
    swell = coloured_noise(num_samples, rng, 2.0, lowest_hz=rng.uniform(0.3, 3.0))
    return noise * np.exp(0.7 * swell)


def _hum(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Mains or a fan: harmonics of a low, nearly steady frequency over a little noise."""
    base = rng.choice([50.0, 60.0, 100.0, 120.0, rng.uniform(40.0, 250.0)])
    drift = 1 + 0.002 * coloured_noise(num_samples, rng, 2.0, lowest_hz=0.5)
    phase = 2 * np.pi * base * np.cumsum(drift) / SAMPLE_RATE
    numbers = np.arange(1, 1 + int(rng.integers(3, 30)))
    levels = numbers ** -rng.uniform(0.3, 1.5) * rng.uniform(0.1, 1.0, len(numbers))
    tones = levels @ np.sin(numbers[:, None] * phase)
    noise = coloured_noise(num_samples, rng, rng.uniform(0.0, 1.5))
    return tones + rng.uniform(0.003, 0.3) * noise


def _tones(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Notes and chords, struck one after another, with overtones that die away."""
    music = np.zeros(num_samples)
    start = 0
    while start < num_samples:
        length = int(rng.uniform(0.1, 0.8) * SAMPLE_RATE)
        time = np.arange(min(length, num_samples - start)) / SAMPLE_RATE
        decay = np.exp(-time * rng.uniform(0.5, 8.0)) * np.minimum(1.0, time / 0.01)
        root = 110.0 * 2 ** (rng.integers(0, 36) / 12)
        for interval in rng.choice([0, 3, 4, 7, 12], size=rng.integers(1, 4), replace=False):
            for overtone in range(1, int(rng.integers(2, 8))):
                frequency = root * 2 ** (interval / 12) * overtone
                if frequency < SAMPLE_RATE / 2:
                    tone = np.sin(2 * np.pi * (frequency * time + rng.random()))
                    music[start : start + len(time)] += decay * tone / overtone
        start += int(length * rng.uniform(0.5, 1.3)) + 1
    return music + 1e-3 * coloured_noise(num_samples, rng, 1.0)


def _alarm(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """A siren: a tone that sweeps up and down."""
    low, high = rng.uniform(300.0, 800.0), rng.uniform(900.0, 2500.0)
    period = int(rng.uniform(0.3, 2.0) * SAMPLE_RATE)
    time = np.arange(period) / SAMPLE_RATE
    up = chirp(time, low, time[-1], high)
    sweep = np.resize(np.concatenate([up, up[::-1]]), num_samples)
    return sweep + 0.01 * coloured_noise(num_samples, rng, 1.0)


def _knocks(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Keys, steps and doors: short bursts of noise that ring, at uneven times, in a quiet room."""
    knocks = 0.003 * coloured_noise(num_samples, rng, 1.0)
    start = 0
    while (start := start + int(rng.exponential(0.35) * SAMPLE_RATE) + 800) < num_samples:
        time = np.arange(min(3200, num_samples - start)) / SAMPLE_RATE
        ring = np.sin(2 * np.pi * rng.uniform(80.0, 3000.0) * time)
        burst = ring + rng.standard_normal(len(time))
        knocks[start : start + len(time)] += (
            rng.uniform(0.2, 1.0) * burst * np.exp(-time * rng.uniform(30.0, 200.0))
        )
    return knocks


TRAINED: dict[str, Sound] = {"silence": _silence, "noise": _noise, "hum": _hum, "tones": _tones}
"""Kinds that training hears."""
UNHEARD: dict[str, Sound] = {"alarm": _alarm, "knocks": _knocks}
"""Kinds that no training hears."""
SOUNDS: dict[str, Sound] = {**TRAINED, **UNHEARD}


def sound(kind: str, num_samples: int, seed: int | Sequence[int]) -> np.ndarray:
    """A stretch of sound.

    Args:
        kind: One of `SOUNDS`.
        num_samples: N.
        seed: Fixes every draw, the level among them.

    Returns:
        float32 (N,), within full scale.
    """
    rng = np.random.default_rng(seed)
    samples = SOUNDS[kind](num_samples, rng)
    if kind != "silence":
        samples = _normalised(samples) * 10 ** (rng.uniform(*LEVELS_DB) / 20)
    return np.clip(samples, -1.0, 1.0).astype(np.float32)


def sound_cuts(
    kinds: Sequence[str], number: int, seconds: tuple[float, float], seed: int
) -> list[MonoCut]:
    """Cuts of sounds with empty references, each in memory.

    Args:
        kinds: Which take turns.
        number: How many cuts.
        seconds: Shortest and longest.
        seed: The same seed gives the same cuts.

    Returns:
        Cuts whose speaker is `sound-KIND` and whose text is empty.
    """
    return [
        _cut(kinds[index % len(kinds)], f"{seed}-{index:04d}", seconds) for index in range(number)
    ]


def is_sound(speaker: str) -> bool:
    """Whether that is the speaker of a sound, so that an empty reference is meant."""
    return speaker.startswith(f"{SPEAKER}-")


def _cut(kind: str, place: str, seconds: tuple[float, float]) -> MonoCut:
    name = f"{SPEAKER}-{kind}-{place}"
    seed = zlib.crc32(name.encode())
    duration = np.random.default_rng(seed).uniform(*seconds)
    samples = sound(kind, round(duration * SAMPLE_RATE), seed)
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="FLAC")
    recording = Recording.from_bytes(file.getvalue(), recording_id=name)
    reference = SupervisionSegment(
        id=name, recording_id=name, start=0.0, duration=recording.duration, text="",
        speaker=f"{SPEAKER}-{kind}",
    )  # fmt: skip
    return MonoCut(
        id=name, start=0.0, duration=recording.duration, channel=0, recording=recording,
        supervisions=[reference],
    )  # fmt: skip


def _normalised(samples: np.ndarray) -> np.ndarray:
    level = np.sqrt(np.mean(np.square(samples, dtype=np.float64)))
    return (samples / max(level, 1e-12)).astype(np.float32)
