"""Composed digit strings hold exactly the samples that numpy would concatenate."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, MonoCut
from lhotse.cut import Cut, MixedCut

from ortho_edge.data import corpora
from ortho_edge.data.digit_strings import digit_strings
from ortho_edge.data.waveforms import WaveformCache, each_cut, load_cut
from tests.data.generated import speech_like

WORDS = ("ZERO", "ONE", "TWO")


@pytest.fixture
def isolated(tmp_path: Path) -> CutSet:
    """Three digits, two takes, two speakers at 8 kHz, with lengths in odd numbers of samples."""
    (tmp_path / "audio").mkdir()
    lines = ["utterance\tspeaker\tseconds\ttext"]
    for s, speaker in enumerate(("ann", "bob")):
        for w, word in enumerate(WORDS):
            for take in range(2):
                name = f"{w}_{speaker}_{take}"
                samples = speech_like(0.2531 + 0.0317 * (s + w + take), 8000, seed=s + 2 * w)
                soundfile.write(tmp_path / "audio" / f"{name}.flac", samples, 8000)
                lines.append(f"{name}\t{speaker}\t1\t{word}")
    (tmp_path / "transcripts.tsv").write_text("\n".join(lines) + "\n")
    return corpora.synthetic(tmp_path)


def compose(isolated: CutSet, seed: int = 3, **changes) -> list[MixedCut]:
    settings = {"num_strings": 20, "min_digits": 2, "max_digits": 5, "pauses": (0.02, 0.3)}
    strings = each_cut(digit_strings(isolated, seed=seed, **(settings | changes)))
    return [cut for cut in strings if isinstance(cut, MixedCut)]


def source(cut: Cut) -> Path:
    assert isinstance(cut, MonoCut)
    assert cut.recording is not None
    return Path(str(cut.recording.sources[0].source))


def text(cut: Cut) -> str:
    return cut.supervisions[0].text or ""


def concatenated(string: MixedCut) -> np.ndarray:
    """The string's samples by whole files and zeros only."""
    parts, position = [], 0
    for track in string.tracks[1:]:
        samples, _ = soundfile.read(source(track.cut), dtype="float32")
        start = round(track.offset * 8000)
        parts += [np.zeros(start - position, np.float32), samples]
        position = start + len(samples)
    total = round(string.duration * 8000)
    return np.concatenate([*parts, np.zeros(total - position, np.float32)])


def lhotse_samples(string: MixedCut) -> np.ndarray:
    """The string's samples as lhotse mixes them."""
    audio = string.load_audio()
    assert audio is not None
    return audio[0]


def test_samples_are_those_of_a_plain_concatenation(isolated: CutSet) -> None:
    for string in compose(isolated):
        expected = concatenated(string)
        assert np.array_equal(lhotse_samples(string), expected)
        # What goes into training is the same, resampled once as a whole.
        resampled = load_cut(string)
        assert abs(len(resampled) - 2 * len(expected)) <= 1
        assert np.abs(resampled[::2][: len(expected)] - expected).max() < 0.05


def test_words_speaker_pauses_and_margins_are_as_asked(isolated: CutSet) -> None:
    lengths, gaps, margins = set(), [], []
    for string in compose(isolated, num_strings=60, margins=(0.05, 0.1)):
        digits = [track.cut for track in string.tracks[1:]]
        assert len(string.supervisions) == 1
        supervision = string.supervisions[0]
        speaker = {source(d).stem.split("_")[1] for d in digits}
        words = [WORDS[int(source(d).stem[0])] for d in digits]
        assert speaker == {supervision.speaker}
        assert supervision.text == " ".join(words)
        starts = [track.offset for track in string.tracks[1:]]
        ends = [track.offset + track.cut.duration for track in string.tracks[1:]]
        assert supervision.start == pytest.approx(starts[0])
        assert supervision.end == pytest.approx(ends[-1])
        gaps += [start - end for start, end in zip(starts[1:], ends[:-1], strict=True)]
        margins += [starts[0], string.duration - ends[-1]]
        lengths.add(len(words))
    assert lengths == {2, 3, 4, 5}
    assert 0.0199 < min(gaps) < 0.05
    assert 0.25 < max(gaps) < 0.3001
    assert min(margins) > 0.0499
    assert max(margins) < 0.1001


def test_silences_are_exact_to_the_sample(isolated: CutSet) -> None:
    for string in compose(isolated, pauses=(0.1, 0.1), margins=(0.05, 0.05)):
        end = 0
        for number, track in enumerate(string.tracks[1:]):
            assert round(track.offset * 8000) - end == (800 if number else 400)
            end = round((track.offset + track.cut.duration) * 8000)
        assert round(string.duration * 8000) - end == 400


def test_the_seed_alone_decides(isolated: CutSet) -> None:
    one, same, other = [
        [cut.to_dict() for cut in compose(isolated, seed=seed)] for seed in (3, 3, 4)
    ]
    assert one == same
    assert [c["tracks"] for c in one] != [c["tracks"] for c in other]
    assert len({cut["id"] for cut in [*one, *other]}) == 40


def test_every_speaker_and_word_is_used(isolated: CutSet) -> None:
    strings = compose(isolated, num_strings=40)
    assert {s.supervisions[0].speaker for s in strings} == {"ann", "bob"}
    assert {w for s in strings for w in text(s).split()} == set(WORDS)
    sources = {source(t.cut) for s in strings for t in s.tracks[1:]}
    assert len(sources) == 12


def test_a_cache_gives_the_same_string_to_16_bits(isolated: CutSet) -> None:
    cache = WaveformCache()
    for string in compose(isolated):
        assert np.abs(load_cut(string, cache) - load_cut(string)).max() < 3 / 32767
    assert len(cache) == 12


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_digits": 0},
        {"min_digits": 6},
        {"pauses": (0.3, 0.1)},
        {"margins": (-0.1, 0.1)},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(isolated: CutSet, wrong: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        compose(isolated, **wrong)


def test_strings_are_made_of_isolated_digits_of_one_rate_only(
    isolated: CutSet, corpus: CutSet
) -> None:
    with pytest.raises(ValueError, match="isolated"):
        compose(CutSet.from_cuts(compose(isolated)))
    mixed = CutSet.from_cuts([*each_cut(isolated), *each_cut(corpus)])
    with pytest.raises(ValueError, match="one sampling rate"):
        compose(mixed)
    with pytest.raises(ValueError, match="sampling rate"):
        compose(CutSet.from_cuts([]))


@pytest.mark.data
def test_real_digits_compose(data_root: Path) -> None:
    theo = corpora.fsdd(data_root, speakers=["theo"], takes=range(5))
    for string in compose(theo, num_strings=5, min_digits=3, max_digits=8):
        assert np.array_equal(lhotse_samples(string), concatenated(string))
