"""Spoken digits from free speech synthesisers, as a corpus laid out like FSDD.

Isolated digits and digit strings are spoken by many voices of three programs (espeak-ng, flite,
festival; Debian packages in `PACKAGES`). A voice is a synthesiser voice, an accent and a vocal
tract scale; each take draws its own rate, pitch, tract and level. A vocal tract scale k reads the
synthesised samples as if they were recorded at k times their rate, which moves formants and pitch
together; the speaking rate asked of the program makes up for the shorter duration.

The output folder holds `audio/<utterance>.flac` (16 kHz, mono, 16 bit) and `transcripts.tsv` with
the columns utterance, speaker, take, seconds, text. An utterance is named
`<digits>_<voice>_<take>`.
"""

import io
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from ortho_edge.cli import UserError
from ortho_edge.data.synthetic_voices import DIGIT_WORDS, VOICES, Voice
from ortho_edge.progress import Progress

SAMPLE_RATE = 16_000
PACKAGES = {
    "espeak-ng": "espeak-ng",
    "flite": "flite",
    "festival": "festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts",
}
HEADER = ("utterance", "speaker", "take", "seconds", "text")
# The clip that ships with the checkpoint says these; no corpus does, so it tests the model fairly.
SAMPLE_CLIP_DIGITS = "729415"
STRINGS_PER_VOICE = 30
TIMEOUT_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One thing to say, and how.

    Attributes:
        voice: who says it.
        digits: what is said, such as `"4719"`.
        take: number that tells apart the utterances of the same voice and digits.
        rate: speaking rate relative to the voice's own (1.0).
        pitch: fundamental frequency relative to the voice's own (1.0); `tract` raises it too.
        tract: vocal tract scale, near the voice's own.
        peak_db: peak level of the written audio, dB relative to full scale.
        pause_after: index of the digit after which the speaker pauses, or None.
    """

    voice: Voice
    digits: str
    take: int
    rate: float
    pitch: float
    tract: float
    peak_db: float
    pause_after: int | None = None

    @property
    def name(self) -> str:
        """File name without its suffix."""
        return f"{self.digits}_{self.voice.name}_{self.take}"

    @property
    def text(self) -> str:
        """Transcript: upper case words."""
        return " ".join(DIGIT_WORDS[int(digit)] for digit in self.digits).upper()

    @property
    def spoken(self) -> str:
        """Text for the synthesiser: words, or phonemes for an accented voice; a comma pauses."""
        words = self.voice.phonemes or DIGIT_WORDS
        said = [words[int(digit)] for digit in self.digits]
        pause = len(said) if self.pause_after is None else self.pause_after + 1
        phrases = [" ".join(part) for part in (said[:pause], said[pause:]) if part]
        return ", ".join(f"[[{phrase}]]" if self.voice.phonemes else phrase for phrase in phrases)


def plan_corpus(
    voices: Sequence[Voice], *, takes: int, seed: int, strings: int = STRINGS_PER_VOICE
) -> list[Utterance]:
    """List everything that a corpus says, in the order in which it is written.

    Args:
        voices: who speaks.
        takes: takes of each of the ten digits per voice, at least 1.
        seed: fixes every draw; a voice's draws do not depend on which other voices there are.
        strings: utterances of 3 to 8 digits per voice.

    Raises:
        ValueError: `takes` is below 1 or `strings` below 0.
    """
    if takes < 1 or strings < 0:
        raise ValueError(
            f"takes must be at least 1 and strings at least 0, got {takes} and {strings}"
        )
    return [said for voice in voices for said in _plan_voice(voice, takes, seed, strings)]


def _plan_voice(voice: Voice, takes: int, seed: int, strings: int) -> Iterator[Utterance]:
    rng = np.random.default_rng([seed, zlib.crc32(voice.name.encode())])
    for digit in range(10):
        for take in range(takes):
            yield _draw(voice, str(digit), take, rng)
    for take in range(strings):
        digits = SAMPLE_CLIP_DIGITS
        while SAMPLE_CLIP_DIGITS in digits:
            digits = "".join(map(str, rng.integers(10, size=rng.integers(3, 9))))
        pause = int(rng.integers(len(digits) - 1)) if rng.random() < 0.3 else None
        yield _draw(voice, digits, take, rng, pause)


def _draw(
    voice: Voice, digits: str, take: int, rng: np.random.Generator, pause_after: int | None = None
) -> Utterance:
    # Ranges are geometric around 1: ratios are what the ear hears.
    low, high = np.log([(0.75, 0.85, 0.96), (1.35, 1.18, 1.04)])
    rate, pitch, tract = np.exp(rng.uniform(low, high))
    return Utterance(
        voice=voice,
        digits=digits,
        take=take,
        rate=float(rate),
        pitch=float(pitch),
        tract=voice.tract * float(tract),
        peak_db=float(rng.uniform(-14.0, -1.0)),
        pause_after=pause_after,
    )


def require_synthesisers(engines: Iterable[str]) -> None:
    """Check that the programs are installed.

    Raises:
        UserError: one is not; the message names the Debian packages that bring it.
    """
    missing = [engine for engine in sorted(set(engines)) if shutil.which(engine) is None]
    if missing:
        packages = " ".join(PACKAGES[engine] for engine in missing)
        raise UserError(
            f"missing speech synthesiser: {', '.join(missing)}; "
            f"on Debian or Ubuntu: apt-get install {packages}"
        )


def trim_silence(samples: NDArray[np.float32], *, margin: float = 0.03) -> NDArray[np.float32]:
    """Cut leading and trailing audio that is 40 dB below the loudest 10 ms.

    Args:
        samples: (num_samples,) at 16 kHz.
        margin: seconds of the quiet part that are kept at each end, where there are that many.

    Returns:
        A view of `samples`; empty when all samples are zero.
    """
    if not samples.any():
        return samples[:0]
    window = SAMPLE_RATE // 100
    power = np.convolve(np.square(samples, dtype=np.float64), np.ones(window) / window, mode="same")
    loud = np.flatnonzero(power > power.max() * 1e-4)
    pad = round(margin * SAMPLE_RATE)
    return samples[max(loud[0] - pad, 0) : loud[-1] + pad + 1]


def speak(utterances: Sequence[Utterance], folder: Path) -> Iterator[NDArray[np.float32]]:
    """Synthesise utterances of one voice, in order.

    Args:
        utterances: at least one, all of the same voice.
        folder: an existing folder for the synthesiser's own files.

    Yields:
        (num_samples,) at 16 kHz, trimmed and scaled to the utterance's peak level.

    Raises:
        UserError: the synthesiser wrote nothing (most often a voice package is missing) or only
            silence.
    """
    if utterances[0].voice.engine == "festival":
        wav_paths = _run_festival(utterances, folder)
    else:
        wav_paths = (_run_one(said, folder / "spoken.wav") for said in utterances)
    for said, path in zip(utterances, wav_paths, strict=True):
        yield _finish(said, path)


def _run_one(said: Utterance, path: Path) -> Path:
    path.unlink(missing_ok=True)
    make_command = _espeak_command if said.voice.engine == "espeak-ng" else _flite_command
    command = make_command(said, path)
    _check_written(said, path, _run(command))
    return path


def _espeak_command(said: Utterance, path: Path) -> list[str]:
    # Around its middle, one step of espeak-ng's pitch is about 1 % of fundamental frequency.
    pitch = said.voice.base_pitch + 100.0 * np.log(said.pitch)
    options = {
        "-v": said.voice.model,
        "-s": str(round(150 * said.rate / said.tract)),
        "-w": str(path),
    }
    options["-p"] = str(round(float(np.clip(pitch, 0, 99))))
    return ["espeak-ng", *(word for pair in options.items() for word in pair), said.spoken]


def _flite_command(said: Utterance, path: Path) -> list[str]:
    # The tract scale shortens and raises the audio afterwards; only pitch is left to rise with it.
    stretch = said.tract / said.rate
    pitch = said.voice.base_pitch * said.pitch
    settings = [f"duration_stretch={stretch:.4f}", f"int_f0_target_mean={pitch:.2f}"]
    options = [word for setting in settings for word in ("--setf", setting)]
    return ["flite", "-voice", said.voice.model, *options, "-t", said.spoken, "-o", str(path)]


def _run_festival(utterances: Sequence[Utterance], folder: Path) -> Iterator[Path]:
    # Festival takes a second to start, so one run says all that a voice has to say.
    voice = utterances[0].voice
    paths = [folder / f"{index}.wav" for index in range(len(utterances))]
    # HTS voices take their rate from hts_engine_params, diphone voices from Duration_Stretch.
    script = [f"({voice.model})", "(defvar hts_engine_params nil)", "(set! own hts_engine_params)"]
    for path in paths:
        path.unlink(missing_ok=True)
    for said, path in zip(utterances, paths, strict=True):
        pitch, rate = voice.base_pitch * said.pitch, said.rate / said.tract
        script += [
            f"(Parameter.set 'Duration_Stretch {1 / rate:.4f})",
            f'(set! hts_engine_params (append own (list (list "-r" {rate:.4f}))))',
            f"(set-cdr! (assoc 'target_f0_mean int_lr_params) (list {pitch:.2f}))",
            # A bare file name: a folder's name could hold characters that Scheme reads as its own.
            f"""(utt.save.wave (utt.synth (Utterance Text "{said.spoken}")) "{path.name}" 'riff)""",
        ]
    (folder / "say.scm").write_text("\n".join(script) + "\n")
    stderr = _run(["festival", "--batch", "say.scm"], folder)
    for said, path in zip(utterances, paths, strict=True):
        _check_written(said, path, stderr)
        yield path


def _run(command: list[str], folder: Path | None = None) -> str:
    finished = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    return finished.stderr


def _check_written(said: Utterance, path: Path, stderr: str) -> None:
    if not path.is_file():
        engine, reason = said.voice.engine, (stderr.strip().splitlines() or ["no message"])[0]
        raise UserError(
            f"{engine} cannot speak with voice '{said.voice.model}' ({reason}); "
            f"on Debian or Ubuntu: apt-get install {PACKAGES[engine]}"
        )


def _finish(said: Utterance, path: Path) -> NDArray[np.float32]:
    samples, rate = soundfile.read(path, dtype="float32")
    samples = soxr.resample(samples, rate * said.tract, SAMPLE_RATE, quality="HQ")
    samples = trim_silence(samples)
    peak = float(np.abs(samples).max(initial=0.0))
    if peak == 0.0:
        raise UserError(f"{said.voice.engine} voice '{said.voice.model}' spoke only silence")
    return samples * np.float32(10 ** (said.peak_db / 20) / peak)


def synthesize_corpus(
    out: Path,
    *,
    voices: Sequence[Voice] = VOICES,
    takes: int = 8,
    seed: int = 0,
    strings: int = STRINGS_PER_VOICE,
) -> Path:
    """Write a corpus of spoken digits; the folder appears complete or not at all.

    Args:
        out: folder to create; it must not exist.
        voices: who speaks.
        takes: takes of each digit per voice.
        seed: same seed, same programs: same corpus.
        strings: utterances of 3 to 8 digits per voice.

    Returns:
        `out`.

    Raises:
        UserError: `out` exists, or a synthesiser or one of its voices is missing.
        ValueError: `takes` or `strings` out of range.
    """
    if out.exists():
        raise UserError(f"'{out}' exists already; name a new folder")
    plan = plan_corpus(voices, takes=takes, seed=seed, strings=strings)
    require_synthesisers(voice.engine for voice in voices)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        corpus = Path(scratch, "corpus")
        (corpus / "audio").mkdir(parents=True)
        _write_corpus(plan, corpus, Path(scratch))
        corpus.rename(out)
    return out


def _write_corpus(plan: Sequence[Utterance], corpus: Path, scratch: Path) -> None:
    rows = ["\t".join(HEADER)]
    with Progress("speaking", total=len(plan), unit="utterances") as progress:
        for voice in dict.fromkeys(said.voice for said in plan):
            said_by_voice = [said for said in plan if said.voice == voice]
            for said, samples in zip(said_by_voice, speak(said_by_voice, scratch), strict=True):
                path = corpus / "audio" / f"{said.name}.flac"
                # Written by Python, which says it when the disk is full.
                content = io.BytesIO()
                soundfile.write(content, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
                path.write_bytes(content.getvalue())
                seconds = f"{len(samples) / SAMPLE_RATE:.3f}"
                rows.append("\t".join([said.name, voice.name, str(said.take), seconds, said.text]))
                progress.advance()
    (corpus / "transcripts.tsv").write_text("\n".join(rows) + "\n")
