"""Miniature corpora in exactly the layout and the formats that their archives unpack to."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

from tests.data.generated import speech_like

LIBRISPEECH_TEXTS = {
    "train-clean-100": ["THE CAT SAT", "A CAT AND A HAT", "THAT HAT SAT", "TEA AT TEN", "THE TEN"],
    "train-other-500": ["NO ONE'S CAT", "THE HATTER SAT AND SAT", "ONE TEA"],
    "dev-clean": ["THE HAT", "A TEN"],
    "dev-other": ["THAT CAT"],
    "test-clean": ["ONE CAT", "THE TEA SAT"],
    "test-other": ["A HAT"],
}
PARTS = tuple(LIBRISPEECH_TEXTS)

LEXICON = """\
A  AH0
A  EY1
AND  AH0 N D
AT  AE1 T
CAT  K AE1 T
HAT  HH AE1 T
NO  N OW1
ONE  W AH1 N
ONE'S  W AH1 N Z
SAT  S AE1 T
TEA  T IY1
TEN  T EH1 N
THAT  DH AE1 T
THE  DH AH0
THE  DH IY0
WON  W AH1 N
"""
"""As librispeech-lexicon.txt; HATTER is missing."""


def librispeech(folder: Path, texts: Mapping[str, Sequence[str]] = LIBRISPEECH_TEXTS) -> Path:
    """LibriSpeech/PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NUMBER.flac, two chapters of a part."""
    root = folder / "LibriSpeech"
    root.mkdir(parents=True)
    for name in ("README.TXT", "LICENSE.TXT", "CHAPTERS.TXT", "BOOKS.TXT"):
        (root / name).write_text(f"; {name} of LibriSpeech\n")
    speakers = [";ID  |SEX| SUBSET           |MINUTES| NAME"]
    for number, (part, lines) in enumerate(texts.items()):
        for place, chapter_lines in enumerate((lines[::2], lines[1::2])):
            if not chapter_lines:
                continue
            speaker, chapter = 14 + 2 * number + place, 100 + number
            speakers.append(f"{speaker:<4} | F | {part:<16} | 25.03 | Nobody {speaker}")
            at = root / part / str(speaker) / str(chapter)
            at.mkdir(parents=True)
            rows = []
            for index, text in enumerate(chapter_lines):
                name = f"{speaker}-{chapter}-{index:04d}"
                seconds = 0.6 + 0.4 * len(text.split())
                samples = speech_like(seconds, 16000, seed=100 * speaker + index)
                soundfile.write(at / f"{name}.flac", samples, 16000, subtype="PCM_16")
                rows.append(f"{name} {text}")
            (at / f"{speaker}-{chapter}.trans.txt").write_text("\n".join(rows) + "\n")
    (root / "SPEAKERS.TXT").write_text("\n".join(speakers) + "\n")
    return root


TALKS = {
    "train": {
        "AlGore_2009": [
            (0.25, 2.0, "the cat sat"),
            (2.0, 3.0, "ignore_time_segment_in_scoring"),
            (3.0, 5.5, "they 're the cat 's {NOISE} hats"),
            (5.5, 7.0, "<unk> and a hat"),
            (7.25, 9.0, "that hat(2) <sil> sat"),
        ],
        "BillGates_2010": [(0.0, 1.5, "a tea"), (1.5, 4.0, "the ten hats at ten")],
    },
    "dev": {"DanielKahneman_2010": [(0.5, 2.5, "the cat <unk> sat"), (2.5, 3.5, "{NOISE}")]},
    "test": {"GaryFlake_2010": [(0.5, 2.5, "a hat and a cat")]},
}


def tedlium2(folder: Path) -> Path:
    """TEDLIUM_release2/PART/{sph,stm}/TALK.{sph,stm}, and the dictionary beside them."""
    root = folder / "TEDLIUM_release2"
    for part, talks in TALKS.items():
        for kind in ("sph", "stm"):
            (root / part / kind).mkdir(parents=True)
        for number, (talk, segments) in enumerate(talks.items()):
            samples = speech_like(segments[-1][1] + 0.5, 16000, seed=number + len(part))
            write_sphere(root / part / "sph" / f"{talk}.sph", samples, "01" if number else "10")
            rows = [
                f"{talk} 1 {'inter_segment_gap' if text.startswith('ignore') else talk} "
                f"{start:.2f} {stop:.2f} <o,f0,male> {text}"
                for start, stop, text in segments
            ]
            (root / part / "stm" / f"{talk}.stm").write_text("\n".join(rows) + "\n")
    (root / "TEDLIUM.152k.dic").write_text("cat K AE T\nthe DH AH\nthe(2) DH IY\n")
    return root


def write_sphere(path: Path, samples: np.ndarray, byte_format: str) -> None:
    """A NIST sphere file of 16-bit PCM; `01` puts the low byte first, `10` the high one."""
    fields = [
        "NIST_1A",
        "   1024",
        "channel_count -i 1",
        "sample_rate -i 16000",
        "sample_n_bytes -i 2",
        f"sample_byte_format -s2 {byte_format}",
        "sample_sig_bits -i 16",
        "sample_coding -s3 pcm",
        f"sample_count -i {len(samples)}",
        "end_head",
    ]
    header = ("\n".join(fields) + "\n").encode().ljust(1024)
    words = np.rint(samples * 32767).astype("<i2" if byte_format == "01" else ">i2")
    path.write_bytes(header + words.tobytes())


def musan(folder: Path) -> Path:
    """musan/{noise,music,speech}/SOURCE/NAME.wav with the annotations of the music."""
    root = folder / "musan"
    for kind, source in (("noise", "free-sound"), ("music", "fma"), ("speech", "librivox")):
        at = root / kind / source
        at.mkdir(parents=True)
        name = f"{kind}-{source}-0000"
        samples = 0.1 * np.random.default_rng(len(kind)).standard_normal(48000)
        soundfile.write(at / f"{name}.wav", samples, 16000, subtype="PCM_16")
        (at / "LICENSE").write_text("none\n")
        if kind == "music":
            (at / "ANNOTATIONS").write_text(f"{name} classical N somebody\n")
    return root
