"""Unpacked corpora become prepared ones, also after an interruption, or one line says why not."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import soundfile

from ortho_edge.cli import UserError
from ortho_edge.data import archives, preparation
from ortho_edge.data.archives import tedlium_text
from ortho_edge.data.preparation import Preparation, PreparedCorpus, prepare
from ortho_edge.data.waveforms import each_cut, load_cut
from ortho_edge.lexicon import Lexicon, LexiconTokens
from tests.data import miniatures


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LibriSpeech, TED-LIUM and MUSAN side by side, and a lexicon."""
    folder = tmp_path_factory.mktemp("unpacked")
    miniatures.librispeech(folder)
    miniatures.tedlium2(folder)
    miniatures.musan(folder)
    (folder / "librispeech-lexicon.txt").write_text(miniatures.LEXICON)
    return folder


@pytest.fixture
def wanted(sources: Path, tmp_path: Path) -> Callable[..., Preparation]:
    """LibriSpeech in characters, with changes."""

    def make(**changes) -> Preparation:
        fields = {
            "corpus": "librispeech", "source": sources, "out": tmp_path / "out",
            "parts": miniatures.PARTS, "units": "characters",
        }  # fmt: skip
        return Preparation(**{**fields, **changes})

    return make


def test_every_utterance_of_librispeech_is_there_with_its_audio(
    wanted: Callable[..., Preparation], sources: Path
) -> None:
    facts = prepare(wanted())
    prepared = PreparedCorpus.find(wanted().out, "librispeech")
    for part, texts in miniatures.LIBRISPEECH_TEXTS.items():
        cuts = sorted(each_cut(prepared.cuts(part)), key=lambda cut: cut.id)
        assert sorted(cut.supervisions[0].text or "" for cut in cuts) == sorted(texts)
        assert facts.parts[part]["utterances"] == len(texts)
        seconds = sum(0.6 + 0.4 * len(text.split()) for text in texts)
        assert facts.parts[part]["hours"] == pytest.approx(seconds / 3600, abs=1e-4)
        for cut in cuts:
            speaker, chapter, _ = cut.id.split("-")
            assert cut.supervisions[0].speaker == speaker
            path = sources / "LibriSpeech" / part / speaker / chapter / f"{cut.id}.flac"
            assert (load_cut(cut) == soundfile.read(path, dtype="float32")[0]).all()
    trained = list(each_cut(prepared.training_cuts(3)))
    assert len({cut.id for cut in trained}) == len(trained) == 8
    written = (wanted().out / preparation.TEXT).read_text().splitlines()
    assert sorted(written) == sorted(cut.supervisions[0].text or "" for cut in trained)


def test_tedlium_segments_are_cut_out_of_their_talks_and_their_texts_are_plain_words(
    wanted: Callable[..., Preparation], sources: Path
) -> None:
    facts = prepare(wanted(corpus="tedlium2", parts=()))
    prepared = PreparedCorpus.find(wanted().out, "tedlium2")
    cuts = {cut.id: cut for cut in each_cut(prepared.training_cuts(0))}
    assert {name: cut.supervisions[0].text for name, cut in cuts.items()} == {
        "AlGore_2009-0": "THE CAT SAT",
        "AlGore_2009-2": "THEY'RE THE CAT'S HATS",
        "AlGore_2009-4": "THAT HAT SAT",
        "BillGates_2010-0": "A TEA",
        "BillGates_2010-1": "THE TEN HATS AT TEN",
    }
    # What was said at <unk> is in no text: left out of training, and a word less in a test.
    assert facts.parts["train"]["dropped"] == {"unknown word": 1}
    assert facts.parts["dev"] == {"utterances": 1, "hours": 0.0006, "dropped": {"no words": 1}}
    assert [cut.supervisions[0].text for cut in each_cut(prepared.cuts("dev"))] == ["THE CAT SAT"]
    talk, _ = soundfile.read(
        sources / "TEDLIUM_release2/train/sph/AlGore_2009.sph", dtype="float32"
    )
    assert (load_cut(cuts["AlGore_2009-2"]) == talk[48000:88000]).all()
    expected = miniatures.speech_like(9.5, 16000, seed=len("train"))
    assert np.abs(talk - expected).max() < 1e-4, "the test's sphere file holds what it should"


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("and so i 'd say it 's", "AND SO I'D SAY IT'S"),
        ("in the ' 60s", "IN THE '60S"),
        ("<sil> uh {SMACK} well(3) [NOISE]", "UH WELL"),
        ("<unk>", ""),
        ("don 't <unk> me", "DON'T ME"),
    ],
)
def test_tedlium_marks_are_no_words(raw: str, plain: str) -> None:
    assert tedlium_text(raw) == plain


def test_word_pieces_are_learned_from_training_transcripts_and_spell_all_of_them(
    wanted: Callable[..., Preparation],
) -> None:
    facts = prepare(wanted(units="bpe", num_pieces=24))
    assert facts.unspelled_utterances == 0
    tokens = PreparedCorpus.find(wanted().out, "librispeech").tokens
    processor = sentencepiece.SentencePieceProcessor(
        model_file=str(wanted().out / preparation.PIECES)
    )
    # Without sentencepiece's piece for the unknown, but with blank.
    assert len(tokens) == processor.get_piece_size() == 24
    for part in ("train-clean-100", "train-other-500"):
        for text in miniatures.LIBRISPEECH_TEXTS[part]:
            assert tokens.decode(tokens.encode(text)) == text


def test_phonemes_come_from_the_lexicon_and_words_without_are_listed(
    wanted: Callable[..., Preparation], sources: Path
) -> None:
    lexicon = sources / "librispeech-lexicon.txt"
    facts = prepare(wanted(units="phonemes", lexicon=lexicon))
    assert facts.unspelled_utterances == 1
    assert (wanted().out / preparation.UNSPELLED).read_text() == "word\tcount\nHATTER\t1\n"
    tokens = PreparedCorpus.find(wanted().out, "librispeech").tokens
    assert isinstance(tokens, LexiconTokens)
    phonemes = set(miniatures.LEXICON.split()) - set(Lexicon.load(lexicon).pronunciations)
    plain = {sound.rstrip("012") for sound in phonemes} | {"AH", "EY"}
    assert set(tokens.symbols[1:]) == plain | {f"{sound}#" for sound in plain}
    assert [tokens.symbols[index] for index in tokens.encode("A CAT")] == ["AH#", "K", "AE", "T#"]
    assert tokens.decode(tokens.encode("THE CAT WON TEA")) == "THE CAT ONE TEA"


def test_an_interrupted_preparation_goes_on_and_ends_the_same(
    wanted: Callable[..., Preparation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(wanted(out=tmp_path / "whole"))
    read = archives.ARCHIVES["librispeech"].read
    seen: list[str] = []

    def failing(folder: Path, part: str):
        seen.append(part)
        if part == "dev-clean" and seen.count(part) == 1:
            raise KeyboardInterrupt
        return read(folder, part)

    changed = archives.Archive(folder="LibriSpeech", parts=miniatures.PARTS, read=failing)
    monkeypatch.setitem(archives.ARCHIVES, "librispeech", changed)
    with pytest.raises(KeyboardInterrupt):
        prepare(wanted())
    with pytest.raises(UserError, match=r"repeat python -m ortho_edge\.prepare librispeech"):
        PreparedCorpus.find(wanted().out, "librispeech")
    prepare(wanted())
    assert seen.count("train-clean-100") == 1
    for path in sorted((tmp_path / "whole").rglob("*")):
        if path.is_file():
            assert (wanted().out / path.relative_to(tmp_path / "whole")).read_bytes() == (
                path.read_bytes()
            )


def test_noise_is_mixed_into_half_of_training_alike_each_time_an_epoch_begins(
    wanted: Callable[..., Preparation], sources: Path
) -> None:
    prepare(wanted(noise=sources))
    prepared = PreparedCorpus.find(wanted().out, "librispeech")
    clean = {
        cut.id: load_cut(cut)
        for part in ("train-clean-100", "train-other-500")
        for cut in each_cut(prepared.cuts(part))
    }

    def epoch(number: int) -> dict[str, np.ndarray]:
        return {cut.id: load_cut(cut) for cut in each_cut(cuts[number])}

    cuts = {number: prepared.training_cuts(number) for number in range(8)}
    noisy = 0
    for number in range(8):
        first, again = epoch(number), epoch(number)
        assert first.keys() == clean.keys()
        for name, samples in first.items():
            assert (samples == again[name]).all()
            assert len(samples) == len(clean[name])
            noise = samples - clean[name]
            if not noise.any():
                continue
            noisy += 1
            snr = 10 * np.log10((clean[name] ** 2).mean() / (noise**2).mean())
            assert 9.5 < snr < 21
    # Half of 64, within four standard deviations of a fair coin.
    assert abs(noisy - 32) < 16


def test_noise_reaches_sphere_files_without_the_program_sph2pipe(
    wanted: Callable[..., Preparation], sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    prepare(wanted(corpus="tedlium2", parts=(), noise=sources / "musan"))
    prepared = PreparedCorpus.find(wanted().out, "tedlium2")
    for number in range(4):
        for cut in each_cut(prepared.training_cuts(number)):
            assert len(load_cut(cut)) == cut.num_samples


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": Path("/nowhere")}, "no such folder: /nowhere"),
        ({"source": Path("/usr")}, "no LibriSpeech in /usr: none of dev-clean"),
        ({"parts": ()}, "lacks train-clean-360: unpack them there, or .* --parts"),
        ({"parts": ("dev-clea",)}, "unknown part 'dev-clea'; known: dev-clean, dev-other"),
        ({"parts": ("dev-clean",)}, "name a train part"),
        ({"units": "phonemes"}, "phonemes need --lexicon"),
        ({"lexicon": Path("x")}, "--lexicon belongs to --units phonemes, not characters"),
        ({"units": "phonemes", "lexicon": Path("/nowhere.txt")}, "no lexicon at /nowhere.txt"),
        ({"units": "bpe", "num_pieces": 5000}, "cannot make 5000 word pieces .* too high"),
        ({"noise": Path("/usr")}, "no MUSAN in /usr"),
    ],
)
def test_a_mistake_is_one_line(
    wanted: Callable[..., Preparation], changes: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        prepare(wanted(**changes))
    assert len(str(caught.value).splitlines()) == 1


def test_another_corpus_in_the_folder_is_refused(
    wanted: Callable[..., Preparation], tmp_path: Path
) -> None:
    prepare(wanted())
    with pytest.raises(UserError, match=r"holds librispeech of .*; choose another --out"):
        prepare(wanted(corpus="tedlium2", parts=()))
    with pytest.raises(UserError, match="holds librispeech, not tedlium2"):
        PreparedCorpus.find(wanted().out, "tedlium2")
    with pytest.raises(UserError, match="no prepared tedlium2 in"):
        PreparedCorpus.find(tmp_path, "tedlium2")
    (wanted().out / preparation.DESCRIPTION).write_text(json.dumps({"corpus": 1, "x": 2}))
    with pytest.raises(UserError, match="is damaged"):
        PreparedCorpus.find(wanted().out, "librispeech")


@pytest.mark.parametrize("damage", ["missing", "truncated", "transcript", "sphere", "talk"])
def test_damaged_archives_are_named(tmp_path: Path, damage: str) -> None:
    root, ted = miniatures.librispeech(tmp_path), miniatures.tedlium2(tmp_path)
    chapter = root / "dev-clean" / "18" / "102"
    if damage == "missing":
        (chapter / "18-102-0000.flac").unlink()
        expected = "dev-clean lacks the audio of 1 of 2 utterances, such as 18-102-0000"
    elif damage == "truncated":
        (chapter / "18-102-0000.flac").write_bytes(b"fLaC")
        expected = r"cannot read .*dev-clean: .*18-102-0000\.flac"
    elif damage == "transcript":
        (chapter / "18-102.trans.txt").write_bytes(b"\xff\xfe")
        expected = r"cannot read .*18-102\.trans\.txt"
    elif damage == "sphere":
        talk = ted / "dev" / "sph" / "DanielKahneman_2010.sph"
        talk.write_bytes(talk.read_bytes().replace(b"-s3 pcm", b"-s4 shrt"))
        expected = r"cannot read .*dev: .*DanielKahneman_2010\.sph"
    else:
        (ted / "dev" / "stm" / "DanielKahneman_2010.stm").rename(ted / "dev" / "stm" / "Dan.stm")
        expected = "2 talks have audio or a transcript but not both, such as Dan"
    corpus = "librispeech" if damage in ("missing", "truncated", "transcript") else "tedlium2"
    parts = miniatures.PARTS if corpus == "librispeech" else ()
    out = tmp_path / "out"
    with pytest.raises(UserError, match=expected):
        prepare(
            Preparation(corpus=corpus, source=tmp_path, out=out, parts=parts, units="characters")
        )
    with pytest.raises(UserError, match="incomplete"):
        PreparedCorpus.find(out, corpus)
