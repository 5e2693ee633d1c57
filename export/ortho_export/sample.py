"""The sample clip that a checkpoint may carry, and what artefacts hear in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ortho_edge.cli import UserError
from ortho_edge.data.audio import load_audio
from ortho_export.artefact import Recognizer

SAMPLE, SAMPLE_TEXT = "sample.flac", "sample.txt"
"""A clip and its words, which a checkpoint folder may carry."""


def load_sample(checkpoint: Path) -> np.ndarray | None:
    """The sample clip of a checkpoint folder; None where it carries none."""
    return load_audio(checkpoint / SAMPLE) if (checkpoint / SAMPLE).is_file() else None


def sample_text(checkpoint: Path) -> str | None:
    """The words of the sample clip; None where the checkpoint does not say."""
    path = checkpoint / SAMPLE_TEXT
    try:
        return " ".join(path.read_text("utf-8").split()) if path.is_file() else None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text: {error}") from error


def describe_sample(
    checkpoint: Path, recognizers: Mapping[str, Recognizer]
) -> dict[str, Any] | None:
    """For the manifest: the words of the sample, and what each artefact hears, by its file.

    Returns:
        None where the checkpoint carries no sample.
    """
    sample = load_sample(checkpoint)
    if sample is None:
        return None
    return {
        "clip": SAMPLE,
        "says": sample_text(checkpoint),
        "heard": {name: one.transcribe(sample) for name, one in recognizers.items()},
    }
