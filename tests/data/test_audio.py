"""Audio files of every kind become one mono 16 kHz waveform, or one clear line."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from ortho_edge.cli import UserError
from ortho_edge.data.audio import SAMPLE_RATE, AudioError, load_audio, read_samples, resample


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(
        np.float32
    )


@pytest.mark.parametrize(
    ("suffix", "form", "subtype", "rate"),
    [
        ("wav", "WAV", "PCM_16", 16000),
        ("wav", "WAV", "PCM_24", 44100),
        ("wav", "WAV", "FLOAT", 11025),
        ("flac", "FLAC", "PCM_16", 8000),
        ("ogg", "OGG", "VORBIS", 22050),
        ("opus", "OGG", "OPUS", 48000),
    ],
)
def test_every_format_and_rate_becomes_the_same_tone(
    tmp_path: Path, suffix: str, form: str, subtype: str, rate: int
) -> None:
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(rate), rate, format=form, subtype=subtype)
    samples = load_audio(path)
    assert samples.dtype == np.float32
    assert len(samples) == SAMPLE_RATE
    # Codecs and filters ring at the edges; the middle must be the tone itself, in phase.
    middle = slice(2000, 14000)
    assert np.abs(samples[middle] - tone(SAMPLE_RATE)[middle]).max() < 0.03


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = tone(16000), tone(16000, hertz=1000.0)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), 16000, "FLOAT")
    samples = load_audio(tmp_path / "stereo.wav")
    assert np.allclose(samples, (left + right) / 2, atol=1e-6)
    one, _ = read_samples(tmp_path / "stereo.wav", channel=1)
    assert np.array_equal(one, right)


def test_a_stretch_is_read_exactly(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(8000), 8000, "FLOAT")
    samples, rate = read_samples(tmp_path / "a.wav", first=123, count=77)
    assert rate == 8000
    assert np.array_equal(samples, tone(8000)[123:200])


@settings(deadline=None)  # a busy machine is not a failure
@given(
    num_samples=st.integers(1, 3000),
    rate=st.sampled_from([6000, 8000, 11025, 16000, 22050, 44100, 48000]),
)
def test_resampling_keeps_the_duration(num_samples: int, rate: int) -> None:
    resampled = resample(np.zeros(num_samples, np.float32), rate, SAMPLE_RATE)
    assert abs(len(resampled) / SAMPLE_RATE - num_samples / rate) <= 1 / SAMPLE_RATE
    assert resampled.dtype == np.float32


def broken_file(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.wav"
    if kind == "text":
        path.write_text("this is no audio\nat all\n")
    elif kind == "zero-bytes":
        path.touch()
    elif kind == "no-samples":
        soundfile.write(path, np.zeros(0, np.float32), 16000)
    elif kind == "nan":
        soundfile.write(path, np.array([0.0, np.nan, 0.1]), 16000, "FLOAT")
    elif kind == "infinite":
        soundfile.write(path, np.array([0.0, np.inf, 0.1]), 16000, "FLOAT")
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("absent", "missing"),
        ("folder", "missing"),
        ("text", "unreadable"),
        ("zero-bytes", "empty"),
        ("no-samples", "empty"),
        ("nan", "non-finite"),
        ("infinite", "non-finite"),
    ],
)
def test_unusable_audio_is_one_line_that_names_the_file(
    tmp_path: Path, kind: str, reason: str
) -> None:
    path = broken_file(tmp_path, kind)
    with pytest.raises(AudioError) as caught:
        load_audio(path)
    assert caught.value.reason == reason
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UserError)


def test_an_audio_error_survives_the_way_from_a_loader_process() -> None:
    error = pickle.loads(pickle.dumps(AudioError("no such file: x", reason="missing")))
    assert (str(error), error.reason) == ("no such file: x", "missing")
