"""Words heard in sounds, counted against encoders that say the same whatever they hear."""

import pytest
import torch
from torch import Tensor

from ortho_edge.checkpoint import load_checkpoint, shipped_checkpoint
from ortho_edge.compaction import compact
from ortho_edge.data.sounds import SOUNDS, TRAINED
from ortho_edge.tokens import character_tokens
from ortho_edge.training.insertions import inserted_words_per_minute

TOKENS = character_tokens(["ONE"])


def saying(word: str | None, seconds_a_word: float = 0.4) -> Tensor:
    """What a frame of 40 ms says, over and over: the word, then blanks up to its length."""
    ids = TOKENS.encode(word) if word else []
    frames = round(seconds_a_word / 0.04)
    return torch.tensor(ids + [0] * (frames - len(ids)))


def encoder(said: Tensor):
    def encode(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        lengths = (lengths + 3) // 4
        frames = int(lengths.max())
        ids = said.repeat(frames // len(said) + 1)[:frames].expand(len(lengths), -1)
        return torch.nn.functional.one_hot(ids, len(TOKENS)).float(), lengths

    return encode


@pytest.mark.parametrize("size", ["s100", "s015"])
def test_what_ships_hears_next_to_nothing_in_silence_noise_hum_and_tones(size: str) -> None:
    checkpoint = load_checkpoint(shipped_checkpoint())
    trained = checkpoint.subnet(size)
    dense = compact(checkpoint.supernet, trained.subnet, trained.head)
    (rates,) = inserted_words_per_minute({size: dense}, checkpoint.tokens).values()
    # At most one word in the minute of each kind, where there were 12 to 84.
    assert {kind: rate for kind, rate in rates.items() if kind in TRAINED and rate > 1.5} == {}


def test_words_in_every_kind_of_sound_are_counted_per_minute() -> None:
    rates = inserted_words_per_minute(
        {"talks": encoder(saying("ONE")), "is silent": encoder(saying(None))}, TOKENS
    )
    assert set(rates["talks"]) == set(SOUNDS)
    # 60 s / 0.4 s, but for the word that the end of a clip cuts off.
    assert all(rate == pytest.approx(150, rel=0.08) for rate in rates["talks"].values())
    assert set(rates["is silent"].values()) == {0.0}
