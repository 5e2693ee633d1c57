"""Parity notices every way in which an artefact can be wrong."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse.features.kaldi.layers import Wav2LogFilterBank
from torch import Tensor

from ortho_edge.compaction import DenseEncoder, compact
from ortho_edge.data.audio import load_audio
from ortho_edge.data.features import fbank, num_frames
from ortho_edge.subnet import Subnet
from ortho_export.artefact import Recognizer, load_artefact
from ortho_export.parity import ParityError, check_parity, parity_clips
from tests.export.tiny import Exported, bursts, tied, tiny_checkpoint

CHECKPOINT = tiny_checkpoint()
CLIPS = {"short": bursts(0.31), "odd": bursts(0.77, seed=1), "long": bursts(1.2, seed=2)}


@pytest.fixture
def encoder() -> DenseEncoder:
    return compact(CHECKPOINT.supernet, CHECKPOINT.supernet.space.full())


def recognizer(encoder, **changes) -> Recognizer:
    plain = Recognizer(name="stand-in", subnet="s100", tokens=CHECKPOINT.tokens, encoder=encoder)
    return dataclasses.replace(plain, **changes)


def test_the_encoder_agrees_with_itself(encoder: DenseEncoder) -> None:
    parity = check_parity(encoder, recognizer(encoder), CLIPS)
    assert parity.max_abs_error < 1e-4
    assert parity.frames == {"short": 31, "odd": 77, "long": 120}


@pytest.mark.parametrize("dropped", range(12))
def test_one_missing_component_fails(encoder: DenseEncoder, dropped: int) -> None:
    space = CHECKPOINT.supernet.space
    kept = [index for index in range(len(space)) if index != dropped]
    other = compact(CHECKPOINT.supernet, Subnet.of(len(space), kept))
    with pytest.raises(ParityError, match="differs"):
        check_parity(encoder, recognizer(other), CLIPS)


def test_the_head_of_another_subnet_fails(encoder: DenseEncoder) -> None:
    other = compact(CHECKPOINT.supernet, CHECKPOINT.supernet.space.full(), head=1)
    with pytest.raises(ParityError, match="differs"):
        check_parity(encoder, recognizer(other), CLIPS)


@pytest.mark.filterwarnings("ignore:__array_wrap__", "ignore:Setting snip_edges=True")
@pytest.mark.parametrize(
    "setting",
    [
        {"preemph_coeff": 0.0},
        {"window_type": "hanning"},
        {"low_freq": 0.0},
        {"high_freq": 0.0},
        {"remove_dc_offset": False, "use_fft_mag": True},
        {"snip_edges": True},
    ],
    ids=lambda setting: "-".join(setting),
)
def test_a_wrong_feature_setting_fails(encoder: DenseEncoder, setting: dict) -> None:
    right = {
        "sampling_rate": 16000, "snip_edges": False, "dither": 0.0, "low_freq": 20.0,
        "high_freq": -400.0, "num_filters": 80,
    }  # fmt: skip
    layer = Wav2LogFilterBank(**{**right, **setting})

    def features(samples: np.ndarray) -> Tensor:
        return layer(torch.from_numpy(samples)[None])[0]

    with pytest.raises(ParityError):
        check_parity(encoder, recognizer(encoder, features=features), CLIPS)


def test_a_forgotten_mask_fails_in_the_padded_batch(encoder: DenseEncoder) -> None:
    def unmasked(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        log_probs, _ = encoder(features, torch.full_like(lengths, features.shape[1]))
        return log_probs, (lengths + 3) // 4

    with pytest.raises(ParityError, match="padded batch"):
        check_parity(encoder, recognizer(unmasked), CLIPS)


def test_wrong_output_lengths_fail(encoder: DenseEncoder) -> None:
    def floored(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return encoder(features, lengths)[0], lengths // 4

    with pytest.raises(ParityError, match="lengths"):
        check_parity(encoder, recognizer(floored), CLIPS)


def test_not_a_number_fails(encoder: DenseEncoder) -> None:
    def broken(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        log_probs, lengths = encoder(features, lengths)
        return torch.full_like(log_probs, float("nan")), lengths

    with pytest.raises(ParityError, match="differs by nan"):
        check_parity(encoder, recognizer(broken), CLIPS)


def test_a_tie_is_counted_and_not_refused(encoder: DenseEncoder) -> None:
    limit = 1e-3
    stand_in = copy.copy(encoder)
    stand_in.forward = tied(encoder, 0.4 * limit)
    parity = check_parity(stand_in, recognizer(tied(encoder, -0.4 * limit)), CLIPS, limit=limit)
    assert parity.same_transcripts == 0
    assert 0.7 * limit < parity.max_abs_error <= limit
    assert check_parity(encoder, recognizer(encoder), CLIPS).same_transcripts == len(CLIPS)


def test_other_symbols_by_more_than_the_limit_fail(encoder: DenseEncoder) -> None:
    def swapped(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        log_probs, out_lengths = encoder(features, lengths)
        return log_probs[:, :, [0, 2, 1, *range(3, log_probs.shape[2])]], out_lengths

    with pytest.raises(ParityError, match="differs by"):
        check_parity(encoder, recognizer(swapped), CLIPS)


def test_a_network_that_float32_rounds_more_is_held_to_what_torch_itself_is_off_by(
    encoder: DenseEncoder,
) -> None:
    exact = copy.deepcopy(encoder).double()

    def off_by(times: float) -> Recognizer:
        """As far from float64 as torch's float32 is, so many times."""

        def shifted(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
            rounded, out_lengths = encoder(features, lengths)
            truth = exact(features.double(), lengths)[0]
            return (truth + times * (rounded - truth)).float(), out_lengths

        return recognizer(shifted)

    # The limit stands for that of a network whose rounding is above it.
    parity = check_parity(encoder, off_by(-3.0), CLIPS, limit=1e-9)
    assert parity.limit > 1e-9
    assert parity.max_abs_error <= parity.limit
    assert check_parity(encoder, off_by(-3.0), CLIPS).limit == 1e-4, "the usual case"
    with pytest.raises(ParityError, match="differs by"):
        check_parity(encoder, off_by(-9.0), CLIPS, limit=1e-9)


def test_clips_reach_the_bounds_and_all_remainders() -> None:
    clips = parity_clips(bursts(2.0), 9, 700)
    frames = {num_frames(len(clip)) for clip in clips.values()}
    assert min(frames) == 9
    assert max(frames) == 700
    assert {length % 4 for length in frames} == {0, 1, 2, 3}
    assert all(len(fbank(clip)) == num_frames(len(clip)) for clip in clips.values())
    assert any(name.startswith("speech") for name in clips)
    assert clips["sample"].shape == bursts(2.0).shape


def test_clips_without_a_sample_are_noise() -> None:
    clips = parity_clips(None, 9, 60)
    assert {num_frames(len(clip)) for clip in clips.values()} == {9, 10, 11, 12, 59, 60}
    assert all(np.isfinite(clip).all() and np.abs(clip).max() < 1 for clip in clips.values())


def test_a_sample_beyond_the_bounds_is_cut() -> None:
    clips = parity_clips(bursts(2.0), 9, 60)
    assert max(num_frames(len(clip)) for clip in clips.values()) == 60
    assert "speech-60" in clips


@pytest.mark.data
@pytest.mark.export
def test_real_speech(exported: Exported, data_root: Path) -> None:
    recordings = [
        *sorted((data_root / "fsdd").rglob("*.flac"))[::500],
        *sorted((data_root / "speechocean762").rglob("*.opus"))[::1500],
    ]
    clips = {path.name: load_audio(path) for path in recordings}
    assert len(clips) > 5
    for file in (exported.program, exported.model):
        parity = check_parity(exported.encoder, load_artefact(file), clips)
        assert parity.max_abs_error < parity.limit / 2
