"""Kokoro's voices and blends: what is said, and a corpus that goes on after an interruption."""

from pathlib import Path

import numpy as np
import pytest

from ortho_edge.cli import UserError
from ortho_edge.data import kokoro
from ortho_edge.data.corpora import synthetic
from ortho_edge.data.waveforms import each_cut

NAMES = ("af_one", "af_two", "am_three", "bf_four", "bm_five")


@pytest.fixture
def voices(tmp_path: Path) -> Path:
    folder = tmp_path / "voices"
    folder.mkdir()
    for number, name in enumerate((*NAMES, "jf_six")):
        table = np.random.default_rng(number).standard_normal((510, 256), dtype=np.float32)
        table.tofile(folder / f"{name}.bin")
    return folder


class Stub:
    """Speaks a tone as long as what it reads; stops after `limit` utterances."""

    limit = 10**9
    said = 0

    def speak(self, utterance: kokoro.KokoroUtterance) -> np.ndarray:
        if type(self).said == type(self).limit:
            raise KeyboardInterrupt
        type(self).said += 1
        time = np.arange(800 * len(utterance.phonemes)) / 16_000
        return (utterance.peak * np.sin(2000 * time)).astype(np.float32)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> type[Stub]:
    monkeypatch.setattr(Stub, "said", 0)
    monkeypatch.setattr(Stub, "limit", 10**9)
    monkeypatch.setattr(kokoro, "Kokoro", Stub)
    return Stub


def test_only_english_voices_are_read(voices: Path) -> None:
    tables = kokoro.read_voices(voices)
    assert tuple(tables) == NAMES
    assert {table.shape for table in tables.values()} == {(510, 256)}


def test_what_a_voice_says_does_not_depend_on_how_many_there_are(voices: Path) -> None:
    tables = kokoro.read_voices(voices)
    few, many = list(kokoro.plan(tables, 6, 0)), list(kokoro.plan(tables, 9, 0))
    assert [one.name for one in few] == [one.name for one in many[: len(few)]]
    assert [one.speed for one in few] == [one.speed for one in many[: len(few)]]
    other = list(kokoro.plan(tables, 6, 1))
    assert [one.speed for one in few] != [one.speed for one in other]


def test_every_voice_says_every_digit_and_strings(voices: Path) -> None:
    said = list(kokoro.plan(kokoro.read_voices(voices), 8, 0))
    assert len({one.name for one in said}) == len(said)
    speakers = {one.speaker for one in said}
    assert len(speakers) == 8
    for speaker in speakers:
        digits = [one.digits for one in said if one.speaker == speaker]
        assert {one for one in digits if len(one) == 1} == set("0123456789")
        assert sum(3 <= len(one) <= 7 for one in digits) == kokoro.STRINGS
    assert said[0].text == "ZERO"


def test_blends_stay_within_their_accent_and_sum_to_one(voices: Path) -> None:
    tables = {name: np.full((3, 256), ord(name[0]), np.float32) for name in NAMES}
    for one in kokoro.plan(tables, 30, 0):
        # Weights that sum to 1 leave a constant alone.
        np.testing.assert_allclose(one.voice.style, ord(one.voice.accent), rtol=1e-5)


def test_an_interrupted_corpus_goes_on(voices: Path, tmp_path: Path, stub: type[Stub]) -> None:
    out = tmp_path / "corpus"
    stub.limit = 20
    with pytest.raises(KeyboardInterrupt):
        kokoro.synthesize_kokoro(out, voices=voices, number=2)
    assert not out.exists()
    stub.limit = 10**9
    kokoro.synthesize_kokoro(out, voices=voices, number=2)
    planned = list(kokoro.plan(kokoro.read_voices(voices), 2, 0))
    assert stub.said == len(planned)
    cuts = list(each_cut(synthetic(out)))
    assert [cut.supervisions[0].text for cut in cuts] == [one.text for one in planned]
    assert not list(tmp_path.glob(".*"))


def test_what_is_missing_is_named(voices: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no English voices of Kokoro in"):
        kokoro.read_voices(tmp_path)
    (voices / "af_short.bin").write_bytes(b"1234")
    with pytest.raises(UserError, match=r"af_short\.bin is no table of 256"):
        kokoro.read_voices(voices)
    with pytest.raises(UserError, match="exists already"):
        kokoro.synthesize_kokoro(voices, voices=voices, number=1)
