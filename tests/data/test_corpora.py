"""Folders of recordings become cuts; what cannot be read is counted."""

import logging
from pathlib import Path

import pytest
import soundfile
from lhotse import CutSet, MonoCut

from ortho_edge.cli import UserError
from ortho_edge.data import corpora
from ortho_edge.data.corpora import DATA_ROOT_VARIABLE
from ortho_edge.data.waveforms import each_cut, load_cut
from tests.data.generated import TEXTS, speech_like


def test_cuts_tell_what_the_files_hold_not_what_the_table_says(corpus: CutSet) -> None:
    cuts = list(each_cut(corpus))
    assert [cut.id for cut in cuts] == [f"u{i}" for i in range(12)]
    assert [cut.supervisions[0].text for cut in cuts] == list(TEXTS)
    assert [cut.supervisions[0].speaker for cut in cuts[:4]] == [
        "speaker0", "speaker1", "speaker2", "speaker0",
    ]  # fmt: skip
    for index, cut in enumerate(cuts):
        assert cut.duration == pytest.approx(0.6 + 0.2 * index)
        # lhotse's own reader must agree with the manifest, too.
        assert cut.load_audio().shape == (1, len(load_cut(cut)))


def test_unusable_files_are_left_out_and_counted_once(
    corpus_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    audio = corpus_folder / "audio"
    (audio / "u0.flac").unlink()
    (audio / "u1.flac").write_bytes(b"")
    (audio / "u2.flac").write_text("no audio")
    (audio / "u3.flac").unlink()
    with caplog.at_level(logging.INFO):
        cuts = corpora.synthetic(corpus_folder)
    assert len(cuts) == 8
    messages = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(messages) == 1
    assert messages[0].endswith("8 utterances, skipped: 1 empty, 2 missing, 1 unreadable")


def fsdd_folder(root: Path) -> Path:
    (root / "fsdd" / "audio").mkdir(parents=True)
    lines = ["utterance\tspeaker\ttake\tseconds\ttext"]
    for speaker in ("ann", "bob"):
        for digit, word in enumerate(("ZERO", "ONE")):
            for take in range(3):
                name = f"{digit}_{speaker}_{take}"
                samples = speech_like(0.3, 8000, seed=take)
                soundfile.write(root / "fsdd" / "audio" / f"{name}.flac", samples, 8000)
                lines.append(f"{name}\t{speaker}\t{take}\t0.3\t{word}")
    (root / "fsdd" / "transcripts.tsv").write_text("\n".join(lines) + "\n")
    return root


def test_fsdd_selects_speakers_and_takes_at_the_native_rate(tmp_path: Path) -> None:
    cuts = list(each_cut(corpora.fsdd(fsdd_folder(tmp_path), speakers=["bob"], takes=range(1, 3))))
    assert [cut.id for cut in cuts] == ["0_bob_1", "0_bob_2", "1_bob_1", "1_bob_2"]
    assert {cut.sampling_rate for cut in cuts} == {8000}
    assert len(corpora.fsdd(tmp_path)) == 12
    with pytest.raises(UserError, match="unknown speaker 'cat' of fsdd; known: ann, bob"):
        corpora.fsdd(tmp_path, speakers=["ann", "cat"])


def test_the_data_folder_is_the_named_one_then_the_variable_then_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, variable, work = tmp_path / "a", tmp_path / "b", tmp_path / "c" / "work"
    for folder in (named, variable, work, tmp_path / "c" / "shared" / "data"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(variable))
    assert corpora.data_root(named) == named
    assert corpora.data_root() == variable
    monkeypatch.delenv(DATA_ROOT_VARIABLE)
    assert corpora.data_root().resolve() == tmp_path / "c" / "shared" / "data"


@pytest.mark.parametrize("by", ["argument", "variable", "default"])
def test_an_absent_data_folder_is_one_line_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(DATA_ROOT_VARIABLE, raising=False)
    if by == "variable":
        monkeypatch.setenv(DATA_ROOT_VARIABLE, "nowhere")
    expected = "shared/data" if by == "default" else "nowhere"
    with pytest.raises(UserError) as caught:
        corpora.data_root("nowhere" if by == "argument" else None)
    assert expected in str(caught.value)
    assert DATA_ROOT_VARIABLE in str(caught.value)


@pytest.mark.parametrize(
    "load",
    [
        corpora.fsdd,
        corpora.librivox,
        corpora.synthetic,
        lambda root: corpora.speechocean762(root, "dev"),
        lambda root: corpora.speechocean762(root, "devel"),
    ],
)
def test_an_absent_corpus_is_the_users_mistake(tmp_path: Path, load) -> None:
    with pytest.raises(UserError):
        load(tmp_path)


@pytest.mark.data
def test_real_corpora_have_the_documented_sizes(data_root: Path) -> None:
    dev = list(each_cut(corpora.speechocean762(data_root, "dev")))
    assert len(dev) == 240
    assert len({cut.supervisions[0].speaker for cut in dev}) == 12
    assert sum(cut.duration for cut in dev) / 60 == pytest.approx(17, abs=1)
    for cut in dev:
        assert isinstance(cut, MonoCut)
        assert isinstance(cut.age, int)
        assert cut.gender in {"m", "f"}
    assert len(corpora.librivox(data_root)) == 5
    digits = corpora.fsdd(data_root, takes=range(5))
    assert len(digits) == 250
    assert {cut.sampling_rate for cut in each_cut(digits)} == {8000}
