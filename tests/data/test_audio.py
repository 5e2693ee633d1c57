"""Audio files of every kind become one mono 16 kHz waveform, or one clear line."""

import logging
import pickle
import shlex
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from ortho_edge.cli import UserError
from ortho_edge.data import audio
from ortho_edge.data.audio import (
    SAMPLE_RATE,
    AudioError,
    audio_blocks,
    load_audio,
    read_samples,
    resample,
)
from ortho_edge.data.audio_files import LONGEST_SECONDS


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets each test see what a process says once."""
    monkeypatch.setattr(audio._Said, "topics", set())


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
    elif kind == "huge":
        soundfile.write(path, np.array([0.0, 3e38, -3e38, 0.1] * 50), 8000, "FLOAT")
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
        ("huge", "non-finite"),
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


def stereo(left: np.ndarray, right: np.ndarray, path: Path) -> Path:
    soundfile.write(path, np.stack([left, right], axis=1), 16000, "FLOAT")
    return path


@pytest.mark.parametrize("silent", [0, 1])
@pytest.mark.parametrize("factor", [0.0, -1.0, -0.7])
def test_channels_whose_average_loses_the_sound_become_the_louder_one(
    tmp_path: Path, silent: int, factor: float, caplog: pytest.LogCaptureFixture
) -> None:
    channels = [tone(16000), tone(16000)]
    channels[silent] = factor * channels[silent]
    path = stereo(channels[0], channels[1], tmp_path / "a.wav")
    with caplog.at_level(logging.INFO):
        samples = load_audio(path)
        load_audio(path)
    # Exactly opposite channels are alike loud: either will do.
    louder = 1 - silent if factor > -1 else 0
    assert np.array_equal(samples, channels[louder])
    (line,) = (record.getMessage() for record in caplog.records)
    assert f"the loudest is taken, channel {louder + 1}" in line
    assert str(path) in line


def test_unequal_channels_that_go_together_are_averaged(tmp_path: Path) -> None:
    left = tone(16000)
    path = stereo(left, 0.4 * left, tmp_path / "a.wav")
    assert np.allclose(load_audio(path), 0.7 * left, atol=1e-6)


@pytest.mark.parametrize("shape", ["wav", "aiff", "au", "flac", "w64", "nist", "ogg", "mp3"])
def test_a_file_that_ends_early_is_heard_with_a_warning_or_refused(
    tmp_path: Path, shape: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole, path = tmp_path / "whole", tmp_path / f"cut.{shape}"
    noise = 0.1 * np.random.default_rng(0).standard_normal(3 * 16000).astype(np.float32)
    soundfile.write(whole, noise, 16000, format=shape.upper())
    content = whole.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    with caplog.at_level(logging.WARNING):
        samples = load_audio(path)
    assert 0.5 * 16000 < len(samples) < 2 * 16000
    (line,) = (record.getMessage() for record in caplog.records)
    assert str(path) in line
    assert "ends early" in line
    assert f"{len(samples) / 16000:.2f} s" in line
    with pytest.raises(AudioError, match="ends early") as caught:
        load_audio(path, strict=True)
    assert caught.value.reason == "truncated"
    caplog.clear()
    assert len(load_audio(whole, strict=True)) >= len(noise)
    assert not caplog.records


def test_a_length_that_a_pipe_could_not_know_is_no_promise(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(16000), 16000, "PCM_16")
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(content)
    assert len(load_audio(path, strict=True)) == 16000


@pytest.mark.parametrize("rate", [1, 3999, 768_001, 2**31 - 1])
def test_a_rate_that_nothing_records_at_is_refused_before_memory_is_taken(
    tmp_path: Path, rate: int
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(16000, 2.0), 16000, "PCM_16")
    content = bytearray(path.read_bytes())
    content[24:28] = struct.pack("<I", rate)
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(AudioError, match=f"{rate} samples a second; .* 4000 to 768000 Hz"):
            load_audio(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_file_longer_than_the_limit_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(4000, 0.1), 4000)
    content = bytearray(path.read_bytes())
    # The last 36 bits before the checksum of STREAMINFO count the samples.
    content[22:26] = struct.pack(">I", round(LONGEST_SECONDS * 4000) + 1)
    path.write_bytes(content)
    with pytest.raises(AudioError, match="at most 4 h are read") as caught:
        load_audio(path)
    assert caught.value.reason == "too long"


@pytest.mark.parametrize(
    ("name", "start", "kind"),
    [
        ("a.m4a", b"\0\0\0\x20ftypM4A ", "MPEG-4"),
        ("a.wav", b"\0\0\0\x20ftypisom", "MPEG-4"),
        ("it's.wma", bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "Windows Media"),
        ("a.aac", b"\xff\xf1\x50\x80", "AAC"),
        ("a.webm", bytes.fromhex("1a45dfa3"), "WebM"),
        ("a.amr", b"what is this", "amr audio by its name"),
    ],
)
def test_a_foreign_format_is_named_with_the_way_to_convert_it(
    tmp_path: Path, name: str, start: bytes, kind: str
) -> None:
    path = tmp_path / name
    path.write_bytes(start + bytes(500))
    with pytest.raises(AudioError) as caught:
        load_audio(path)
    assert kind in str(caught.value)
    _, _, command = str(caught.value).partition("convert it: ")
    words = shlex.split(command)
    assert words == [
        "ffmpeg", "-i", str(path), "-ac", "1", "-ar", "16000", str(path.with_suffix(".flac")),
    ]  # fmt: skip


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 48000])
def test_blocks_are_the_whole_waveform_resampled_once(
    tmp_path: Path, rate: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.wav"
    noise = np.random.default_rng(1).uniform(-1, 1, 3 * rate + 123).astype(np.float32)
    soundfile.write(path, noise, rate, "FLOAT")
    with caplog.at_level(logging.INFO):
        blocks = list(audio_blocks(path))
        load_audio(path)
    assert len(blocks) > 2
    assert np.array_equal(np.concatenate(blocks), resample(noise, rate, SAMPLE_RATE))
    lines = [record.getMessage() for record in caplog.records]
    said = [f"audio of {rate} Hz is resampled to 16000 Hz, such as {path}"]
    assert lines == (said if rate != SAMPLE_RATE else [])


def test_nothing_hides_in_a_channel_that_is_not_heard(tmp_path: Path) -> None:
    bad = tone(16000)
    bad[100] = np.nan
    path = stereo(tone(16000), 0 * bad, tmp_path / "a.wav")
    with pytest.raises(AudioError, match="NaN"):
        load_audio(path)


def test_samples_at_the_scale_of_integers_are_kept(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", 32768 * tone(16000), 16000, "FLOAT")
    assert np.array_equal(load_audio(tmp_path / "a.wav"), 32768 * tone(16000))
