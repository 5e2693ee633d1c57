"""Training features are what a device computes: agreement with kaldi-native-fbank."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ortho_edge.data import features
from ortho_edge.data.audio import load_audio
from ortho_edge.data.features import FRAME_LENGTH, NUM_BINS, fbank, num_frames
from tests.data.generated import kaldi_fbank, speech_like
from tests.tolerances import tolerance

FLOOR_DB = 80
"""Below its frame's loudest bin by this much, an energy is rounding of the FFTs in float32."""


def assert_same_features(actual: torch.Tensor, expected: np.ndarray) -> None:
    reference = torch.from_numpy(expected)
    assert actual.shape == reference.shape
    assert actual.dtype == torch.float32
    below = reference.max(dim=1, keepdim=True).values - reference
    audible = below < FLOOR_DB * np.log(10) / 10
    torch.testing.assert_close(actual[audible], reference[audible], **tolerance("fbank"))
    torch.testing.assert_close(actual[~audible], reference[~audible], **tolerance("fbank_floor"))


def signals() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "speech-like": speech_like(2.3, 16000, seed=1),
        "white noise": rng.standard_normal(20011).astype(np.float32) * 0.1,
        "silence": np.zeros(8000, np.float32),
        "offset": np.full(8000, 0.5, np.float32),
        "whisper": rng.standard_normal(8000).astype(np.float32) * 1e-6,
        "click": np.eye(1, 8000, 4000, dtype=np.float32)[0],
    }


@pytest.mark.parametrize("name", signals())
def test_generated_audio_agrees_with_kaldi(name: str) -> None:
    samples = signals()[name]
    assert_same_features(fbank(samples), kaldi_fbank(samples))


@settings(deadline=None)  # a busy machine is not a failure
@given(num_samples=st.integers(FRAME_LENGTH, 2000), seed=st.integers(0, 99))
def test_any_length_agrees_with_kaldi(num_samples: int, seed: int) -> None:
    samples = np.random.default_rng(seed).standard_normal(num_samples).astype(np.float32) * 0.1
    actual = fbank(samples)
    assert len(actual) == num_frames(num_samples)
    assert_same_features(actual, kaldi_fbank(samples))


@pytest.mark.data
@pytest.mark.parametrize(
    "pattern",
    [
        "librivox/audio/*.flac",
        "fsdd/audio/*_[0-4].flac",
        "speechocean762/dev/audio/*.opus",
    ],
)
def test_real_clips_agree_with_kaldi(data_root: Path, pattern: str) -> None:
    clips = sorted(data_root.glob(pattern))
    assert clips
    for clip in clips[:: max(1, len(clips) // 20)]:
        samples = load_audio(clip)
        assert_same_features(fbank(samples), kaldi_fbank(samples))


@pytest.mark.parametrize(
    "wrong",
    [
        {"high_freq": 0},
        {"low_freq": 60},
        {"preemph_coeff": 0.0},
        {"remove_dc_offset": False},
        {"window_type": "hamming"},
        {"frame_shift_ms": 9.0},
        {"snip_edges": True},
    ],
    ids=str,
)
def test_the_comparison_sees_one_wrong_setting(wrong: dict) -> None:
    samples = speech_like(1.0, 16000, seed=2) + np.float32(0.01)
    with pytest.raises(AssertionError):
        assert_same_features(fbank(samples), kaldi_fbank(samples, **wrong))


@pytest.mark.parametrize("shape", [(FRAME_LENGTH - 1,), (0,), (1, 16000)])
def test_what_is_not_one_waveform_of_a_window_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least 400 samples"):
        fbank(np.zeros(shape, np.float32))


def test_the_extractor_is_built_once_and_the_input_is_left_alone() -> None:
    samples = speech_like(0.5, 16000, seed=3)
    before = samples.copy()
    assert fbank(samples).shape == (50, NUM_BINS)
    assert not fbank(samples).requires_grad
    assert features._extractor() is features._extractor()
    assert np.array_equal(samples, before)
