"""Where a checkpoint comes from: commit, versions and a digest of the data."""

import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from lhotse import CutSet
from lhotse.cut import Cut, MixedCut
from lhotse.cut.data import DataCut

from ortho_edge.data.waveforms import each_cut
from ortho_edge.training.corpora import CUTS_FOR_DIGEST, Corpus


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What identifies the data of a run, without reading any audio.

    Attributes:
        cuts: How many there are; of very many, how many were looked at.
        hours: How long they are together.
        digest: SHA-256 over their names, recordings, lengths and texts.
    """

    cuts: int
    hours: float
    digest: str

    @classmethod
    def of(cls, cuts: Iterable[Cut] | CutSet) -> "DataFacts":
        """The facts of the first cuts of a set, at most `CUTS_FOR_DIGEST`."""
        digest, count, seconds = hashlib.sha256(), 0, 0.0
        for cut in islice(cuts, CUTS_FOR_DIGEST):  # pyright: ignore[reportArgumentType] - see each_cut
            text = cut.supervisions[0].text if cut.supervisions else ""
            line = [cut.id, _recordings(cut), f"{cut.duration:.4f}", text]
            digest.update((json.dumps(line) + "\n").encode())
            count += 1
            seconds += cut.duration
        return cls(cuts=count, hours=round(seconds / 3600, 4), digest=digest.hexdigest())


def training_data(corpus: Corpus) -> DataFacts:
    """Of the first epoch."""
    return DataFacts.of(corpus.training_cuts(0, 1.0))


def development_data(corpus: Corpus) -> DataFacts:
    """Of all development sets together."""
    return DataFacts.of(chain.from_iterable(map(each_cut, corpus.development.values())))


def _recordings(cut: Cut) -> list[str]:
    """The names of those that a cut consists of; where they lie may change."""
    parts = [track.cut for track in cut.tracks] if isinstance(cut, MixedCut) else [cut]
    return [part.recording_id for part in parts if isinstance(part, DataCut) and part.has_recording]


def source_commit() -> str:
    """The commit of the source tree, or `unknown` outside a checkout."""
    result = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def package_versions() -> dict[str, str]:
    """Versions of Python and of what decides on results."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("torch", "lhotse", "numpy")},
    }
