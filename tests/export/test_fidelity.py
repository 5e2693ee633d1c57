"""What a quantised artefact may lose: noise and words, of many utterances and never of one."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from ortho_edge.compaction import compact
from ortho_edge.data.features import fbank
from ortho_export.artefact import Encoder, Recognizer
from ortho_export.fidelity import FLOORS_DB, check_fidelity
from ortho_export.parity import ParityError
from ortho_export.words import describe_words, word_agreement
from tests.export.tiny import bursts, tied, tiny_checkpoint

CHECKPOINT = tiny_checkpoint()
ENCODER = compact(CHECKPOINT.supernet, CHECKPOINT.supernet.space.full())
RIGHT = Recognizer(name="stand-in", subnet="s100", tokens=CHECKPOINT.tokens, encoder=ENCODER)


def damaged(recognizer: Recognizer, noise: float) -> Recognizer:
    generator = torch.Generator().manual_seed(1)

    def encoder(x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        log_probs, out_lengths = recognizer.encoder(x, lengths)
        return log_probs + noise * torch.randn(log_probs.shape, generator=generator), out_lengths

    return dataclasses.replace(recognizer, encoder=encoder)


def test_too_much_noise_is_no_longer_int8() -> None:
    clips = {"speech-1": bursts(1.0), "speech-2": bursts(1.3, seed=2)}
    power = np.concatenate([RIGHT.log_probs(fbank(clip)) for clip in clips.values()])
    power = float(np.sqrt(((power - power.mean(-1, keepdims=True)) ** 2).mean()))
    for snr_db in (FLOORS_DB["int8"] - 1, FLOORS_DB["int8"] + 1):
        noisy = damaged(RIGHT, power * 10 ** (-snr_db / 20))
        if snr_db < FLOORS_DB["int8"]:
            with pytest.raises(ParityError, match=r"dB .* less than the 30 dB that int8 must keep"):
                check_fidelity(ENCODER, noisy, clips, "int8")
        else:
            fidelity = check_fidelity(ENCODER, noisy, clips, "int8")
            assert fidelity.snr_db == pytest.approx(snr_db, abs=0.5)
            assert fidelity.words is not None


def with_another_symbol(recognizer: Recognizer, samples: np.ndarray) -> Recognizer:
    """One that is less sure of the best symbol of a frame, and says another word."""
    log_probs = recognizer.log_probs(recognizer.features(samples))
    top = np.sort(log_probs, -1)[:, -2:]

    def encoder_of(row: int) -> Encoder:
        def encoder(x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found, out_lengths = recognizer.encoder(x, lengths)
            if found.shape[1] > row:
                found[0, row, found[0, row].argmax()] -= float(top[row, 1] - top[row, 0]) + 1e-3
            return found, out_lengths

        return encoder

    nearest = (top[:, 1] - top[:, 0]).argsort().tolist()
    swapped = (dataclasses.replace(recognizer, encoder=encoder_of(row)) for row in nearest)
    right = recognizer.transcribe(samples)
    return next(one for one in swapped if one.transcribe(samples) != right)


def test_one_other_symbol_in_the_sample_is_told_and_not_refused() -> None:
    clips = {"sample": bursts(2.35)}
    swapped = with_another_symbol(RIGHT, clips["sample"])
    fidelity = check_fidelity(ENCODER, swapped, clips, "int8")
    assert fidelity.words is not None
    assert fidelity.words.low < fidelity.words.same < 1
    assert fidelity.words.utterances == 25


def test_many_other_words_are_refused_though_the_signal_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reference = copy.copy(ENCODER)
    monkeypatch.setattr(reference, "forward", tied(ENCODER, 1e-3))
    swapped = dataclasses.replace(RIGHT, encoder=tied(ENCODER, -1e-3))
    message = r"% of \d+ words of the sample clip .* less than the 80 % that int8 must keep"
    with pytest.raises(ParityError, match=message):
        check_fidelity(reference, swapped, {"sample": bursts(2.35)}, "int8")
    few = check_fidelity(reference, swapped, {"speech-1": bursts(0.5)}, "int8")
    assert few.words is not None
    assert few.words.same < 0.8, "but so few prove nothing"


def test_words_of_labelled_speech_count_instead_of_the_samples() -> None:
    known = word_agreement([("ONE TWO", "ONE")] * 40, "mine")
    with pytest.raises(ParityError, match=r"50.0 % of 80 words of mine"):
        check_fidelity(ENCODER, RIGHT, {"noise-1": bursts(0.5)}, "int8", known)


def test_without_speech_no_words_are_compared() -> None:
    fidelity = check_fidelity(ENCODER, RIGHT, {"noise-1": bursts(0.5)}, "int8")
    assert fidelity.words is None
    assert "the checkpoint carries no speech" in describe_words(fidelity.words)


def test_not_a_number_is_no_agreement() -> None:
    broken = damaged(RIGHT, float("nan"))
    with pytest.raises(ParityError, match="nan dB"):
        check_fidelity(ENCODER, broken, {"noise-1": bursts(0.5)}, "int8")
