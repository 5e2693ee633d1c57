"""Sounds that are no speech: levels, spectra, and cuts with empty references."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import welch

from ortho_edge.data.alignment import UNKNOWN
from ortho_edge.data.audio import SAMPLE_RATE
from ortho_edge.data.augmentation import Augmentation
from ortho_edge.data.examples import training_example
from ortho_edge.data.sounds import (
    LEVELS_DB,
    SOUNDS,
    TRAINED,
    UNHEARD,
    coloured_noise,
    is_sound,
    sound,
    sound_cuts,
)
from ortho_edge.data.waveforms import load_cut
from ortho_edge.tokens import character_tokens


@pytest.mark.parametrize("kind", SOUNDS)
@given(num_samples=st.integers(1, 3 * SAMPLE_RATE), seed=st.integers(0, 2**32))
def test_a_sound_is_finite_within_full_scale_and_depends_on_its_seed_alone(
    kind: str, num_samples: int, seed: int
) -> None:
    samples = sound(kind, num_samples, seed)
    assert samples.shape == (num_samples,)
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() <= 1
    np.testing.assert_array_equal(samples, sound(kind, num_samples, seed))


@pytest.mark.parametrize("kind", sorted(set(SOUNDS) - {"silence"}))
def test_levels_cover_their_range(kind: str) -> None:
    levels = [
        10 * np.log10(np.mean(np.square(sound(kind, SAMPLE_RATE, seed), dtype=np.float64)))
        for seed in range(40)
    ]
    low, high = LEVELS_DB
    assert low - 1 < min(levels) < low + 12
    assert high - 12 < max(levels) < high + 1


def test_silence_is_the_last_bit_at_most() -> None:
    assert max(np.abs(sound("silence", 16_000, seed)).max() for seed in range(20)) <= 1 / 32768


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_noise_falls_with_its_slope(slope: float) -> None:
    noise = coloured_noise(60 * SAMPLE_RATE, np.random.default_rng(3), slope)
    frequency, power = welch(noise, SAMPLE_RATE, nperseg=4096)
    band = (frequency > 200) & (frequency < 6000)
    fitted, _ = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)
    assert fitted == pytest.approx(-slope, abs=0.05)


def test_trained_and_unheard_kinds_are_apart() -> None:
    assert not set(TRAINED) & set(UNHEARD)
    assert len(SOUNDS) == len(TRAINED) + len(UNHEARD)


def test_cuts_take_turns_and_train_as_nothing_said() -> None:
    kinds = tuple(SOUNDS)
    cuts = sound_cuts(kinds, 9, (0.3, 1.1), seed=5)
    assert [cut.supervisions[0].speaker for cut in cuts] == [
        f"sound-{kinds[index % len(kinds)]}" for index in range(9)
    ]
    assert len({cut.id for cut in cuts}) == 9
    assert all(is_sound(str(cut.supervisions[0].speaker)) for cut in cuts)
    assert not is_sound("theo")
    tokens = character_tokens(["ONE"])
    for cut in cuts:
        assert 0.3 <= cut.duration <= 1.1
        assert len(load_cut(cut)) == cut.num_samples
        example = training_example(
            cut, tokens=tokens, augmentation=Augmentation(), seed=1, epoch=0, cache=None
        )
        assert example.tokens == []
        assert (example.frame_targets == UNKNOWN).all()
