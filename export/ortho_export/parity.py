"""Parity: an artefact must say what the eager compact encoder says.

Both sides start from the same audio. The reference computes features and log-probabilities in
eager torch; the artefact is used as a client uses it, alone and in padded batches. Where no
log-probability is off by more than the limit, the best symbol of a frame is the same unless another
is within twice the limit of it. Such a tie is no disagreement, so transcripts are counted, and
never a reason to refuse.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from ortho_edge.compaction import DenseEncoder
from ortho_edge.conformer.architecture import subsampled_length
from ortho_edge.data.features import FRAME_SHIFT, fbank, num_frames
from ortho_edge.decoding import greedy_ids
from ortho_export.artefact import Recognizer
from ortho_export.machine import this_machine

FP32_LIMIT = 1e-4
"""Largest allowed difference of a log-probability in fp32."""
AUDIO_LIMIT = 1e-3
"""The same where the artefact computes the features too: two FFTs in float32 differ by that much
where speech is faint."""
EAGER_SHARE = 4.0
"""A network so large that torch's own float32 rounding comes near the limit may be off by this many
times that: both sides round, in different orders."""
PADDING = -23.0
"""What sherpa-onnx pads features with: log(1e-10)."""
LENGTHS = (101, 250, 399, 1001)
"""Checked besides the shortest and the longest input, in frames; odd ones among them."""
MAX_BATCH_FRAMES = 500

Clips = Mapping[str, Float32[np.ndarray, " _"]]


class ParityError(RuntimeError):
    """An artefact disagrees with the encoder it was made from."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Agreement of an artefact with the eager encoder.

    Attributes:
        max_abs_error: Largest difference of a log-probability; from float64 where float32 itself
            is off by more than the limit forgives.
        limit: The largest allowed.
        frames: Length of every clip, by its name.
        same_transcripts: Clips whose greedy transcript is the same, alone.
        machine: Where it was found.
    """

    max_abs_error: float
    limit: float
    frames: Mapping[str, int]
    same_transcripts: int
    machine: str = field(default_factory=this_machine)


def parity_clips(
    sample: Float32[np.ndarray, " samples"] | None, min_frames: int, max_frames: int
) -> dict[str, Float32[np.ndarray, " _"]]:
    """Audio of many lengths: the shortest and the longest, all remainders by 4, odd ones.

    Args:
        sample: Speech, repeated and cut to every length; noise in bursts where there is none.
        min_frames: Shortest length.
        max_frames: Longest length.
    """
    noise = _noise(max_frames)
    lengths = sorted(
        {*range(min_frames, min_frames + 4), *LENGTHS, max_frames - 1, max_frames}
        & set(range(min_frames, max_frames + 1))
    )
    clips = {f"noise-{frames}": noise[: frames * FRAME_SHIFT] for frames in lengths}
    if sample is not None:
        if min_frames <= num_frames(len(sample)) <= max_frames:
            clips["sample"] = sample
        speech = np.resize(sample, max_frames * FRAME_SHIFT)
        clips |= {f"speech-{frames}": speech[: frames * FRAME_SHIFT] for frames in lengths}
    return clips


def _noise(frames: int) -> np.ndarray:
    """Noise whose loudness and colour wander, as speech does, with stretches of silence."""
    generator = np.random.default_rng(0)
    samples = generator.standard_normal(frames * FRAME_SHIFT)
    seconds = np.arange(len(samples)) / (100 * FRAME_SHIFT)
    smooth = np.convolve(samples, np.ones(8) / 8, "same")
    loudness = np.clip(np.sin(2 * np.pi * 1.3 * seconds), 0, None) ** 2
    colour = np.sin(2 * np.pi * 0.7 * seconds) ** 2
    return (0.1 * loudness * (colour * samples + (1 - colour) * smooth)).astype(np.float32)


@torch.no_grad()
def check_parity(
    reference: DenseEncoder, recognizer: Recognizer, clips: Clips, limit: float | None = None
) -> Parity:
    """Compares an artefact with the encoder it was made from.

    Args:
        reference: The eager compact encoder.
        recognizer: The artefact.
        clips: Mono 16 kHz audio by name, each inside the artefact's bounds.
        limit: Largest allowed difference of a log-probability; by default that of its input. What
            exceeds it is compared with the same network in float64, and may be off by
            `EAGER_SHARE` times as much as the eager encoder is there.

    Raises:
        ParityError: A log-probability differs by more, or a shape or length differs.
    """
    if limit is None:
        limit = AUDIO_LIMIT if recognizer.takes_audio else FP32_LIMIT
    expected = {name: encode(reference, clip) for name, clip in clips.items()}
    features = {name: recognizer.features(clip) for name, clip in clips.items()}
    found = {name: recognizer.log_probs(one) for name, one in features.items()}
    exact = cache(lambda name: encode(_doubled(reference), clips[name]))

    def compare(name: str, log_probs: np.ndarray, where: str = "") -> tuple[float, float]:
        return _compare(f"{name}{where}", log_probs, expected[name], limit, partial(exact, name))

    errors = [compare(name, log_probs) for name, log_probs in found.items()]
    frames = {name: recognizer.num_frames(len(one)) for name, one in features.items()}
    short = [name for name in clips if frames[name] <= MAX_BATCH_FRAMES]
    batched = _in_one_batch(recognizer, [features[name] for name in short])
    errors += [
        compare(name, one, " in a padded batch") for name, one in zip(short, batched, strict=True)
    ]
    worst, allowed = (max(one) for one in zip(*errors, strict=True))
    same = sum(greedy_ids(one) == greedy_ids(expected[name]) for name, one in found.items())
    return Parity(max_abs_error=worst, limit=allowed, frames=frames, same_transcripts=same)


def _doubled(encoder: DenseEncoder) -> DenseEncoder:
    return copy.deepcopy(encoder).double()


@torch.no_grad()
def encode(encoder: DenseEncoder, samples: Float32[np.ndarray, " _"]) -> np.ndarray:
    """Log-probabilities (T', V) of mono 16 kHz samples by the eager encoder."""
    features = fbank(samples).to(encoder.ctc_head.weight.dtype)
    log_probs, _ = encoder(features[None], torch.tensor([len(features)]))
    return log_probs[0].numpy()


def _in_one_batch(recognizer: Recognizer, features: list[Tensor]) -> list[np.ndarray]:
    lengths = torch.tensor([len(one) for one in features])
    padded = torch.nn.utils.rnn.pad_sequence(features, batch_first=True, padding_value=PADDING)
    log_probs, log_probs_len = recognizer.encode_batch(padded, lengths)
    if log_probs_len.tolist() != subsampled_length(recognizer.num_frames(lengths)).tolist():
        raise ParityError(f"{recognizer.name}: lengths {lengths} became {log_probs_len}")
    return [
        rows[:length].numpy()
        for rows, length in zip(log_probs, log_probs_len.tolist(), strict=True)
    ]


def _compare(
    name: str,
    found: np.ndarray,
    expected: np.ndarray,
    limit: float,
    exact: Callable[[], np.ndarray],
) -> tuple[float, float]:
    """The largest difference, and what was allowed.

    Raises:
        ParityError: It is above the limit or not a number, or shapes differ.
    """
    if found.shape != expected.shape:
        raise ParityError(f"{name}: log-probabilities {found.shape} instead of {expected.shape}")
    error = float(np.abs(found - expected).max())
    if error > limit:
        truth = exact()
        error = float(np.abs(found - truth).max())
        limit = max(limit, EAGER_SHARE * float(np.abs(expected - truth).max()))
    if not error <= limit:
        raise ParityError(f"{name}: a log-probability differs by {error:.3g}, more than {limit:g}")
    return error, limit
