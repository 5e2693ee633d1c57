"""A table and its audio files become cuts, however the files are named and laid out."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import MonoCut

from ortho_edge.cli import UserError
from ortho_edge.data.audio import AudioError, load_audio
from ortho_edge.data.recordings import UNKNOWN_SECONDS, transcribed_cuts, unreadable_because
from ortho_edge.data.waveforms import load_cut
from tests.data.generated import speech_like


def corpus(folder: Path, table: str, *files: str, name: str = "transcripts.tsv") -> Path:
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "OGG" if path.suffix == ".opus" else path.suffix[1:].upper()
        subtype = "OPUS" if path.suffix == ".opus" else None
        soundfile.write(path, speech_like(0.5, 16000, 3), 16000, format=kind, subtype=subtype)
    (folder / name).write_text(table, "utf-8")
    return folder


def source(cut: MonoCut) -> str:
    assert cut.recording is not None
    return str(cut.recording.sources[0].source)


@pytest.mark.parametrize("suffix", ["wav", "flac", "opus", "ogg", "mp3", "aiff", "WAV"])
def test_an_utterance_is_found_in_any_format(tmp_path: Path, suffix: str) -> None:
    folder = corpus(tmp_path, "utterance\ttext\nu.1\tONE\n", f"audio/u.1.{suffix}")
    (cut,) = transcribed_cuts(folder)
    assert (cut.id, cut.supervisions[0].text) == ("u.1", "ONE")
    assert np.array_equal(load_cut(cut), load_audio(folder / "audio" / f"u.1.{suffix}"))


@pytest.mark.parametrize(
    ("stated", "file"),
    [
        ("clips/a.wav", "clips/a.wav"),
        ("clips/a.wav", "audio/clips/a.wav"),
        ("a", "a.flac"),
        ("a.mp3", "audio/a.mp3"),
    ],
)
def test_a_path_is_looked_for_from_the_table_and_from_audio(
    tmp_path: Path, stated: str, file: str
) -> None:
    folder = corpus(tmp_path, f"Path,Sentence\n{stated},ONE\n", file, name="transcripts.csv")
    for at in (folder, folder / "transcripts.csv"):
        (cut,) = transcribed_cuts(at)
        assert source(cut) == str(folder / file)
        assert cut.id == stated.rpartition(".")[0] or cut.id == stated


def test_lossless_goes_before_lossy_and_other_files_are_no_audio(tmp_path: Path) -> None:
    folder = corpus(tmp_path, "id\ttext\nu1\tONE\n", "audio/u1.mp3", "audio/u1.wav")
    (folder / "audio" / "u1.flac.txt").write_text("no audio")
    (folder / "audio" / "u1.json").write_text("{}")
    (cut,) = transcribed_cuts(folder)
    assert source(cut).endswith("u1.wav")


def test_composed_and_decomposed_accents_are_one_name(tmp_path: Path) -> None:
    name = "caf\u00e9"
    folder = corpus(
        tmp_path, f"id\ttext\n{name}\tONE\n", f"audio/{unicodedata.normalize('NFD', name)}.wav"
    )
    (cut,) = transcribed_cuts(folder)
    assert cut.id == name


def test_only_a_name_and_a_text_are_required(tmp_path: Path) -> None:
    folder = corpus(tmp_path, "id\ttext\tage\nu1\tONE\t\nu2\tTWO\t7\n", "audio/u1.wav", "u2.wav")
    first, second = transcribed_cuts(folder)
    assert first.supervisions[0].speaker is None
    assert first.custom is None
    assert second.custom == {"age": 7}


def test_channels_of_a_cut_follow_the_rule_of_files(tmp_path: Path) -> None:
    folder = corpus(tmp_path, "id\ttext\nu1\tONE\n", "audio/u1.wav")
    speech = speech_like(0.5, 16000, 3)
    both = np.stack([0 * speech, speech, 0.1 * speech], axis=1)
    soundfile.write(folder / "audio" / "u1.wav", both, 16000, "FLOAT")
    (cut,) = transcribed_cuts(folder)
    assert np.array_equal(load_cut(cut), speech)


def unreadable_corpus(folder: Path) -> Path:
    rows = ["good\t0.5", "gone\t1.25", "empty\t", "cut\t3.5", "m4a\tx"]
    table = "id\tseconds\ttext\n" + "".join(f"{row}\tONE\n" for row in rows)
    corpus(folder, table, "audio/good.wav", "audio/cut.wav")
    audio = folder / "audio"
    (audio / "cut.wav").write_bytes((audio / "cut.wav").read_bytes()[:9000])
    (audio / "empty.wav").touch()
    (audio / "m4a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    return folder


def test_what_cannot_be_read_is_left_out_or_kept_with_its_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = unreadable_corpus(tmp_path)
    assert [cut.id for cut in transcribed_cuts(folder)] == ["good"]
    (line,) = (one.getMessage() for one in caplog.records if one.levelname == "WARNING")
    assert "left out gone, empty, cut, m4a; 1 utterances" in line
    assert line.endswith("skipped: 1 empty, 1 missing, 1 truncated, 1 unreadable")
    kept = transcribed_cuts(folder, keep_unreadable=True)
    assert [cut.id for cut in kept] == ["good", "gone", "empty", "cut", "m4a"]
    reasons = [error and error.reason for error in map(unreadable_because, kept)]
    assert reasons == [None, "missing", "empty", "truncated", "unreadable"]
    assert [cut.duration for cut in kept[1:]] == [1.25, 1.0, 3.5, 1.0]
    assert [bool((cut.custom or {}).get(UNKNOWN_SECONDS)) for cut in kept] == [
        False, False, True, False, True,
    ]  # fmt: skip
    for cut, reason in zip(kept[1:], reasons[1:], strict=True):
        with pytest.raises(AudioError) as caught:
            load_cut(cut)
        assert caught.value.reason == reason


def test_a_table_without_any_readable_audio_is_one_line(tmp_path: Path) -> None:
    folder = corpus(tmp_path, "id\ttext\nu1\tONE\nu2\tONE\n")
    with pytest.raises(UserError, match=r"no audio of 2 utterances can be read: .*u1"):
        transcribed_cuts(folder)


@pytest.mark.parametrize("name", ["a" * 300, "../" * 200 + "a", "a/" * 3000 + "b", "\u0007", "."])
def test_a_name_that_no_system_has_is_a_missing_file(tmp_path: Path, name: str) -> None:
    folder = corpus(tmp_path, f"id\ttext\nu1\tONE\n{name}\tTWO\n", "audio/u1.wav")
    assert [cut.id for cut in transcribed_cuts(folder)] == ["u1"]


@pytest.mark.parametrize(
    ("table", "part"),
    [
        ("id\ttext\nu1\tONE\nu1\tONE\n", "line 3: utterance 'u1' stands in line 2 already"),
        ("id\ttext\n\tONE\n", "line 2: the utterance has no name"),
        ("id\ttext\tage\nu1\tONE\tsix\n", "line 2: age is 'six', no whole number"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, table: str, part: str) -> None:
    folder = corpus(tmp_path, table, "audio/u1.wav")
    with pytest.raises(UserError, match=part):
        transcribed_cuts(folder)
