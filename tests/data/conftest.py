"""A small corpus of generated speech-like audio, so that these tests need no recordings."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet

from ortho_edge.data.corpora import synthetic
from tests.data.generated import TEXTS, speech_like


@pytest.fixture
def corpus_folder(tmp_path: Path) -> Path:
    """Twelve utterances of 0.6 to 2.8 s by three speakers, laid out as every corpus is."""
    folder = tmp_path / "corpus"
    (folder / "audio").mkdir(parents=True)
    lines = ["utterance\tspeaker\tseconds\ttext"]
    for index, text in enumerate(TEXTS):
        samples = speech_like(0.6 + 0.2 * index, 16000, seed=index)
        soundfile.write(folder / "audio" / f"u{index}.flac", samples, 16000)
        # The table's seconds are wrong on purpose: nothing may rely on them.
        lines.append(f"u{index}\tspeaker{index % 3}\t9.9\t{text}")
    (folder / "transcripts.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def corpus(corpus_folder: Path) -> CutSet:
    """The cuts of `corpus_folder`."""
    return synthetic(corpus_folder)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that starts alike in each test."""
    return np.random.default_rng(20)
