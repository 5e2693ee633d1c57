"""Synthesised digits: the plan, the files, and what a user sees when a synthesiser is missing.

Most tests run against a stand-in `flite` that writes a tone, so that pitch, duration and level of
the result are known exactly; one runs the real espeak-ng.
"""

import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from ortho_edge.cli import UserError
from ortho_edge.data.synthesis import (
    SAMPLE_CLIP_DIGITS,
    Utterance,
    plan_corpus,
    speak,
    synthesize_corpus,
    trim_silence,
)
from ortho_edge.data.synthetic_voices import VOICES, Voice

WORDS = ["ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE"]
SAMPLE_RATE = 16_000
TONE_VOICE = Voice(name="tone-tall", engine="flite", model="tone", base_pitch=400.0, tract=1.25)
ESPEAK_VOICES = [
    next(voice for voice in VOICES if voice.engine == "espeak-ng" and not voice.phonemes),
    next(voice for voice in VOICES if voice.phonemes),
]

# Says each word as 0.2 s of a tone at the asked pitch, between 0.3 s of silence; the voice "broken"
# can say everything but "nine", and the voice "mute" says nothing.
STAND_IN_FLITE = """\
import array, math, sys, wave
arguments = sys.argv[1:]
settings = dict(word.split("=") for word in arguments if "=" in word)
after = lambda option: arguments[arguments.index(option) + 1]
if after("-voice") == "broken" and "nine" in after("-t"):
    sys.exit("cannot say nine")
rate, pitch = 8000, float(settings["int_f0_target_mean"])
count = round(0.2 * float(settings["duration_stretch"]) * rate * len(after("-t").split()))
level = 0 if after("-voice") == "mute" else 9000
tone = [round(level * math.sin(2 * math.pi * pitch * i / rate)) for i in range(count)]
quiet = [0] * round(0.3 * rate)
with wave.open(after("-o"), "wb") as file:
    file.setnchannels(1), file.setsampwidth(2), file.setframerate(rate)
    file.writeframes(array.array("h", quiet + tone + quiet).tobytes())
"""


@pytest.fixture
def stand_in_flite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "flite"
    program.write_text(f"#!{sys.executable} -S\n{STAND_IN_FLITE}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))


def say(
    digits: str, *, rate: float = 1.0, pitch: float = 1.0, voice: Voice = TONE_VOICE
) -> Utterance:
    return Utterance(
        voice=voice,
        digits=digits,
        take=0,
        rate=rate,
        pitch=pitch,
        tract=voice.tract,
        peak_db=-6.0,
    )


def read_transcripts(corpus: Path) -> list[dict[str, str]]:
    header, *rows = (corpus / "transcripts.tsv").read_text().splitlines()
    assert header == "utterance\tspeaker\ttake\tseconds\ttext"
    return [dict(zip(header.split("\t"), row.split("\t"), strict=True)) for row in rows]


def test_there_are_many_voices_and_each_has_its_own_name():
    assert len(VOICES) >= 60
    assert len({voice.name for voice in VOICES}) == len(VOICES)
    assert not [voice.name for voice in VOICES if "_" in voice.name or "/" in voice.name]
    assert {len(voice.phonemes) for voice in VOICES} == {0, 10}


@given(seed=st.integers(0, 2**32), takes=st.integers(1, 4), strings=st.integers(0, 40))
def test_plan_says_every_digit_and_strings_of_three_to_eight(seed: int, takes: int, strings: int):
    plan = plan_corpus(VOICES[:2], takes=takes, seed=seed, strings=strings)
    assert len({said.name for said in plan}) == len(plan) == 2 * (10 * takes + strings)
    counts = Counter(said.digits for said in plan if len(said.digits) == 1)
    assert counts == dict.fromkeys("0123456789", 2 * takes)
    assert all(len(said.digits) in {1, 3, 4, 5, 6, 7, 8} for said in plan)
    assert all(said.text.split() == [WORDS[int(d)] for d in said.digits] for said in plan)
    assert all(0.7 < said.rate < 1.4 and said.peak_db < 0 for said in plan)


def test_plan_never_says_the_sample_clip(monkeypatch: pytest.MonkeyPatch):
    # With a clip of one short digit string the draw meets it often, so that the guard must work.
    monkeypatch.setattr("ortho_edge.data.synthesis.SAMPLE_CLIP_DIGITS", "7")
    plan = plan_corpus(VOICES[:3], takes=1, seed=0)
    assert not [said.digits for said in plan if len(said.digits) > 1 and "7" in said.digits]


def test_sample_clip_says_what_the_plan_leaves_out(repository: Path):
    folder = repository / "ortho_edge" / "checkpoints" / "digits"
    words = (folder / "sample.txt").read_text().split()
    assert words == [WORDS[int(digit)] for digit in SAMPLE_CLIP_DIGITS]
    info = soundfile.info(folder / "sample.flac")
    assert (info.samplerate, info.channels) == (SAMPLE_RATE, 1)
    assert 2.0 < info.duration < 4.0


def test_plan_of_a_voice_does_not_depend_on_the_other_voices():
    alone = plan_corpus(VOICES[5:6], takes=2, seed=3)
    among = [said for said in plan_corpus(VOICES[:9], takes=2, seed=3) if said.voice == VOICES[5]]
    assert alone == among
    assert alone != plan_corpus(VOICES[5:6], takes=2, seed=4)
    other = plan_corpus(VOICES[6:7], takes=2, seed=3)
    assert [said.digits for said in alone] != [said.digits for said in other]


@pytest.mark.parametrize(("takes", "strings"), [(0, 3), (1, -1)])
def test_plan_refuses_counts_out_of_range(takes: int, strings: int):
    with pytest.raises(ValueError, match="takes must be at least 1"):
        plan_corpus(VOICES[:1], takes=takes, seed=0, strings=strings)


@pytest.mark.parametrize("lead", [0, 317, 4_000])
def test_trim_keeps_the_sound_and_a_margin(lead: int):
    sound = np.sin(np.arange(4_801) * 0.3).astype(np.float32)
    quiet = np.full(lead, 1e-4, dtype=np.float32)
    trimmed = trim_silence(np.concatenate([quiet, sound, quiet]), margin=0.02)
    # The loudness is a mean over 10 ms, so an edge is known to 5 ms (80 samples).
    edge = min(lead, 320 + 80)
    assert len(sound) + 2 * min(lead, 320) <= len(trimmed) <= len(sound) + 2 * edge


def test_trim_keeps_a_soft_ending_that_is_30_db_below():
    sound = np.sin(np.arange(4_800) * 0.3).astype(np.float32)
    soft, quiet = sound * np.float32(10 ** (-30 / 20)), np.zeros(4_000, dtype=np.float32)
    trimmed = trim_silence(np.concatenate([sound, soft, quiet]), margin=0.0)
    assert len(trimmed) == pytest.approx(len(sound) + len(soft), abs=80)


def test_spoken_text_pauses_at_a_comma_and_uses_the_phonemes_of_an_accent():
    plain = replace(say("471"), pause_after=1)
    assert say("471").spoken == "four seven one"
    assert plain.spoken == "four seven, one"
    accent = Voice(
        name="x", engine="espeak-ng", model="de", base_pitch=50.0, phonemes=tuple("abcdefghij")
    )
    assert replace(plain, voice=accent).spoken == "[[e h]], [[b]]"


def test_trim_of_silence_is_empty():
    assert trim_silence(np.zeros(3_000, dtype=np.float32)).size == 0
    assert trim_silence(np.zeros(0, dtype=np.float32)).size == 0


@pytest.mark.usefixtures("stand_in_flite")
@pytest.mark.parametrize(("rate", "pitch"), [(1.0, 1.0), (0.8, 1.0), (1.3, 1.1)])
def test_rate_sets_duration_and_tract_scales_frequency(tmp_path: Path, rate: float, pitch: float):
    (samples,) = speak([say("47", rate=rate, pitch=pitch)], tmp_path)
    seconds = len(samples) / SAMPLE_RATE
    # Two words of 0.2 s, 30 ms of margin at each end, edges known to 5 ms each.
    assert 2 * 0.2 / rate + 0.06 <= seconds <= 2 * 0.2 / rate + 0.071
    spectrum = np.abs(np.fft.rfft(samples, 2**16))
    frequency = spectrum.argmax() * SAMPLE_RATE / 2**16
    assert frequency == pytest.approx(400.0 * pitch * TONE_VOICE.tract, abs=2.0)
    assert np.abs(samples).max() == pytest.approx(10 ** (-6.0 / 20), rel=1e-3)


@pytest.mark.usefixtures("stand_in_flite")
def test_corpus_files_agree_with_its_table(tmp_path: Path):
    corpus = synthesize_corpus(tmp_path / "out" / "digits", voices=[TONE_VOICE], takes=1, strings=2)
    rows = read_transcripts(corpus)
    assert len(rows) == 12
    assert sorted(path.stem for path in (corpus / "audio").iterdir()) == sorted(
        row["utterance"] for row in rows
    )
    for row in rows:
        digits, speaker, take = row["utterance"].split("_")
        assert (speaker, take) == (row["speaker"], row["take"])
        assert row["text"].split() == [WORDS[int(digit)] for digit in digits]
        info = soundfile.info(corpus / "audio" / f"{row['utterance']}.flac")
        assert (info.samplerate, info.channels, info.subtype) == (SAMPLE_RATE, 1, "PCM_16")
        assert float(row["seconds"]) == pytest.approx(info.duration, abs=1e-3)
    assert [path.name for path in corpus.parent.iterdir()] == ["digits"]


@pytest.mark.usefixtures("stand_in_flite")
@pytest.mark.parametrize(
    ("model", "message"),
    [("broken", "'broken' .cannot say nine.; .*apt-get install flite"), ("mute", "only silence")],
)
def test_a_voice_that_fails_leaves_nothing(tmp_path: Path, model: str, message: str):
    voice = Voice(name=model, engine="flite", model=model, base_pitch=400.0)
    folder = tmp_path / "out"
    with pytest.raises(UserError, match=message):
        synthesize_corpus(folder / "digits", voices=[voice], takes=1, strings=0)
    assert list(folder.iterdir()) == []


@pytest.mark.usefixtures("stand_in_flite")
def test_an_existing_folder_is_left_alone(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="mine' exists already"):
        synthesize_corpus(tmp_path / "mine", voices=[TONE_VOICE], takes=1)
    assert list((tmp_path / "mine").iterdir()) == []


def run_command(repository: Path, *arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ortho_edge.synthesize", *arguments],
        cwd=repository,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_names_the_packages_of_missing_programs(tmp_path: Path, repository: Path):
    finished = run_command(repository, "--out", str(tmp_path / "new"), path=str(tmp_path))
    assert finished.returncode == 2
    assert len(finished.stderr.splitlines()) == 1
    assert "espeak-ng, festival, flite" in finished.stderr
    assert "apt-get install espeak-ng festival festvox-kallpc16k" in finished.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--takes", "0", "error: --takes is 0; it must be from 1 to 1000"),
        ("--seed", "-1", "error: --seed is -1; it must be from 0 to 4294967295"),
    ],
)
def test_command_refuses_values_out_of_range(
    tmp_path: Path, repository: Path, option: str, value: str, message: str
):
    out = str(tmp_path / "new")
    finished = run_command(repository, "--out", out, option, value, path=str(tmp_path))
    assert finished.returncode == 2
    assert finished.stderr.splitlines() == [message]


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_espeak_speaks_digits_of_plausible_length_the_same_way_twice(tmp_path: Path):
    corpora = [
        synthesize_corpus(tmp_path / name, voices=ESPEAK_VOICES, takes=1, strings=2)
        for name in ("first", "second")
    ]
    rows = read_transcripts(corpora[0])
    assert rows == read_transcripts(corpora[1])
    for row in rows:
        file = f"audio/{row['utterance']}.flac"
        samples, _ = soundfile.read(corpora[0] / file)
        assert np.array_equal(samples, soundfile.read(corpora[1] / file)[0])
        assert 0.15 < len(samples) / SAMPLE_RATE / len(row["text"].split()) < 1.2
        assert 0.1 < np.abs(samples).max() < 1.0
        assert np.sqrt(np.mean(samples**2)) > 0.01
