"""Speech for fixed scales: real, of several lengths, within the bounds, or one clear line."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ortho_edge.cli import UserError
from ortho_edge.data.audio import SAMPLE_RATE
from ortho_edge.data.features import fbank
from ortho_edge.training.corpora import DataOptions
from ortho_edge.training.speech_sets import speech_set
from ortho_export.calibration import UTTERANCES, calibration_features
from tests.export.tiny import bursts, tiny_checkpoint

TOKENS = tiny_checkpoint().tokens


def test_a_clip_is_used_whole_and_in_parts() -> None:
    clip = bursts(2.35)
    found = calibration_features(clip, None, TOKENS, 9, 3000)
    assert found[0].equal(fbank(clip)[None])
    assert sorted({one.shape[1] for one in found}) == [78, 118, 235]
    assert all(one.shape[::2] == (1, 80) for one in found)


def test_lengths_stay_within_the_bounds() -> None:
    found = calibration_features(bursts(2.35), None, TOKENS, 100, 200)
    assert sorted({one.shape[1] for one in found}) == [118, 200]


def test_labelled_speech_is_taken_evenly_and_comes_before_the_clip(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    rows, clips = ["utterance\tspeaker\ttext"], []
    for index in range(2 * UTTERANCES + 1):
        clips.append(bursts(0.2 + 0.01 * index, index))
        soundfile.write(tmp_path / "audio" / f"{index:02}.flac", clips[-1], SAMPLE_RATE)
        rows.append(f"{index:02}\tme\tONE")
    (tmp_path / "transcripts.tsv").write_text("\n".join(rows) + "\n", "utf-8")
    cuts = speech_set(str(tmp_path), DataOptions())
    found = calibration_features(bursts(2.0), cuts, TOKENS, 9, 3000)
    assert {one.shape[1] for one in found} == {20 + 2 * index for index in range(UTTERANCES)}
    shortest = min(found, key=lambda one: one.shape[1])
    # The file holds 16 bits.
    torch.testing.assert_close(shortest[0], fbank(clips[0]), rtol=0, atol=0.2)


@pytest.mark.parametrize("sample", [None, np.zeros(1000, np.float32), np.zeros(10, np.float32)])
def test_no_speech_is_said_in_one_line(sample: np.ndarray | None) -> None:
    with pytest.raises(UserError, match=r"taken from speech.* of at least 9 frames.*--dev-set"):
        calibration_features(sample, None, TOKENS, 9, 3000)
