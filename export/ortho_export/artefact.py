"""One way to use a model whatever it is stored as: a program, an ONNX model or a checkpoint."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from ortho_edge.atomic import recover
from ortho_edge.checkpoint import DESCRIPTION, load_checkpoint
from ortho_edge.cli import UserError
from ortho_edge.compaction import compact
from ortho_edge.conformer.architecture import subsampled_length
from ortho_edge.data.audio import SAMPLE_RATE, audio_blocks, load_audio
from ortho_edge.data.features import FRAME_SHIFT, fbank, num_frames
from ortho_edge.decoding import greedy_text
from ortho_edge.long_audio import Stretch, stretches
from ortho_edge.progress import Progress
from ortho_edge.tokens import Tokens
from ortho_export import executorch, manifest, onnx
from ortho_export.facts import AUDIO_IN, FRAMES_PER_SECOND, MAX_FRAMES, MIN_FRAMES, Facts
from ortho_export.isolated import IsolatedModel
from ortho_export.manifest import MANIFEST

logger = logging.getLogger(__name__)

PROGRAM_SUFFIX, ONNX_SUFFIXES = ".pte", (".onnx", ".ort")

Length = TypeVar("Length", int, Tensor)
Encoder = Callable[
    [Float[Tensor, "B ..."], Int64[Tensor, " B"]],
    tuple[Float[Tensor, "B T4 V"], Int64[Tensor, " B"]],
]
"""Padded features or audio and their lengths to log-probabilities and their lengths."""


@dataclass(frozen=True, kw_only=True)
class Recognizer:
    """A loaded model.

    Attributes:
        name: What it was loaded from.
        subnet: Name of the subnet inside.
        tokens: Meaning of the outputs.
        encoder: The model itself; call `encode_batch`, which checks lengths first.
        min_frames: Shortest input in frames of 10 ms.
        max_frames: Longest input that was checked; None where there is no limit.
        checkpoint_digest: Of the checkpoint that an artefact was made from.
        features: What the encoder takes, of mono 16 kHz samples in [-1, 1]: features (T, bins), or
            the samples themselves.
        takes_audio: Whether it is the samples.
    """

    name: str
    subnet: str
    tokens: Tokens
    encoder: Encoder
    min_frames: int = MIN_FRAMES
    max_frames: int | None = None
    checkpoint_digest: str = ""
    features: Callable[[np.ndarray], Tensor] = fbank
    takes_audio: bool = False

    def num_frames(self, lengths: Length) -> Length:
        """Frames of 10 ms in inputs of the encoder of those lengths."""
        return num_frames(lengths) if self.takes_audio else lengths

    def check_length(self, frames: int, what: str = "the audio") -> None:
        """Checks that an input of that many frames is neither too short nor too long.

        Raises:
            UserError: It is; `what` names the audio.
        """
        limit = None
        if frames < self.min_frames:
            limit = f"shorter than the {self.min_frames / FRAMES_PER_SECOND:.2f} s"
        elif self.max_frames is not None and frames > self.max_frames:
            limit = f"longer than the {self.max_frames / FRAMES_PER_SECOND:.2f} s"
        if limit:
            raise UserError(
                f"{what} is {frames / FRAMES_PER_SECOND:.2f} s long, {limit} that {self.name} takes"
            )

    def check_samples(self, num_samples: int, what: str = "the audio") -> None:
        """`check_length` of so many samples at 16 kHz."""
        self.check_length(num_frames(num_samples), what)

    @torch.no_grad()
    def encode_batch(
        self, features: Float[Tensor, "B ..."], lengths: Int64[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B T4 V"], Int64[Tensor, " B"]]:
        """Log-probabilities and their lengths of a padded batch of what the encoder takes.

        Raises:
            UserError: An utterance is too short or too long.
        """
        for frames in self.num_frames(lengths).tolist():
            self.check_length(frames)
        return self.encoder(features, lengths)

    def log_probs(self, features: Float[Tensor, "T ..."]) -> Float32[np.ndarray, "T4 V"]:
        """Log-probabilities of one utterance.

        Raises:
            UserError: It is too short or too long.
        """
        output, _ = self.encode_batch(features[None], torch.tensor([len(features)]))
        return output[0].numpy()

    @property
    def longest(self) -> int:
        """Most samples at 16 kHz that are heard as a whole."""
        return FRAME_SHIFT * (MAX_FRAMES if self.max_frames is None else self.max_frames)

    def text(self, log_probs: Float32[np.ndarray, "T4 V"]) -> str:
        """The words of log-probabilities, found greedily."""
        return greedy_text(log_probs, self.tokens)

    def stretches(self, blocks: Iterable[np.ndarray]) -> Iterator[Stretch]:
        """Hears audio of any length, cut at its pauses.

        Args:
            blocks: Mono 16 kHz samples in [-1, 1] as they come, at least `min_frames` in all.
        """
        return stretches(
            blocks, lambda samples: self.log_probs(self.features(samples)), self.longest
        )

    def transcribe_file(self, path: Path, num_samples: int) -> str:
        """The words of an audio file; a long one is heard in pieces, with progress.

        Args:
            path: The file.
            num_samples: Its length at 16 kHz.

        Raises:
            UserError: The file cannot be read or is too short.
        """
        if num_samples <= self.longest:
            return self.transcribe(load_audio(path))
        words, done = [], 0
        seconds = num_samples // SAMPLE_RATE
        with Progress(f"transcribing {path}", total=seconds, unit="seconds") as progress:
            for stretch in self.stretches(audio_blocks(path)):
                words.append(self.text(stretch.log_probs))
                progress.advance(int(stretch.end) - done)
                done = int(stretch.end)
        return " ".join(filter(None, words))

    def transcribe(self, samples: Float32[np.ndarray, " samples"]) -> str:
        """The words of mono 16 kHz samples in [-1, 1].

        Raises:
            UserError: The audio is too short or too long.
        """
        self.check_samples(len(samples))
        return self.text(self.log_probs(self.features(samples)))


def load_artefact(
    path: Path, *, threads: int = 1, subnet: str | None = None, trusted: bool = False
) -> Recognizer:
    """Loads a `.pte`, a `.onnx`, a `.ort` or a checkpoint folder.

    Args:
        path: The file or folder. A file whose digest stands in a `manifest.json` beside it must
            have that digest; one without runs in a process of its own, which may crash.
        threads: CPU threads; for a program and a checkpoint they count for the whole process.
        subnet: Which subnet of a checkpoint; the largest by default.
        trusted: Whether this process has just written the file.

    Raises:
        UserError: It is missing, truncated, changed or no artefact of this project, or there is no
            such subnet.
    """
    path = Path(path)
    for name in (path, path.parent):
        if not name.exists():
            recover(name)
    if threads < 1:
        raise UserError(f"threads must be at least 1, not {threads}")
    if path.is_dir():
        return _load_checkpoint(path, threads, subnet)
    if not path.is_file():
        raise UserError(f"no model at {path}")
    if subnet is not None:
        raise UserError(f"{path} holds one subnet only; choose {subnet!r} from a checkpoint folder")
    if path.suffix not in (PROGRAM_SUFFIX, *ONNX_SUFFIXES):
        raise UserError(f"{path} is no .pte, .onnx or .ort file and no checkpoint folder")
    facts, encoder = _loaded(path, threads, manifest.verify_file(path) or trusted)
    return Recognizer(
        name=path.name,
        subnet=facts.subnet,
        tokens=facts.tokens,
        encoder=encoder,
        min_frames=facts.min_frames,
        max_frames=facts.max_frames,
        checkpoint_digest=facts.checkpoint_digest,
        features=_samples if facts.input == AUDIO_IN else fbank,
        takes_audio=facts.input == AUDIO_IN,
    )


def _loaded(path: Path, threads: int, vouched: bool) -> tuple[Facts, Encoder]:
    """What a file says of itself, and its encoder."""
    loader = executorch if path.suffix == PROGRAM_SUFFIX else onnx
    if vouched:
        if loader is executorch:
            facts, run_program = executorch.load(path, threads)
            return facts, _one_by_one(run_program, facts)
        facts, run_model = onnx.load(path, threads)
        return facts, _as_tensors(run_model)
    loader.check_whole(path)
    logger.info("no %s states the digest of %s: it runs in a process of its own", MANIFEST, path)
    model = IsolatedModel(path, threads)
    if loader is executorch:
        return model.facts, _one_by_one(lambda one: model.run(one)[0], model.facts)
    return model.facts, _as_tensors(lambda batch, lengths: _pair(model.run(batch, lengths)))


def _pair(outputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    log_probs, lengths = outputs
    return log_probs, lengths


def _load_checkpoint(path: Path, threads: int, subnet: str | None) -> Recognizer:
    exported = sorted(
        one.name for one in path.iterdir() if one.suffix in (PROGRAM_SUFFIX, *ONNX_SUFFIXES)
    )
    if exported and not (path / DESCRIPTION).exists():
        raise UserError(f"{path} is a folder of artefacts; name one of {', '.join(exported)} in it")
    checkpoint = load_checkpoint(path)
    if not checkpoint.subnets:
        raise UserError(f"checkpoint {path} has no trained subnet")
    trained = checkpoint.subnets[0] if subnet is None else checkpoint.subnet(subnet)
    torch.set_num_threads(threads)
    return Recognizer(
        name=f"{path.name}/{trained.name}",
        subnet=trained.name,
        tokens=checkpoint.tokens,
        encoder=compact(checkpoint.supernet, trained.subnet, trained.head),
    )


def _one_by_one(run: executorch.Forward, facts: Facts) -> Encoder:
    """A batch encoder from one that takes a single utterance without padding."""

    def encoder(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        outputs = [
            torch.from_numpy(run(one[None, :length].numpy())[0])
            for one, length in zip(features, lengths.tolist(), strict=True)
        ]
        frames = num_frames(lengths) if facts.input == AUDIO_IN else lengths
        padded = torch.nn.utils.rnn.pad_sequence(outputs, batch_first=True)
        return padded, subsampled_length(frames)

    return encoder


def _samples(samples: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))


def _as_tensors(run: onnx.Forward) -> Encoder:
    def encoder(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        log_probs, log_probs_len = run(features.numpy(), lengths.numpy())
        return torch.from_numpy(log_probs), torch.from_numpy(log_probs_len)

    return encoder
