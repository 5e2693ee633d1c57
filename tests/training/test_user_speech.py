"""Speech as users have it, through the commands: each kind of file that once went wrong.

The shipped model hears the clip that is shipped with it, written in many ways.
"""

import codecs
import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from ortho_edge import evaluate, train, transcribe
from ortho_edge.checkpoint import load_checkpoint, shipped_checkpoint
from ortho_edge.cli import UserError
from ortho_edge.data import audio
from ortho_edge.data.audio import load_audio
from ortho_edge.data.augmentation import Augmentation
from ortho_edge.data.corpora import synthetic
from ortho_edge.data.dataset import training_batches
from ortho_edge.reporting.page import _score_table
from ortho_edge.reporting.runs import load_run, score_sizes
from ortho_edge.training.corpora import Corpus
from ortho_edge.training.outcome import development_rates
from ortho_edge.training.recipes import recipe
from ortho_export import artefact

SIZE = "s015"
WORDS = "SEVEN TWO NINE FOUR ONE FIVE"
HEADER = "utterance\tspeaker\ttext\n"
ROWS = f"u1\ta\t{WORDS}\nu2\tb\t{WORDS}\n"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command made of a set."""

    status: int
    out: str
    error: str
    record: dict[str, Any]

    @property
    def rates(self) -> dict[str, Any]:
        (one,) = self.record["results"].values()
        return one


Evaluate = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets each test see what a process says once."""
    monkeypatch.setattr(audio._Said, "topics", set())


@pytest.fixture
def clip() -> np.ndarray:
    return load_audio(shipped_checkpoint() / "sample.flac")


@pytest.fixture
def evaluated(
    command: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Evaluate:
    """Evaluates the smallest shipped size on a folder; without the sounds, which take seconds."""
    monkeypatch.setattr(
        "ortho_edge.training.insertions.inserted_words_per_minute",
        lambda encoders, *_: {name: {"silence": 0.0} for name in encoders},
    )

    def call(
        speech: Path, *arguments: str, model: Sequence[str] = (str(shipped_checkpoint()),)
    ) -> Outcome:
        out = tmp_path / "rates.json"
        sizes = ("--subnets", SIZE) if len(model) == 1 else ()
        status = command(
            evaluate, model[0], *sizes, "--set", str(speech), "--out", str(out), *arguments
        )
        said = capsys.readouterr()
        record = json.loads(out.read_text()) if out.exists() else {}
        return Outcome(status, said.out, said.err, record)

    return call


def speech(folder: Path, files: dict[str, np.ndarray], table: str | bytes = HEADER + ROWS) -> Path:
    """A folder of recordings and a table."""
    (folder / "audio").mkdir(parents=True)
    for name, samples in files.items():
        soundfile.write(folder / "audio" / name, samples, 16000)
    content = table if isinstance(table, bytes) else table.encode()
    (folder / "transcripts.tsv").write_bytes(content)
    return folder


def cut_off(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * share)])


@pytest.mark.parametrize("suffix", ["flac", "wav", "aiff", "mp3", "ogg"])
def test_any_format_is_scored(
    evaluated: Evaluate, clip: np.ndarray, tmp_path: Path, suffix: str
) -> None:
    folder = speech(tmp_path / "set", {f"u1.{suffix}": clip, "u2.wav": clip})
    outcome = evaluated(folder)
    assert outcome.status == 0
    assert outcome.rates["wer"] == 0.0
    assert outcome.rates["utterances"] == 2
    assert f"scored: all 2 utterances, {2 * len(clip) / 16000:.1f} s" in outcome.out
    assert outcome.record["account"]["not_scored"] == []


@pytest.mark.parametrize("suffix", ["flac", "aiff", "wav", "ogg"])
def test_a_file_that_ends_early_ends_the_evaluation_or_is_counted_and_named(
    evaluated: Evaluate, clip: np.ndarray, tmp_path: Path, suffix: str
) -> None:
    folder = speech(tmp_path / "set", {"u1.flac": clip, f"u2.{suffix}": clip})
    cut_off(folder / "audio" / f"u2.{suffix}")
    outcome = evaluated(folder)
    assert (outcome.status, outcome.record) == (2, {})
    assert outcome.error.count("\n") == 1
    for part in ("1 of 2 utterances", "1 truncated", f"u2.{suffix} ends early", "--skip-unread"):
        assert part in outcome.error
    outcome = evaluated(folder, "--skip-unreadable")
    assert outcome.status == 0
    assert "scored: 1 of 2 utterances" in outcome.out
    assert "not scored, truncated: 1, " in outcome.out
    assert outcome.out.count(": u2\n") == 1
    (omitted,) = outcome.record["account"]["not_scored"]
    assert (omitted["utterance"], omitted["reason"]) == ("u2", "truncated")
    assert outcome.rates["not_scored"] == {"truncated": 1}
    assert outcome.rates["words"] == 6


def test_every_fault_of_a_set_is_counted_and_named(
    evaluated: Evaluate, clip: np.ndarray, tmp_path: Path
) -> None:
    table = "utterance\tseconds\ttext\n" + "".join(
        f"{name}\t2.5\t{text}\n"
        for name, text in [
            ("good", WORDS), ("gone", WORDS), ("text", WORDS), ("mute", ""), ("dots", "..."),
            ("nan", WORDS),
        ]
    )  # fmt: skip
    names = ("good", "mute", "dots")
    folder = speech(tmp_path / "set", {f"{name}.wav": clip for name in names}, table)
    (folder / "audio" / "text.wav").write_text("no audio")
    soundfile.write(folder / "audio" / "nan.wav", np.full(8000, np.nan), 16000, "FLOAT")
    outcome = evaluated(folder)
    assert (outcome.status, outcome.record) == (2, {})
    # What shows without decoding ends the evaluation before it begins; NaN does not show yet.
    assert "4 of 6 utterances cannot be scored" in outcome.error
    assert "1 missing" in outcome.error
    outcome = evaluated(folder, "--skip-unreadable")
    account = outcome.record["account"]
    assert {one["utterance"]: one["reason"] for one in account["not_scored"]} == {
        "gone": "missing", "text": "unreadable", "mute": "no reference", "dots": "no reference",
        "nan": "non-finite",
    }  # fmt: skip
    assert (account["scored_utterances"], account["not_scored_utterances"]) == (1, 5)
    seconds = 2.5 + 2.5 + 0.5 + 2 * len(clip) / 16000
    assert account["not_scored_seconds"] == pytest.approx(seconds)
    assert outcome.rates["not_scored_seconds"] == pytest.approx(seconds)
    assert f"not scored: 5, {seconds:.1f} s" in outcome.out
    for name in ("gone", "text", "dots, mute", "nan"):
        assert f": {name}\n" in outcome.out


@pytest.mark.parametrize(
    "weights",
    [(0.0, 1.0), (1.0, 0.0), (1.0, -1.0), (1.0, -0.9), (0.0, 0.0, 1.0), (1.0, 1.0)],
    ids=str,
)
def test_speech_is_heard_whatever_channel_it_is_in(
    evaluated: Evaluate,
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    clip: np.ndarray,
    tmp_path: Path,
    weights: tuple[float, ...],
) -> None:
    both = clip[:, None] * np.array(weights)
    folder = speech(tmp_path / "set", {"u1.flac": both, "u2.flac": both})
    with caplog.at_level(logging.INFO):
        assert evaluated(folder).rates["wer"] == 0.0
    lines = [one for one in caplog.messages if "channel" in one]
    assert len(lines) == (0 if weights == (1.0, 1.0) else 1)
    path = folder / "audio" / "u1.flac"
    assert command(transcribe, str(shipped_checkpoint()), str(path), "--subnet", SIZE) == 0
    assert f"{path}: {WORDS}\n" in capsys.readouterr().out


SEMICOLONS = f"Speaker;Transcript;ID\r\na;{WORDS};u1\r\nb;{WORDS};u2\r\n"


@pytest.mark.parametrize(
    "table",
    [
        codecs.BOM_UTF8 + (HEADER + ROWS).encode(),
        codecs.BOM_UTF16_LE + (HEADER + ROWS).encode("utf-16-le"),
        codecs.BOM_UTF8 + SEMICOLONS.encode(),
        ("utterance\tspeaker\ttranscript\n" + ROWS).encode(),
        f'text,path\n"{WORDS}",u1.wav\n"{WORDS}",audio/u2.wav\n'.encode(),
    ],
    ids=["mark", "utf16", "semicolons", "transcript", "paths"],
)
def test_every_form_of_a_table_is_scored(
    evaluated: Evaluate, clip: np.ndarray, tmp_path: Path, table: bytes
) -> None:
    folder = speech(tmp_path / "set", {"u1.wav": clip, "u2.wav": clip}, table)
    outcome = evaluated(folder)
    assert (outcome.status, outcome.rates["wer"], outcome.rates["utterances"]) == (0, 0.0, 2)


@pytest.mark.parametrize(
    ("table", "parts"),
    [
        ("utterance\tspeaker\tmeaning\n" + ROWS, ("column text", "utterance, speaker, meaning")),
        (f"name\ttext\nu1\t{WORDS}\n", ("column utterance or path", "name, text")),
        ((HEADER + "u1\ta\tCAF\u00c9\n").encode("latin-1"), ("line 2", "0xc9", "iconv")),
        ((HEADER + ROWS).encode("utf-16-le"), ("line 1", "UTF-16 with a byte order mark")),
        (HEADER + ROWS + ROWS, ("line 4", "'u1' stands in line 2 already")),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(
    evaluated: Evaluate,
    clip: np.ndarray,
    tmp_path: Path,
    table: str | bytes,
    parts: Sequence[str],
) -> None:
    outcome = evaluated(speech(tmp_path / "set", {"u1.wav": clip, "u2.wav": clip}, table))
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.error.count("\n") == 1
    for part in ("transcripts.tsv", *parts):
        assert part in outcome.error


@pytest.mark.parametrize(
    "reference",
    [
        WORDS.lower(),
        "Seven, two; nine \u2013 four. \u2018One\u2019 five!",
        "729415",
        "7 2 9 4-1-5",
        "\u201cseven\u201d 2 'nine' FOUR one 5",
    ],
)
def test_a_reference_in_any_spelling_is_the_same_words(
    evaluated: Evaluate, clip: np.ndarray, tmp_path: Path, reference: str
) -> None:
    folder = speech(tmp_path / "set", {"u1.wav": clip}, f"{HEADER}u1\ta\t{reference}\n")
    outcome = evaluated(folder)
    assert (outcome.status, outcome.rates["wer"], outcome.rates["words"]) == (0, 0.0, 6)
    assert outcome.rates["transcripts"][0]["reference"] == WORDS


def test_what_symbols_cannot_spell_is_counted_and_named_and_scored_as_wrong(
    evaluated: Evaluate, clip: np.ndarray, tmp_path: Path
) -> None:
    table = f"{HEADER}u1\ta\t{WORDS}\nu2\ta\tCAF\u00c9 {WORDS} \u20ac \u20ac\n"
    outcome = evaluated(speech(tmp_path / "set", {"u1.wav": clip, "u2.wav": clip}, table))
    assert outcome.status == 0
    assert outcome.record["account"]["unspelled"] == {"\u20ac": 2, "\u00c9": 1}
    assert outcome.record["account"]["unspelled_utterances"] == ["u2"]
    assert "'\u20ac' 2, '\u00c9' 1, in 1 references: u2" in outcome.out
    assert outcome.rates["wer"] == pytest.approx(100 * 3 / 15)


def test_a_set_of_which_no_word_can_be_spelled_is_one_line(
    evaluated: Evaluate, clip: np.ndarray, tmp_path: Path
) -> None:
    table = f"{HEADER}u1\ta\t\u0421\u0415\u041c\u042c\n"
    outcome = evaluated(speech(tmp_path / "set", {"u1.wav": clip}, table))
    assert (outcome.status, outcome.record) == (2, {})
    assert "spell no word of the references; they lack '\u0421'" in outcome.error


def test_words_in_audio_without_speech_are_counted_per_minute(
    evaluated: Evaluate, clip: np.ndarray, tmp_path: Path
) -> None:
    table = f"{HEADER}u1\ta\t{WORDS}\nu2\tb\t\n"
    folder = speech(tmp_path / "set", {"u1.wav": clip, "u2.wav": clip}, table)
    outcome = evaluated(folder, "--allow-empty-references")
    minutes = len(clip) / 16000 / 60
    assert outcome.rates["wer"] == 0.0
    assert outcome.rates["inserted_words"] == 6
    assert outcome.rates["inserted_words_per_minute"] == pytest.approx(6 / minutes)
    assert f"words heard per minute of {len(clip) / 16000:.1f} s without speech" in outcome.out


@pytest.mark.parametrize("least", [1, 300])
def test_a_clip_that_a_model_does_not_take_is_named_and_the_others_are_scored(
    evaluated: Evaluate,
    clip: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    least: int,
) -> None:
    model = artefact.load_artefact(shipped_checkpoint(), subnet=SIZE)
    limited = dataclasses.replace(model, min_frames=least - 200 * (least > 1), max_frames=500)
    monkeypatch.setattr(artefact, "load_artefact", lambda *_, **__: limited)
    files = {"u1.wav": clip, "u2.wav": np.tile(clip, 11), "u3.wav": clip[: 16000 // 2]}
    rows = f"{ROWS}u3\ta\tSEVEN\n"
    folder = speech(tmp_path / "set", files, HEADER + rows)
    outcome = evaluated(folder, model=("model.pte", ""))
    assert outcome.status == 0
    assert f"not scored, too long: 1, {11 * len(clip) / 16000:.1f} s: u2" in outcome.out
    short = {"too short": 1} if least > 1 else {}
    assert outcome.rates["not_scored"] == {"too long": 1, **short}
    assert outcome.rates["utterances"] == 2 - len(short)


def test_a_long_recording_is_heard_in_pieces(
    evaluated: Evaluate, clip: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = artefact.load_artefact(shipped_checkpoint(), subnet=SIZE)
    limited = dataclasses.replace(model, max_frames=1000)
    monkeypatch.setattr(artefact, "load_artefact", lambda *_, **__: limited)
    pause = 1e-4 * np.random.default_rng(0).standard_normal(9000)
    long = np.tile(np.concatenate([clip, pause]), 6).astype(np.float32)
    rows = f"u1\ta\t{WORDS}\nu2\ta\t{' '.join([WORDS] * 6)}\n"
    folder = speech(tmp_path / "set", {"u1.wav": clip, "u2.wav": long}, HEADER + rows)
    outcome = evaluated(folder, model=("model.pte", ""))
    assert outcome.status == 0
    assert outcome.rates["not_scored"] == {}
    assert outcome.rates["utterances"] == 2
    heard = {one["cut_id"]: one["hypothesis"] for one in outcome.rates["transcripts"]}
    alone = [limited.text(one.log_probs) for one in limited.stretches(iter([_as_read(long)]))]
    assert heard["u2"] == " ".join(filter(None, alone))
    assert len(heard["u2"].split()) > 25


def _as_read(samples: np.ndarray) -> np.ndarray:
    """As a file of 16 bits holds it."""
    return np.round(samples * 32768).clip(-32768, 32767).astype(np.float32) / np.float32(32768)


def faulty(folder: Path, clip: np.ndarray) -> Corpus:
    """A corpus of which two development utterances cannot be scored."""
    table = f"utterance\tseconds\ttext\nu1\t\t{WORDS}\nu2\t3.5\t{WORDS}\nu3\t\t\n"
    speech(folder, {"u1.wav": clip, "u3.wav": clip}, table)
    cuts = synthetic(folder, keep_unreadable=True)
    return Corpus(
        tokens=artefact.load_artefact(shipped_checkpoint()).tokens,
        training_cuts=lambda epoch, progress: cuts,
        development={"dev": cuts},
        test={},
    )


def test_development_rates_count_and_name_what_was_not_scored(
    clip: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = load_checkpoint(shipped_checkpoint())
    sizes = [checkpoint.subnet(SIZE)]
    corpus = faulty(tmp_path / "set", clip)
    numbers = development_rates(checkpoint.supernet, sizes, corpus, torch.device("cpu"))
    assert numbers[f"dev_wer/{SIZE}"] == 0.0
    assert numbers["dev_not_scored"] == 2
    assert numbers["dev_not_scored_seconds"] == pytest.approx(3.5 + len(clip) / 16000)
    (line,) = [one for one in caplog.messages if "development set dev" in one]
    assert "missing: 1, 3.5 s: u2" in line
    assert "no reference: 1, 3.0 s: u3" in line


def test_training_begins_with_no_development_set_that_cannot_be_scored(
    command: Callable[..., int],
    clip: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    corpus = faulty(tmp_path / "set", clip)
    digits = dataclasses.replace(recipe("digits"), corpus=lambda options: corpus)
    monkeypatch.setattr("ortho_edge.training.recipes.recipe", lambda name: digits)
    monkeypatch.chdir(tmp_path)
    assert command(train, "digits", "--out", "run") == 2
    error = capsys.readouterr().err
    assert "set 'digits/dev': 2 of 3 utterances cannot be scored" in error
    assert "--skip-unreadable" in error
    assert not (tmp_path / "run").exists()


def test_a_report_counts_and_names_what_was_not_scored(clip: np.ndarray, tmp_path: Path) -> None:
    run = load_run(shipped_checkpoint())
    run = dataclasses.replace(
        run, checkpoint=dataclasses.replace(run.checkpoint, subnets=run.checkpoint.subnets[-1:])
    )
    cuts = faulty(tmp_path / "set", clip).development["dev"]
    with pytest.raises(UserError, match="set 'mine': 2 of 3 utterances cannot be scored"):
        score_sizes(run, "mine", cuts)
    scores = score_sizes(run, "mine", cuts, skip_unreadable=True)
    note = _score_table(run, "mine", scores).note
    assert "not scored, missing: 1, 3.5 s: u2" in note
    (one,) = scores.values()
    assert one.rates.not_scored == {"missing": 1, "no reference": 1}


def test_training_names_the_first_of_what_it_leaves_out(
    clip: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = "".join(f"u{number}\ta\tCAF\u00c9\n" for number in range(5))
    files = {f"u{number}.wav": clip for number in range(5)}
    cuts = synthetic(speech(tmp_path / "set", files, HEADER + rows))
    for epoch in (0, 1):
        caplog.clear()
        batches = training_batches(
            cuts,
            tokens=artefact.load_artefact(shipped_checkpoint()).tokens,
            augmentation=Augmentation.none(),
            max_duration=20.0,
            seed=0,
            epoch=epoch,
        )
        assert list(batches) == []
        named = [one for one in caplog.messages if "left out, unrepresentable text: u" in one]
        assert len(named) == (3 if epoch == 0 else 0)
        assert all("no symbol for '\u00c9'" in one for one in named)
        assert "skipped after the last batch: {'unrepresentable text': 5}" in caplog.text


@pytest.mark.parametrize("suffix", ["wav", "aiff"])
def test_transcribe_hears_what_is_there_of_a_file_and_says_that_it_ends_early(
    command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    clip: np.ndarray,
    tmp_path: Path,
    suffix: str,
) -> None:
    path = tmp_path / f"half.{suffix}"
    soundfile.write(path, clip, 16000)
    cut_off(path)
    arguments = (str(shipped_checkpoint()), str(path), "--subnet", SIZE)
    assert command(transcribe, *arguments) == 0
    heard = capsys.readouterr().out.splitlines()[0].removeprefix(f"{path}: ")
    assert heard.startswith("SEVEN TWO NINE")
    (line,) = [one for one in caplog.messages if "ends early" in one]
    seconds = len(clip) / 16000
    assert f"{path} ends early: {seconds / 2:.2f} s are there of the {seconds:.2f} s" in line
    assert command(transcribe, *arguments, "--strict") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {path} ends early")
    assert said.err.count("\n") == 1
