"""Every kind of file that is read: real ones, how they are damaged, and what reads them."""

import contextlib
import functools
import gzip
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import torch

from ortho_edge.cli import UserError
from tests.attack import mutations
from tests.attack.mutations import Mutation

if TYPE_CHECKING:
    from ortho_export.facts import Facts


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Files of one kind.

    Attributes:
        name: On the command line and in the table.
        share: Cases of every hundred.
        make: Writes real files into an empty folder.
        damage: By name of a file in it, how it is damaged.
        read: Reads what stands in the folder, one of whose files is damaged.
        contained: Whether what reads it runs in a process of its own, so that a crash is a refusal.
    """

    name: str
    share: float
    make: Callable[[Path], None]
    damage: Mapping[str, Sequence[Mutation]]
    read: Callable[[Path, str], object]
    contained: bool = False


def _make_checkpoint(folder: Path) -> None:
    from ortho_edge.checkpoint import save_checkpoint
    from tests.export.tiny import tiny_checkpoint

    save_checkpoint(tiny_checkpoint(front_end_chunks=2), folder / "checkpoint")


def _read_checkpoint(folder: Path, name: str) -> None:
    """Whatever is accepted computes, too, and can be reported."""
    from ortho_edge.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(folder / "checkpoint")
    one = checkpoint.subnets[-1] if checkpoint.subnets else None
    with torch.no_grad():
        features = torch.zeros(1, 12, checkpoint.supernet.architecture.feature_dim)
        gates = one.subnet.gates()[None] if one else torch.ones(1, len(checkpoint.supernet.space))
        heads = [one.head if one else 0]
        log_probs, _ = checkpoint.supernet(features, torch.tensor([12]), gates, heads)
    assert log_probs.shape == (1, 1, 3, len(checkpoint.tokens))
    assert checkpoint.supernet.space.total_cost("params") > 0


def _make_report(folder: Path) -> None:
    from ortho_edge.checkpoint import save_checkpoint
    from tests.export.tiny import tiny_checkpoint

    lines = "".join(
        json.dumps({"step": step, "loss/full": 3.5 / (1 + step), "seconds": 0.25}) + "\n"
        for step in range(6)
    )
    save_checkpoint(tiny_checkpoint(), folder / "checkpoint", {"metrics.jsonl": lines.encode()})


def _read_report(folder: Path, name: str) -> None:
    from ortho_edge.reporting.runs import load_run

    run = load_run(folder / "checkpoint")
    assert run.method


def _make_lexicon(folder: Path) -> None:
    from tests.data.miniatures import LEXICON

    (folder / "lexicon.txt").write_text(LEXICON)
    (folder / "cmudict").write_text(";;; comment\nread(1) R IY1 D # past\nred R EH1 D\n")


def _read_lexicon(folder: Path, name: str) -> None:
    from ortho_edge.lexicon import Lexicon, lexicon_tokens

    lexicon = Lexicon.load(folder / name)
    tokens = lexicon_tokens(lexicon)
    word = next(iter(lexicon.pronunciations))
    assert tokens.decode(tokens.encode(word))


def _make_arpa(folder: Path) -> None:
    from ortho_edge.ngrams import estimate

    text = "".join(estimate(["A AB C", "C A", "SEE A AB", "A C BB", "BB BB A", "C C A"], 3).arpa())
    (folder / "lm.arpa").write_text(text)
    (folder / "lm.arpa.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


def _read_arpa(folder: Path, name: str) -> None:
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


def _state_parts() -> tuple[torch.nn.Module, torch.optim.Optimizer, dict]:
    """A model after an update, its optimiser and what identifies the run."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.LayerNorm(3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.ones(2, 5)).square().sum().backward()
    optimizer.step()
    run = {"recipe": "tones", "num_steps": 12, "targets": [0.8, 0.6], "seed": 0}
    return model, optimizer, run


def _make_state(folder: Path) -> None:
    from ortho_edge.training.state import Progress, save_state

    progress = Progress(
        step=9, epoch=2, epoch_start=4, position=6, selected=((0, 1, 3), (0, 3)), entropy=0.25,
        collisions=1, skipped={"missing": 2},
    )  # fmt: skip
    model, optimizer, run = _state_parts()
    save_state(folder, model, optimizer, progress, run)


def _read_state(folder: Path, name: str) -> None:
    from ortho_edge.training.state import load_state

    model, optimizer, run = _state_parts()
    progress = load_state(folder, model, optimizer, run)
    assert 0 <= progress.epoch_start <= progress.step <= 12
    assert progress.step - progress.epoch_start <= progress.position < 2**40
    assert 0 <= progress.epoch <= progress.step
    assert all(count >= 0 for count in progress.skipped.values())
    assert all(bool(torch.isfinite(one).all()) for one in model.state_dict().values())
    model(torch.ones(2, 5)).square().sum().backward()
    optimizer.step()


def _make_prepared(folder: Path) -> None:
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


def _read_prepared(folder: Path, name: str) -> None:
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


def _make_archive(folder: Path) -> None:
    from tests.data import miniatures

    miniatures.librispeech(folder, {"dev-clean": miniatures.LIBRISPEECH_TEXTS["dev-clean"]})
    miniatures.tedlium2(folder)


ARCHIVE_TEXT = "LibriSpeech/dev-clean/14/100/14-100.trans.txt"
ARCHIVE_AUDIO = "LibriSpeech/dev-clean/14/100/14-100-0000.flac"
TALK_TEXT = "TEDLIUM_release2/dev/stm/DanielKahneman_2010.stm"
TALK_AUDIO = "TEDLIUM_release2/dev/sph/DanielKahneman_2010.sph"


def _read_archive(folder: Path, name: str) -> None:
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


def _make_table(folder: Path) -> None:
    from tests.training.conftest import write_tones

    write_tones(folder / "corpus", 3)


def _read_table(folder: Path, name: str) -> None:
    from ortho_edge.data.waveforms import each_cut
    from ortho_edge.training.corpora import DataOptions
    from ortho_edge.training.speech_sets import speech_set

    cuts = list(each_cut(speech_set(str(folder / "corpus"), DataOptions())))
    assert len({cut.id for cut in cuts}) == len(cuts)


def _make_audio(folder: Path) -> None:
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


def _read_audio(folder: Path, name: str) -> None:
    from ortho_edge.data.audio import load_audio

    samples = load_audio(folder / name)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert len(samples)
    assert np.isfinite(samples).all()


AUDIO_NAMES = ("a.wav", "float.wav", "a.flac", "a.ogg", "a.opus", "a.mp3", "a.aiff", "a.sph")


def _make_profiles(folder: Path) -> None:
    from ortho_edge.devices.catalogue import shipped_folder

    for path in shipped_folder().glob("*.toml"):
        (folder / path.name).write_bytes(path.read_bytes())


def _profile_names() -> list[str]:
    from ortho_edge.devices.catalogue import shipped_folder

    return sorted(path.name for path in shipped_folder().glob("*.toml"))


def _read_profile(folder: Path, name: str) -> None:
    from ortho_edge.devices.catalogue import load_profile, profile_text

    profile = load_profile(str(folder / name))
    assert profile_text(profile)
    assert profile.name


def python_kinds() -> list[Kind]:
    """Those whose readers are cheap enough for thousands of cases."""
    text, structured = mutations.TEXT, mutations.JSON
    return [
        Kind(
            name="checkpoint.json", share=16, make=_make_checkpoint,
            damage={"checkpoint/checkpoint.json": structured}, read=_read_checkpoint,
        ),
        Kind(
            name="safetensors", share=8, make=_make_checkpoint,
            damage={"checkpoint/model.safetensors": mutations.SAFETENSORS}, read=_read_checkpoint,
        ),
        Kind(
            name="tokens.txt", share=6, make=_make_checkpoint,
            damage={"checkpoint/tokens.txt": text}, read=_read_checkpoint,
        ),
        Kind(
            name="metrics.jsonl", share=3, make=_make_report,
            damage={"checkpoint/metrics.jsonl": mutations.JSONL}, read=_read_report,
        ),
        Kind(
            name="lexicon", share=5, make=_make_lexicon,
            damage={"lexicon.txt": text, "cmudict": text}, read=_read_lexicon,
        ),
        Kind(
            name="ARPA", share=11, make=_make_arpa,
            damage={"lm.arpa": text, "lm.arpa.gz": mutations.TEXT_GZ}, read=_read_arpa,
        ),
        Kind(
            name="training state", share=11, make=_make_state,
            damage={"training_state.safetensors": mutations.STATE}, read=_read_state,
        ),
        Kind(
            name="prepared folder", share=6, make=_make_prepared,
            damage={
                "prepared/cuts/train-clean-100.jsonl.gz": mutations.JSONL_GZ,
                "prepared/cuts/noise.jsonl.gz": mutations.JSONL_GZ,
                "prepared/cuts/dev-other.jsonl.gz": mutations.JSONL_GZ,
                "prepared/prepared.json": structured,
                "prepared/tokens.txt": text,
                "prepared/lexicon.txt": text,
            },
            read=_read_prepared,
        ),
        Kind(
            name="archive", share=4, make=_make_archive,
            damage={
                ARCHIVE_TEXT: text, ARCHIVE_AUDIO: mutations.BYTES, TALK_TEXT: text,
                TALK_AUDIO: mutations.BYTES,
            },
            read=_read_archive,
        ),
        Kind(
            name="transcripts.tsv", share=8, make=_make_table,
            damage={"corpus/transcripts.tsv": text}, read=_read_table,
        ),
        Kind(
            name="profile", share=10, make=_make_profiles,
            damage=dict.fromkeys(_profile_names(), mutations.TOML), read=_read_profile,
        ),
        Kind(
            name="audio", share=6, make=_make_audio,
            damage=dict.fromkeys(AUDIO_NAMES, mutations.BYTES), read=_read_audio,
        ),
    ]  # fmt: skip


@functools.cache
def _exported() -> Mapping[str, bytes]:
    """The files of an export of the tiny checkpoint, made once."""
    from ortho_edge.export import Arguments, main
    from tests.export.conftest import save_tiny

    with tempfile.TemporaryDirectory() as scratch:
        checkpoint, out = save_tiny(Path(scratch) / "tiny"), Path(scratch) / "out"
        with contextlib.redirect_stdout(io.StringIO()):
            main(
                Arguments(
                    device="pixel8", checkpoint=checkpoint, out=out, latency_ms=1e3, size_mb=1.0
                )
            )
        return {path.name: path.read_bytes() for path in out.iterdir()}


def _make_artefacts(folder: Path) -> None:
    from ortho_export.targets import to_ort

    for name, content in _exported().items():
        if name.endswith((".pte", ".onnx")):
            (folder / name).write_bytes(content)
    (folder / "model.ort").write_bytes(to_ort(_exported()["model.onnx"])[0])


def _make_export(folder: Path) -> None:
    for name, content in _exported().items():
        (folder / name).write_bytes(content)


def _read_program(folder: Path, name: str) -> None:
    """Loads and runs, without the process around it that takes a crash."""
    from ortho_export import executorch

    executorch.check_whole(folder / name)
    with _as_in_a_child(folder / name):
        facts, forward = executorch.load(folder / name, 1)
        _check_outputs(forward, facts)


def _read_model(folder: Path, name: str) -> None:
    from ortho_export import onnx

    onnx.check_whole(folder / name)
    with _as_in_a_child(folder / name):
        facts, forward = onnx.load(folder / name, 1)
        _check_outputs(lambda x: forward(x, np.array([x.shape[1]]))[0], facts)


def _read_export(folder: Path, name: str) -> None:
    """What `--verify` does."""
    from ortho_export.verify import table, verify

    assert table(verify(folder))


@contextlib.contextmanager
def _as_in_a_child(path: Path) -> Iterator[None]:
    """Makes of a runtime's exception what `ortho_export.isolated` makes of it."""
    from ortho_export.isolated import failure

    try:
        yield
    except (UserError, AssertionError):
        raise
    except Exception as error:
        raise failure(path, error) from error


def _check_outputs(forward: Callable[[np.ndarray], np.ndarray], facts: "Facts") -> None:
    for frames in (9, 130):
        output = forward(np.zeros((1, frames, 80), np.float32))
        assert output.shape[::2] == (1, len(facts.tokens))


def native_kinds() -> list[Kind]:
    """Those whose readers run native code on what the file holds."""
    return [
        Kind(
            name=".pte", share=3, make=_make_artefacts, damage={"model.pte": mutations.BYTES},
            read=_read_program, contained=True,
        ),
        Kind(
            name=".onnx", share=3, make=_make_artefacts, damage={"model.onnx": mutations.BYTES},
            read=_read_model, contained=True,
        ),
        Kind(
            name=".ort", share=2, make=_make_artefacts, damage={"model.ort": mutations.BYTES},
            read=_read_model, contained=True,
        ),
        Kind(
            name="manifest.json", share=2, make=_make_export,
            damage={"manifest.json": mutations.JSON}, read=_read_export,
        ),
    ]  # fmt: skip


def quick_kinds() -> list[Kind]:
    """Those that the test suite tries a few cases of."""
    return [one for one in python_kinds() if one.name != "transcripts.tsv"]


def all_kinds() -> list[Kind]:
    """Every kind."""
    return [*python_kinds(), *native_kinds()]
