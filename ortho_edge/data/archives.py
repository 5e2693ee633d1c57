"""LibriSpeech, TED-LIUM 2 and MUSAN as they are unpacked, through lhotse's own recipes.

A part becomes eager cuts, one for each utterance, with its text in upper case. The order is random
but always the same, so that a lazy reader that only shuffles what is near still mixes speakers.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from lhotse import CutSet, RecordingSet
from lhotse.audio.backend import audio_backend
from lhotse.cut import Cut
from lhotse.recipes import prepare_librispeech, prepare_musan
from lhotse.recipes.librispeech import LIBRISPEECH, MINI_LIBRISPEECH
from lhotse.recipes.tedlium2 import TEDLIUM_PARTS, prepare_tedlium2
from lhotse.recipes.utils import normalize_text_tedlium

from ortho_edge.cli import UserError
from ortho_edge.data.waveforms import each_cut

UNKNOWN_WORD = "<unk>"
_NO_SPEECH = re.compile(r"\{[^}]*\}|<(?!unk>)[^>]*>|\(\d+\)")
"""Noises, fillers such as <sil>, and the numbers of pronunciations, as in `the(2)`."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A corpus as its authors pack it.

    Attributes:
        folder: The folder inside the archive.
        parts: What it consists of.
        known: Further parts that can be named.
        read: From the folder and a part to its cuts and, by reason, how many were left out.
    """

    folder: str
    parts: Sequence[str]
    known: Sequence[str] = ()
    read: Callable[[Path, str], tuple[list[Cut], Counter]]

    def locate(self, path: Path) -> Path:
        """The corpus at a path: its own folder or the one that it was unpacked in.

        Raises:
            UserError: It is at neither.
        """
        every = (*self.parts, *self.known)
        for folder in (path, path / self.folder):
            if any((folder / part).is_dir() for part in every):
                return folder.resolve()
        if not path.is_dir():
            raise UserError(f"no such folder: {path}")
        raise UserError(f"no {self.folder} in {path}: none of {', '.join(every)} is there")

    def check(self, folder: Path, parts: Sequence[str]) -> None:
        """Checks that parts are known and there.

        Raises:
            UserError: One is not.
        """
        every = (*self.parts, *self.known)
        unknown = [part for part in parts if part not in every]
        if unknown:
            raise UserError(f"unknown part {unknown[0]!r}; known: {', '.join(every)}")
        missing = [part for part in parts if not (folder / part).is_dir()]
        if missing:
            raise UserError(
                f"{folder} lacks {', '.join(missing)}: unpack them there, "
                "or name those that are wanted with --parts"
            )


def _librispeech(folder: Path, part: str) -> tuple[list[Cut], Counter]:
    transcripts = sorted((folder / part).rglob("*.trans.txt"))
    names = [
        name.split(maxsplit=1)[0] for path in transcripts for name in _lines(path) if name.strip()
    ]
    if not names:
        raise UserError(f"{folder / part} holds no *.trans.txt: is it unpacked to the end?")
    manifests = _through_lhotse(
        lambda: prepare_librispeech(folder, dataset_parts=[part]), folder / part
    )
    cuts = _utterances(manifests[part], str.upper)
    lost = sorted(set(names) - {cut.id for cut in cuts})
    if lost:
        raise UserError(
            f"{folder / part} lacks the audio of {len(lost)} of {len(names)} utterances, "
            f"such as {lost[0]}: unpack the archive again"
        )
    return cuts, Counter()


def _tedlium2(folder: Path, part: str) -> tuple[list[Cut], Counter]:
    talks, texts = (
        {path.stem for path in (folder / part / kind).glob(f"*.{kind}")} for kind in ("sph", "stm")
    )
    if not texts:
        raise UserError(f"{folder / part} has no stm/*.stm: is it unpacked to the end?")
    if talks != texts:
        alone = sorted(talks ^ texts)
        raise UserError(
            f"{folder / part}: {len(alone)} talks have audio or a transcript but not both, "
            f"such as {alone[0]}"
        )
    manifests = _through_lhotse(lambda: prepare_tedlium2(folder, dataset_parts=part), folder / part)
    cuts, dropped = [], Counter()
    for cut in _utterances(manifests[part], str):
        raw = cut.supervisions[0].text or ""
        text = tedlium_text(raw)
        if not text:
            dropped["no words"] += 1
        elif part == "train" and UNKNOWN_WORD in raw:
            # Something was said there that the text does not tell.
            dropped["unknown word"] += 1
        else:
            cut.supervisions[0].text = text
            cuts.append(cut)
    return cuts, dropped


def tedlium_text(text: str) -> str:
    """A TED-LIUM transcript as plain words: `they 're <unk>` is THEY'RE."""
    return " ".join(normalize_text_tedlium(_NO_SPEECH.sub(" ", text), "kaldi").upper().split())


def musan_noise(folder: Path) -> CutSet:
    """MUSAN's noise and music, to be mixed into speech.

    Args:
        folder: The folder `musan`, or the one that it was unpacked in.

    Raises:
        UserError: It is not there or holds no audio.
    """
    at = next((one for one in (folder, folder / "musan") if (one / "noise").is_dir()), None)
    if at is None:
        raise UserError(f"no MUSAN in {folder}: it has no folder noise")
    at = at.resolve()
    parts = [part for part in ("noise", "music") if (at / part).is_dir()]
    manifests = _through_lhotse(lambda: prepare_musan(at, parts=parts), at)
    recordings = [cast("RecordingSet", manifests[part]["recordings"]) for part in parts]
    cuts = [cut for one in recordings for cut in each_cut(CutSet.from_manifests(recordings=one))]
    if not cuts:
        raise UserError(f"{at} holds no wav file")
    return CutSet.from_cuts(_shuffled(cuts))


ARCHIVES: dict[str, Archive] = {
    "librispeech": Archive(
        folder="LibriSpeech", parts=LIBRISPEECH, known=MINI_LIBRISPEECH, read=_librispeech
    ),
    "tedlium2": Archive(folder="TEDLIUM_release2", parts=TEDLIUM_PARTS, read=_tedlium2),
}


def _through_lhotse(read: Callable[[], Result], folder: Path) -> Result:
    """Runs one of lhotse's recipes; what it cannot read is the user's to mend."""
    try:
        # By itself lhotse calls the program sph2pipe for sphere files; libsndfile reads these.
        with audio_backend("LibsndfileBackend"):
            return read()
    except Exception as error:  # lhotse raises whatever its parts do
        detail = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"cannot read {folder}: {detail[0]}") from error


def _utterances(manifests: dict, text: Callable[[str], str]) -> list[Cut]:
    """One cut of each supervision, under the supervision's name."""
    cuts = CutSet.from_manifests(
        recordings=manifests["recordings"],
        supervisions=manifests["supervisions"].transform_text(text),
    ).trim_to_supervisions(keep_overlapping=False)
    return _shuffled(list(each_cut(cuts)))


def _shuffled(cuts: list[Cut]) -> list[Cut]:
    cuts.sort(key=lambda cut: cut.id)
    random.Random(0).shuffle(cuts)
    return cuts


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
