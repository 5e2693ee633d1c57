"""Long audio in pieces: nothing lost, nothing too long, cuts in pauses, the same words."""

import tracemalloc
from collections.abc import Iterator
from functools import cache

import jiwer
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ortho_edge.checkpoint import load_checkpoint, shipped_checkpoint
from ortho_edge.compaction import compact
from ortho_edge.data.audio import load_audio
from ortho_edge.data.features import fbank
from ortho_edge.data.segmentation import ENCODER_SHIFT, OVERLAP, Piece, pieces, quiet_frames
from ortho_edge.data.sounds import coloured_noise
from ortho_edge.decoding import greedy_text
from ortho_edge.long_audio import stretches

LONGEST = 10 * 16_000


def in_blocks(samples: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def check_partition(found: list[Piece], samples: np.ndarray, longest: int) -> None:
    end = 0
    for piece in found:
        assert 0 < len(piece.samples) <= longest
        assert piece.start == end - piece.overlap
        assert piece.overlap in (0, OVERLAP)
        assert piece.overlap < len(piece.samples)
        np.testing.assert_array_equal(piece.samples, samples[piece.start : piece.end])
        end = piece.end
    assert end == len(samples)


@st.composite
def recordings(draw: st.DrawFn) -> np.ndarray:
    """Bursts of noise over a floor, with pauses from none to long ones."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    floor = 10 ** (draw(st.floats(-100, -20)) / 20)
    parts = [np.zeros(draw(st.integers(0, 3)), np.float32)]
    for seconds, speaks in draw(
        st.lists(st.tuples(st.floats(0.01, 12), st.booleans()), max_size=8)
    ):
        level = 0.2 if speaks else floor
        parts.append(level * rng.standard_normal(int(seconds * 16_000), dtype=np.float32))
    return np.concatenate(parts).astype(np.float32)


@given(samples=recordings(), size=st.integers(1000, 300_000), longest=st.integers(8, 25))
def test_pieces_are_the_audio_whatever_it_is_and_however_it_comes(
    samples: np.ndarray, size: int, longest: int
) -> None:
    longest = longest * 16_000 + 7
    found = list(pieces(in_blocks(samples, size), longest))
    check_partition(found, samples, longest)
    again = list(pieces(iter([samples]), longest))
    assert [(one.start, one.end) for one in found] == [(one.start, one.end) for one in again]


def test_sentences_are_cut_apart_in_their_pauses() -> None:
    rng = np.random.default_rng(0)
    speech = [(2.0, 3.0), (4.2, 9.0), (10.0, 11.5), (17.0, 19.0)]
    samples = 1e-4 * rng.standard_normal(22 * 16_000, dtype=np.float32)
    for start, end in speech:
        samples[int(start * 16_000) : int(end * 16_000)] *= 1000
    found = list(pieces(in_blocks(samples, 4096), LONGEST))
    check_partition(found, samples, LONGEST)
    loud = [one for one in found if np.abs(one.samples).max() > 0.01]
    assert len(loud) == len(speech)
    for piece, (start, end) in zip(loud, speech, strict=True):
        assert start - 0.8 <= piece.start / 16_000 <= start - 0.2
        assert end + 0.2 <= piece.end / 16_000 <= end + 0.55


def syllables(seconds: int) -> np.ndarray:
    """Noise whose level moves as speech does, but falls nowhere for long."""
    noise = 0.1 * coloured_noise(seconds * 16_000, np.random.default_rng(0), 1.0)
    time = np.arange(len(noise), dtype=np.float32) / 16_000
    return noise * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * time))


def test_speech_without_a_pause_is_cut_where_it_is_quiet_a_moment_or_into_windows() -> None:
    samples = 0.1 * coloured_noise(25 * 16_000, np.random.default_rng(0), 1.0)
    # Syllables: its level moves, but nowhere long enough.
    samples *= 0.55 + 0.45 * np.sin(
        2 * np.pi * 4 * np.arange(len(samples)) / 16_000, dtype=np.float32
    )
    found = list(pieces(in_blocks(samples, 4096), LONGEST))
    check_partition(found, samples, LONGEST)
    assert [one.overlap for one in found] == [0, OVERLAP, OVERLAP]
    assert all(one.start % ENCODER_SHIFT == 0 for one in found)
    samples[7 * 16_000 : int(7.3 * 16_000)] = 0
    first, *_ = pieces(in_blocks(samples, 4096), LONGEST)
    assert first.end / 16_000 == pytest.approx(7.15, abs=0.05)


@pytest.mark.parametrize("level", [0.0, 1e-6, 0.3])
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_nothing_but_noise_is_one_piece_after_the_other(level: float, offset: float) -> None:
    noise = np.random.default_rng(0).standard_normal(35 * 16_000, dtype=np.float32)
    found = list(pieces(in_blocks(offset + level * noise, 4096), LONGEST))
    check_partition(found, offset + level * noise, LONGEST)
    assert [len(one.samples) for one in found] == [LONGEST] * 3 + [5 * 16_000]
    assert all(one.overlap == 0 for one in found)


def test_an_offset_and_a_gain_move_no_cut() -> None:
    speech = np.tile(load_audio(shipped_checkpoint() / "sample.flac"), 6)
    ends = [one.end for one in pieces(iter([speech]), LONGEST)]
    assert ends == [one.end for one in pieces(iter([0.01 * speech + 0.2]), LONGEST)]


def test_too_short_a_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="longest must be at least 128000 samples, not 16000"):
        list(pieces(iter([np.zeros(5, np.float32)]), 16_000))


def test_frames_are_quiet_where_nobody_speaks() -> None:
    assert quiet_frames(np.zeros(100, np.float32)).shape == (0,)
    samples = np.zeros(48_000, np.float32)
    samples[16_000:32_000] = np.random.default_rng(0).standard_normal(16_000)
    quiet = quiet_frames(samples)
    assert quiet[:95].all()
    assert quiet[205:].all()
    assert not quiet[105:195].any()


def test_memory_does_not_grow_with_the_audio() -> None:
    def peak(minutes: int) -> int:
        block = np.random.default_rng(0).standard_normal(16_000, dtype=np.float32)
        tracemalloc.start()
        for _ in pieces((block for _ in range(60 * minutes)), LONGEST):
            pass
        _, found = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return found

    assert peak(8) <= 1.1 * peak(2)


@cache
def _largest():
    checkpoint = load_checkpoint(shipped_checkpoint())
    trained = checkpoint.subnets[0]
    return compact(checkpoint.supernet, trained.subnet, trained.head), checkpoint.tokens


@torch.no_grad()
def log_probs(samples: np.ndarray) -> np.ndarray:
    features = fbank(samples)
    output, _ = _largest()[0](features[None], torch.tensor([len(features)]))
    return output[0].numpy()


def words(samples: np.ndarray) -> str:
    return greedy_text(log_probs(samples), _largest()[1])


def test_words_of_a_long_recording_are_those_of_its_sentences() -> None:
    """Each with half of the pause in front and behind; where its middle is heard a little later, a
    word that is nearly another one may become that."""
    sample = load_audio(shipped_checkpoint() / "sample.flac")
    rng = np.random.default_rng(1)
    sentences = [rng.uniform(0.3, 1.0) * sample for _ in range(20)]
    halves = [1e-4 * rng.standard_normal(int(rng.uniform(0.05, 0.2) * 16_000)) for _ in range(21)]
    alone = [
        np.concatenate([front, sentence, behind]).astype(np.float32)
        for front, sentence, behind in zip(halves[:-1], sentences, halves[1:], strict=True)
    ]
    long = np.concatenate(alone)
    found = list(stretches(in_blocks(long, 4096), log_probs, 30 * 16_000))
    ends = np.cumsum([len(one) for one in alone]) / 16_000
    np.testing.assert_allclose([one.end for one in found], ends, atol=0.1)
    assert all(one.windows == 1 for one in found)
    heard = [greedy_text(one.log_probs, _largest()[1]) for one in found]
    assert heard == [
        words(long[round(one.start * 16_000) : round(one.end * 16_000)]) for one in found
    ]
    assert jiwer.wer(" ".join(map(words, alone)), " ".join(heard)) < 0.05


def test_windows_are_joined_frame_by_frame() -> None:
    """An encoder that says where each frame lies: joined, nothing is missing or said twice."""
    samples = 0.1 * coloured_noise(40 * 16_000, np.random.default_rng(0), 1.0)
    samples *= 0.55 + 0.45 * np.sin(
        2 * np.pi * 4 * np.arange(len(samples)) / 16_000, dtype=np.float32
    )

    def firsts(piece: np.ndarray) -> np.ndarray:
        return np.pad(piece, (0, -len(piece) % ENCODER_SHIFT)).reshape(-1, ENCODER_SHIFT)[:, :1]

    (found,) = stretches(in_blocks(samples, 4096), firsts, LONGEST)
    assert found.windows > 3
    assert (found.start, found.end) == (0, 40)
    np.testing.assert_array_equal(found.log_probs, firsts(samples))
