"""Command: audio files in, text out.

python -m ortho_edge.transcribe MODEL AUDIO... [--subnet NAME] [--threads 1]
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ortho_edge import progress
from ortho_edge.cli import run
from ortho_edge.options import Threads


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Transcribe audio files of any format, rate and length with an exported model or a checkpoint.

    Prints one line per file, then the real-time factor: computing time per duration of audio.
    """

    model: Annotated[Path, tyro.conf.Positional]
    """A .pte file, a .onnx file or a checkpoint folder."""
    audio: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Audio files (wav, flac, ogg, ...)."""
    subnet: str | None = None
    """Which subnet of a checkpoint; the largest by default."""
    strict: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Refuse audio files that end early, instead of warning of them."""
    threads: Threads = 1
    """CPU threads."""


def main(arguments: Arguments) -> None:
    """Prints `path: text` for every file and the real-time factor.

    Raises:
        UserError: The model or an audio file cannot be used; nothing is printed then.
    """
    from time import perf_counter

    from ortho_edge.cli import UserError
    from ortho_edge.data.audio import SAMPLE_RATE, audio_blocks
    from ortho_export.artefact import load_artefact

    if not arguments.audio:
        raise UserError("name at least one audio file")
    recognizer = load_artefact(arguments.model, threads=arguments.threads, subnet=arguments.subnet)
    # Every file is read before the first is transcribed, so that a bad one ends the command early.
    lengths = []
    for path in arguments.audio:
        lengths.append(sum(map(len, audio_blocks(path, strict=arguments.strict))))
        recognizer.check_samples(min(lengths[-1], recognizer.longest), str(path))
    busy, duration = 0.0, sum(lengths) / SAMPLE_RATE
    for path, length in zip(arguments.audio, lengths, strict=True):
        start = perf_counter()
        text = recognizer.transcribe_file(path, length)
        busy += perf_counter() - start
        progress.tell(f"{path}: {text}")
    print(
        f"RTF {busy / duration:.4f}: {busy:.2f} s for {duration:.2f} s of audio, "
        f"{recognizer.name}, threads: {arguments.threads}"
    )


if __name__ == "__main__":
    run(main, Arguments, prog="python -m ortho_edge.transcribe")
