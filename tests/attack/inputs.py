"""Speech, texts, tables and profiles: real files, and what reads them once one is damaged."""

import functools
import gzip
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

if TYPE_CHECKING:
    from ortho_edge.checkpoint import Checkpoint


def make_lexicon(folder: Path) -> None:
    from tests.data.miniatures import LEXICON

    (folder / "lexicon.txt").write_text(LEXICON)
    (folder / "cmudict").write_text(";;; comment\nread(1) R IY1 D # past\nred R EH1 D\n")


def read_lexicon(folder: Path, name: str) -> None:
    from ortho_edge.lexicon import Lexicon, lexicon_tokens

    lexicon = Lexicon.load(folder / name)
    tokens = lexicon_tokens(lexicon)
    word = next(iter(lexicon.pronunciations))
    assert tokens.decode(tokens.encode(word))


def make_arpa(folder: Path) -> None:
    from ortho_edge.ngrams import estimate

    text = "".join(estimate(["A AB C", "C A", "SEE A AB", "A C BB", "BB BB A", "C C A"], 3).arpa())
    (folder / "lm.arpa").write_text(text)
    (folder / "lm.arpa.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


def read_arpa(folder: Path, name: str) -> None:
    from ortho_edge.beam_search import BeamSearch, LanguageModel, SearchOptions
    from ortho_edge.tokens import character_tokens
    from ortho_edge.training.lm_decoding import beam_search

    tokens = character_tokens(characters="ABCES")
    search = beam_search(tokens, LanguageModel(folder / name), SearchOptions())
    assert isinstance(search, BeamSearch)
    frames = np.log(np.full((4, len(tokens)), 1 / len(tokens)))
    assert isinstance(search.decode(frames), str)
    score, _ = search.model.score(search.model.start, "A")
    assert -1e4 < score <= 0


def make_prepared(folder: Path) -> None:
    from ortho_edge.data.preparation import Preparation, prepare
    from tests.data import miniatures

    source = folder / "unpacked"
    texts = {part: miniatures.LIBRISPEECH_TEXTS[part] for part in ("train-clean-100", "dev-other")}
    miniatures.librispeech(source, texts)
    miniatures.musan(source)
    (folder / "words").write_text(miniatures.LEXICON + "HATTER HH AE1 T ER\n")
    prepare(
        Preparation(
            corpus="librispeech", source=source, out=folder / "prepared", parts=tuple(texts),
            units="phonemes", lexicon=folder / "words", noise=source,
        )
    )  # fmt: skip


def read_prepared(folder: Path, name: str) -> None:
    """A pass of training and one of evaluation over what was prepared."""
    from ortho_edge.data.augmentation import Augmentation
    from ortho_edge.data.dataset import evaluation_batches, training_batches
    from ortho_edge.data.preparation import PreparedCorpus

    prepared = PreparedCorpus.find(folder / "prepared", "librispeech")
    batches = training_batches(
        prepared.training_cuts(0), tokens=prepared.tokens, augmentation=Augmentation.none(),
        max_duration=6.0, seed=0, epoch=0, num_buckets=2,
    )  # fmt: skip
    names = [cut for batch in batches for cut in batch.cut_ids]
    for batch in evaluation_batches(
        prepared.cuts("dev-other"), tokens=prepared.tokens, max_duration=6.0
    ):
        names += batch.cut_ids
    assert len(names) == len(set(names)), "an utterance came twice"


def make_archive(folder: Path) -> None:
    from tests.data import miniatures

    miniatures.librispeech(folder, {"dev-clean": miniatures.LIBRISPEECH_TEXTS["dev-clean"]})
    miniatures.tedlium2(folder)


ARCHIVE_TEXT = "LibriSpeech/dev-clean/14/100/14-100.trans.txt"
ARCHIVE_AUDIO = "LibriSpeech/dev-clean/14/100/14-100-0000.flac"
TALK_TEXT = "TEDLIUM_release2/dev/stm/DanielKahneman_2010.stm"
TALK_AUDIO = "TEDLIUM_release2/dev/sph/DanielKahneman_2010.sph"


def read_archive(folder: Path, name: str) -> None:
    from ortho_edge.data.archives import ARCHIVES
    from ortho_edge.data.waveforms import AudioError, load_cut

    corpus, part = ("librispeech", "dev-clean") if "Libri" in name else ("tedlium2", "dev")
    archive = ARCHIVES[corpus]
    at = archive.locate(folder)
    archive.check(at, [part])
    cuts, _ = archive.read(at, part)
    for cut in cuts:
        try:
            samples = load_cut(cut)
        except AudioError:
            continue
        assert len(samples)


def make_table(folder: Path) -> None:
    from tests.training.conftest import write_tones

    write_tones(folder / "corpus", 3)


def read_table(folder: Path, name: str) -> None:
    from ortho_edge.data.waveforms import each_cut
    from ortho_edge.training.corpora import DataOptions
    from ortho_edge.training.speech_sets import speech_set

    cuts = list(each_cut(speech_set(str(folder / "corpus"), DataOptions())))
    assert len({cut.id for cut in cuts}) == len(cuts)


def make_audio(folder: Path) -> None:
    from tests.data.generated import speech_like
    from tests.data.miniatures import write_sphere

    samples = speech_like(0.4, 16000, seed=1)
    stereo = np.stack([samples, 0.5 * samples[::-1]], 1)
    soundfile.write(folder / "a.wav", samples, 16000)
    soundfile.write(folder / "float.wav", stereo, 8000, subtype="FLOAT")
    soundfile.write(folder / "a.flac", stereo, 44100)
    soundfile.write(folder / "a.ogg", samples, 16000, format="OGG", subtype="VORBIS")
    soundfile.write(folder / "a.opus", samples, 16000, format="OGG", subtype="OPUS")
    soundfile.write(folder / "a.mp3", samples, 16000, format="MP3")
    soundfile.write(folder / "a.aiff", samples, 22050)
    write_sphere(folder / "a.sph", samples, "01")


def read_audio(folder: Path, name: str) -> None:
    from ortho_edge.data.audio import load_audio

    samples = load_audio(folder / name)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert len(samples)
    assert np.isfinite(samples).all()


AUDIO_NAMES = ("a.wav", "float.wav", "a.flac", "a.ogg", "a.opus", "a.mp3", "a.aiff", "a.sph")


@functools.cache
def _checkpoint() -> "Checkpoint":
    from ortho_edge.checkpoint import load_checkpoint, shipped_checkpoint

    return load_checkpoint(shipped_checkpoint())


def make_profiles(folder: Path) -> None:
    from ortho_edge.devices.catalogue import shipped_folder

    for path in shipped_folder().glob("*.toml"):
        (folder / path.name).write_bytes(path.read_bytes())


def profile_names() -> list[str]:
    from ortho_edge.devices.catalogue import shipped_folder

    return sorted(path.name for path in shipped_folder().glob("*.toml"))


def read_profile(folder: Path, name: str) -> None:
    from ortho_edge.devices.catalogue import load_profile, profile_text
    from ortho_edge.selector import select

    profile = load_profile(str(folder / name))
    assert profile_text(profile)
    assert profile.name
    selection = select(profile, profile.budget, _checkpoint())
    for one in selection.candidates:
        figures = [one.memory_mb, one.size_mb, *(latency.milliseconds for latency in one.latency)]
        assert all(0 <= figure < math.inf for figure in figures), figures
