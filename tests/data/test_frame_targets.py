"""Frame targets must lie where the words are heard, also after the audio was stretched."""

from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, MonoCut, SupervisionSegment
from lhotse.audio import Recording

from ortho_edge.data.alignment import UNKNOWN, frame_targets, loud_stretch, spread_evenly
from ortho_edge.data.augmentation import Augmentation
from ortho_edge.data.dataset import evaluation_batches, training_batches
from ortho_edge.data.digit_strings import digit_strings
from ortho_edge.tokens import character_tokens

TONES = {"LOW": 300.0, "HIGH": 2000.0}
TOKENS = character_tokens(["LOW", "HIGH"])


@pytest.fixture(scope="module")
def strings(tmp_path_factory: pytest.TempPathFactory) -> CutSet:
    """Strings of tones of half a second, with pauses."""
    folder = tmp_path_factory.mktemp("tones")
    cuts = []
    for word, frequency in TONES.items():
        path = Path(folder / f"{word}.wav")
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * frequency * np.arange(8000) / 16000), 16000)
        supervision = SupervisionSegment(word, word, 0.0, 0.5, text=word, speaker="tone")
        recording = Recording.from_file(path, recording_id=word)
        cuts.append(MonoCut(word, 0.0, 0.5, 0, recording=recording, supervisions=[supervision]))
    isolated = CutSet.from_cuts(cuts)
    return digit_strings(
        isolated, num_strings=12, min_digits=2, max_digits=4, seed=3, pauses=(0.2, 0.4)
    )


@pytest.mark.parametrize(
    ("speed", "silence"),
    [((1.0, 1.0), 0.0), ((0.8, 0.8), 0.0), ((1.25, 1.25), 0.0), ((1.1, 1.1), 1.0)],
)
def test_targets_lie_where_the_tone_is_heard(
    strings: CutSet, speed: tuple[float, float], silence: float
) -> None:
    augmentation = replace(
        Augmentation.none(), speed_probability=1.0, speed=speed, silence_probability=silence
    )
    seen = set()
    for batch in training_batches(
        strings, tokens=TOKENS, augmentation=augmentation, max_duration=20.0, seed=0, epoch=0
    ):
        for row, length, targets in zip(
            batch.features, batch.feature_lengths, batch.frame_targets, strict=True
        ):
            steps = (int(length) + 3) // 4
            assert targets[steps:].eq(UNKNOWN).all()
            seen |= set(targets.unique().tolist())
            for step in range(steps):
                # The tones lie on both sides of bin 28; silence is near the logarithm's floor.
                frames = row[4 * step : min(4 * step + 4, int(length))]
                low, high = frames[:, :28].max(), frames[:, 28:].max()
                if targets[step] > 0:
                    word = "LOW" if low > high else "HIGH"
                    assert max(low, high) > 0
                    assert TOKENS.symbols[int(targets[step])].endswith(word)
                elif targets[step] == 0 and targets[max(step - 1, 0) : step + 2].eq(0).all():
                    assert max(low, high) < -5
    assert seen == {UNKNOWN, 0, 1, 2}


def test_words_of_several_symbols_and_unaligned_cuts_stay_unknown(strings: CutSet) -> None:
    spelled = character_tokens(characters="LOWHIG")
    batches = training_batches(
        strings, tokens=spelled, augmentation=Augmentation.none(), max_duration=20.0, seed=0,
        epoch=0,
    )  # fmt: skip
    for batch in batches:
        assert set(batch.frame_targets.unique().tolist()) == {UNKNOWN, 0}
    for batch in evaluation_batches(strings, tokens=TOKENS, max_duration=20.0):
        assert torch.equal(batch.frame_targets, torch.full_like(batch.frame_targets, UNKNOWN))


def test_characters_share_the_loud_part_evenly(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    samples = 1e-3 * np.random.default_rng(0).standard_normal(32000)
    samples[8000:24000] += 0.3 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    soundfile.write(path, samples, 16000)
    supervision = SupervisionSegment("a", "a", 0.0, 2.0, text="AB C")
    recording = Recording.from_file(path, recording_id="a")
    cut = MonoCut("a", 0.0, 2.0, 0, recording=recording, supervisions=[supervision])
    tokens = character_tokens(characters="ABC")
    spread = spread_evenly(cut, samples.astype(np.float32), tokens)
    targets = frame_targets(spread, tokens, 50).tolist()
    # Five symbols in the second from 0.5 s on, of five frames each; the middle half is known.
    assert targets[:12] == [0] * 12
    assert targets[38:] == [0] * 12
    known = [one for one in targets[12:38] if one not in (0, UNKNOWN)]
    assert [one for one, _ in groupby(known)] == tokens.encode("AB C")
    assert spread_evenly(cut.with_id("b"), samples, character_tokens(["AB"])).id == "b"


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros(100), np.zeros(16000)])
def test_silence_is_loud_throughout(samples: np.ndarray) -> None:
    assert loud_stretch(samples.astype(np.float32)) == (0.0, len(samples) / 16000)
