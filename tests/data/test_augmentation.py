"""Each change does what its fields say, measured on signals whose outcome is known."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ortho_edge.data.audio import SAMPLE_RATE
from ortho_edge.data.augmentation import (
    Augmentation,
    augment_features,
    augment_waveform,
    draw_silences,
)
from ortho_edge.data.features import fbank
from tests.data.generated import speech_like


def only(**changes) -> Augmentation:
    return replace(Augmentation.none(), **changes)


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    time = np.arange(round(SAMPLE_RATE * seconds)) / SAMPLE_RATE
    return (0.3 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def white(seconds: float = 2.0) -> np.ndarray:
    generator = np.random.default_rng(5)
    return generator.standard_normal(round(SAMPLE_RATE * seconds)).astype(np.float32) * 0.1


def peak_hertz(samples: np.ndarray) -> float:
    return np.argmax(np.abs(np.fft.rfft(samples))) * SAMPLE_RATE / len(samples)


def band_db(samples: np.ndarray, low: float, high: float) -> float:
    """Mean power density from `low` to `high` Hz in dB."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    return float(10 * np.log10(power[(hertz >= low) & (hertz < high)].mean()))


def test_none_changes_nothing(rng: np.random.Generator) -> None:
    samples = speech_like(1.0, SAMPLE_RATE, seed=0)
    features = fbank(samples)
    assert np.array_equal(augment_waveform(samples, rng, Augmentation.none()), samples)
    assert torch.equal(augment_features(features, rng, Augmentation.none()), features)


@settings(deadline=None)  # a busy machine is not a failure
@given(num_samples=st.integers(400, 20_000), seed=st.integers(0, 10_000))
def test_everything_at_once_is_deterministic_finite_and_leaves_its_input_alone(
    num_samples: int, seed: int
) -> None:
    always = {f.name: 1.0 for f in fields(Augmentation) if f.name.endswith("_probability")}
    augmentation = replace(Augmentation(), **always)
    samples = np.random.default_rng(seed).standard_normal(num_samples).astype(np.float32) * 0.1
    kept = samples.copy()

    def both() -> tuple[np.ndarray, torch.Tensor]:
        rng = np.random.default_rng(seed)
        waveform = augment_waveform(samples, rng, augmentation)
        long = np.pad(waveform, (0, max(0, 400 - len(waveform))))
        return waveform, augment_features(fbank(long), rng, augmentation)

    (waveform, features), (waveform_again, features_again) = both(), both()
    assert np.array_equal(waveform, waveform_again)
    assert torch.equal(features, features_again)
    assert np.array_equal(samples, kept)
    assert waveform.dtype == np.float32
    assert features.dtype == torch.float32
    assert np.isfinite(waveform).all()
    assert torch.isfinite(features).all()
    assert num_samples / 1.26 <= len(waveform) <= num_samples / 0.79


def test_other_chance_gives_other_audio() -> None:
    samples = speech_like(1.0, SAMPLE_RATE, seed=0)
    one, other = (
        augment_waveform(samples, np.random.default_rng(s), Augmentation()) for s in (0, 1)
    )
    assert len(one) != len(other) or not np.array_equal(one, other)


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.25])
def test_speed_moves_pitch_up_and_duration_down(rng: np.random.Generator, speed: float) -> None:
    faster = augment_waveform(tone(500), rng, only(speed_probability=1.0, speed=(speed, speed)))
    assert abs(len(faster) - SAMPLE_RATE / speed) <= 1
    assert peak_hertz(faster) == pytest.approx(500 * speed, abs=2)


@pytest.mark.parametrize("tempo", [0.8, 1.25])
def test_tempo_changes_duration_but_no_frequency(rng: np.random.Generator, tempo: float) -> None:
    features = fbank(tone(1000))
    changed = augment_features(features, rng, only(tempo_probability=1.0, tempo=(tempo, tempo)))
    assert len(changed) == round(len(features) / tempo)
    middle = slice(10, -10)
    torch.testing.assert_close(
        changed[middle].mean(dim=0), features[middle].mean(dim=0), rtol=0, atol=0.2
    )


def test_tempo_keeps_first_and_last_frame_and_the_order_between(rng: np.random.Generator) -> None:
    ramp = torch.arange(101.0)[:, None].expand(101, 80).contiguous()
    slow = augment_features(ramp, rng, only(tempo_probability=1.0, tempo=(0.5, 0.5)))
    torch.testing.assert_close(slow[:, 0], torch.linspace(0, 100, 202), rtol=0, atol=1e-4)


@pytest.mark.parametrize("hertz", [300, 700, 1500, 3000])
@pytest.mark.parametrize("factor", [0.85, 1.18])
def test_vocal_tract_moves_a_formant_by_the_factor(
    rng: np.random.Generator, hertz: float, factor: float
) -> None:
    setting = only(vocal_tract_probability=1.0, vocal_tract=(factor, factor))
    warped = augment_features(fbank(tone(hertz)), rng, setting)
    expected = fbank(tone(hertz * factor))
    assert warped.shape == expected.shape
    assert abs(int(warped[50].argmax()) - int(expected[50].argmax())) <= 1


@settings(deadline=None)  # a busy machine is not a failure
@given(factor=st.floats(0.5, 2.0))
def test_vocal_tract_uses_the_whole_band_in_order(factor: float) -> None:
    bins = torch.arange(80.0).expand(3, 80).contiguous()
    setting = only(vocal_tract_probability=1.0, vocal_tract=(factor, factor))
    source = augment_features(bins, np.random.default_rng(0), setting)[0]
    assert (source.diff() >= 0).all()
    assert (source[10:].diff() > 0).all()
    assert source[0] < 2
    assert source[-1] > 78


def test_band_limiting_removes_what_a_telephone_does_and_nothing_below(
    rng: np.random.Generator,
) -> None:
    setting = only(band_limit_probability=1.0, band_limit_rate=(8000, 8000))
    limited = augment_waveform(white(), rng, setting)
    assert len(limited) == len(white())
    assert band_db(limited, 4200, 8000) < band_db(white(), 4200, 8000) - 50
    assert band_db(limited, 100, 3500) == pytest.approx(band_db(white(), 100, 3500), abs=0.1)
    delay = np.argmax(np.correlate(limited[:8000], white()[:8000], "full")) - 7999
    assert delay == 0


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
@pytest.mark.parametrize("num_samples", [401, 16_000, 20_011])
def test_noise_has_the_asked_level(
    rng: np.random.Generator, snr_db: float, num_samples: int
) -> None:
    samples = tone(440, 2.0)[:num_samples]
    setting = only(noise_probability=1.0, noise_snr_db=(snr_db, snr_db))
    noise = augment_waveform(samples, rng, setting) - samples
    measured = 10 * np.log10(np.mean(samples**2) / np.mean(noise**2))
    assert measured == pytest.approx(snr_db, abs=0.01)


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_noise_falls_by_three_db_an_octave_for_each_unit_of_slope(
    rng: np.random.Generator, slope: float
) -> None:
    setting = only(noise_probability=1.0, noise_snr_db=(0, 0), noise_slope=(slope, slope))
    samples = tone(440, 8.0)
    noise = augment_waveform(samples, rng, setting) - samples
    fall = band_db(noise, 1000, 1100) - band_db(noise, 4000, 4400)
    assert fall == pytest.approx(slope * 2 * 3.01, abs=1.0)


def test_a_room_leaves_the_direct_sound_and_adds_a_decaying_echo(rng: np.random.Generator) -> None:
    impulse = np.zeros(SAMPLE_RATE, np.float32)
    impulse[1000] = 1.0
    setting = only(
        reverberation_probability=1.0,
        reverberation_seconds=(0.3, 0.3),
        reverberation_direct_db=(6.0, 6.0),
    )
    room = augment_waveform(impulse, rng, setting)
    assert len(room) == len(impulse)
    assert np.abs(room[:1000]).max() < 1e-6
    assert room[1000] == pytest.approx(1.0, abs=1e-5)
    echo = room[1001:]
    assert -10 * np.log10(np.sum(echo**2)) == pytest.approx(6.0, abs=0.01)
    # 60 dB in 0.3 s are 20 dB in 0.1 s.
    early, late = echo[400:1200], echo[2000:2800]
    assert 10 * np.log10(np.sum(early**2) / np.sum(late**2)) == pytest.approx(20, abs=2)
    assert np.abs(echo[4800:]).max() < 1e-6


def test_gain_scales(rng: np.random.Generator) -> None:
    louder = augment_waveform(tone(440), rng, only(gain_db=(6.0, 6.0)))
    assert np.allclose(louder, tone(440) * 10 ** (6 / 20))


def test_the_channel_is_smooth_the_same_in_all_frames_and_as_strong_as_asked() -> None:
    zeros = torch.zeros(7, 80)
    setting = only(channel_probability=1.0, channel_db=4.0, channel_points=5)
    curves = []
    for seed in range(300):
        changed = augment_features(zeros, np.random.default_rng(seed), setting)
        assert torch.equal(changed, changed[:1].expand(7, 80))
        curves.append(changed[0])
    decibels = torch.stack(curves) * 10 / np.log(10)
    assert float(decibels[:, 0].std()) == pytest.approx(4.0, abs=0.5)
    assert float(decibels[:, 79].std()) == pytest.approx(4.0, abs=0.5)
    # Straight between control points: no second difference but at them.
    assert (decibels.diff(n=2).abs() > 1e-4).sum(dim=1).max() <= 2 * 3


@settings(deadline=None)  # a busy machine is not a failure
@given(num_frames=st.integers(1, 700), seed=st.integers(0, 1000))
def test_masks_keep_to_their_numbers_widths_and_share(num_frames: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(num_frames, 80, generator=generator)
    setting = only(mask_probability=1.0)
    masked = augment_features(features, np.random.default_rng(seed), setting)
    changed = masked != features
    mean = features.mean(dim=0).expand_as(features)
    # What is masked holds the utterance's mean of its bin, all else is untouched.
    torch.testing.assert_close(masked[changed], mean[changed], rtol=0, atol=1e-5)
    if num_frames < 10:
        return
    frames, bins = changed.all(dim=1), changed.all(dim=0)
    assert int(bins.sum()) <= 5 * 8
    assert int(frames.sum()) <= 0.4 * num_frames
    assert torch.equal(changed, frames[:, None] | bins[None, :])


def test_time_masks_grow_in_number_with_the_utterance_and_reach_its_ends() -> None:
    setting = only(
        mask_probability=1.0, frequency_masks=(0, 0), time_mask_share=1.0, time_mask_frames=2
    )
    features = torch.randn(500, 80, generator=torch.Generator().manual_seed(0))
    counts, ever = [], torch.zeros(500, dtype=torch.bool)
    for seed in range(200):
        masked = augment_features(features, np.random.default_rng(seed), setting)
        frames = (masked != features).any(dim=1)
        counts.append(int(frames.sum()))
        ever |= frames
    # 500 / 25 = 20 masks of 0, 1 or 2 frames: 20 on average, a little less where they overlap.
    assert 18.5 < np.mean(counts) <= 20.5
    assert ever.float().mean() > 0.99
    assert ever[0]
    assert ever[-1]


@pytest.mark.parametrize("name", ["speed_probability", "mask_probability", "noise_probability"])
def test_probabilities_are_respected(name: str) -> None:
    samples = speech_like(0.4, SAMPLE_RATE, seed=1)
    features = fbank(samples)

    def changed(seed: int) -> bool:
        rng, setting = np.random.default_rng(seed), only(**{name: 0.3})
        waveform = augment_waveform(samples, rng, setting)
        other = len(waveform) != len(samples) or not np.array_equal(waveform, samples)
        return other or not torch.equal(augment_features(features, rng, setting), features)

    assert 0.2 < np.mean([changed(seed) for seed in range(300)]) < 0.4


@pytest.mark.parametrize(
    "wrong",
    [
        {"speed_probability": 1.5},
        {"noise_probability": -0.1},
        {"speed": (1.2, 0.8)},
        {"tempo": (0.0, 1.0)},
        {"frequency_masks": (5, 2)},
        {"time_mask_every": 0},
        {"channel_points": 0},
    ],
    ids=str,
)
def test_impossible_strengths_name_the_field(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
        Augmentation(**wrong)


def test_silences_are_drawn_for_both_ends_within_their_range(rng: np.random.Generator) -> None:
    always = replace(Augmentation.none(), silence_probability=1.0, silence_seconds=(0.2, 0.9))
    drawn = np.array([draw_silences(rng, always) for _ in range(200)]) / SAMPLE_RATE
    assert drawn.shape == (200, 2)
    assert drawn.min() >= 0.199
    assert drawn.max() <= 0.9
    correlation = np.asarray(np.corrcoef(drawn.T))
    assert abs(correlation[0, 1]) < 0.3
    half = replace(always, silence_probability=0.5)
    share = np.mean([np.array(draw_silences(rng, half)) > 0 for _ in range(400)])
    assert 0.4 < share < 0.6


def test_without_silences_nothing_is_drawn(rng: np.random.Generator) -> None:
    before = rng.bit_generator.state
    assert draw_silences(rng, Augmentation()) == (0, 0)
    assert rng.bit_generator.state == before
