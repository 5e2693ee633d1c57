"""16 kHz audio as the input of an artefact: Kaldi's filter banks as layers of the graph.

Everything that Kaldi does to a frame before it takes powers is linear: removing the mean,
pre-emphasis, the window and the Fourier transform. So one convolution of 400 samples every 160
computes both parts of every frequency; squares, mel filters and the logarithm follow. The basis is
folded in float64 and agrees with Kaldi as well as two float32 FFTs agree with each other.

Frames are those of `ortho_edge.data.features`: N samples make T = (N + 80) // 160, centred 160
samples apart, and both ends are mirrored. What stands behind the N samples never matters.

Letters: N samples, T frames of 10 ms, V vocabulary.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from ortho_edge.data.audio import SAMPLE_RATE
from ortho_edge.data.features import FRAME_LENGTH, FRAME_SHIFT, NUM_BINS, num_frames

FFT_LENGTH = 512
PREEMPHASIS = 0.97
LOW_HZ, HIGH_HZ = 20.0, SAMPLE_RATE / 2 - 400.0
POVEY_POWER = 0.85
"""Kaldi's own window is a Hann window to this power."""
FLOOR = float(np.finfo(np.float32).eps)
"""Smallest energy, as in Kaldi."""

BEFORE = (FRAME_LENGTH - FRAME_SHIFT) // 2
"""Samples of the first window that lie before the audio."""
TAIL = FRAME_SHIFT // 2
"""At most so many samples are missing in the last 10 ms, or are left over behind it."""


def mel_filters() -> np.ndarray:
    """Triangles on the mel scale, float64 (80, FFT_LENGTH / 2 + 1)."""
    hertz = np.arange(FFT_LENGTH // 2 + 1) * SAMPLE_RATE / FFT_LENGTH
    low, high = _mel(np.array([LOW_HZ, HIGH_HZ]))
    corners = np.linspace(low, high, NUM_BINS + 2)[:, None]
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (_mel(hertz) - left) / (centre - left)
    falling = (right - _mel(hertz)) / (right - centre)
    return np.clip(np.minimum(rising, falling), 0, None)


def _mel(hertz: np.ndarray) -> np.ndarray:
    return 1127 * np.log1p(hertz / 700)


def fourier_basis(frequencies: np.ndarray) -> np.ndarray:
    """Cosine and sine parts of frequencies of a frame of samples, float64 (2 F, 400).

    Args:
        frequencies: Indices (F,) below FFT_LENGTH / 2.
    """
    time = np.arange(FRAME_LENGTH)
    remove_mean = np.eye(FRAME_LENGTH) - 1 / FRAME_LENGTH
    preemphasize = np.eye(FRAME_LENGTH) - PREEMPHASIS * np.eye(FRAME_LENGTH, k=-1)
    # Kaldi takes the first sample as its own predecessor; the window is zero there.
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * time / (FRAME_LENGTH - 1))
    angles = 2 * np.pi * np.outer(frequencies, time) / FFT_LENGTH
    transform = np.concatenate([np.cos(angles), np.sin(angles)])
    return transform * hann**POVEY_POWER @ preemphasize @ remove_mean


class LogMel(nn.Module):
    """Filter banks of audio whose ends are mirrored already."""

    basis: Tensor
    filters: Tensor

    def __init__(self) -> None:
        """Computes the two matrices, leaving out frequencies that no filter takes."""
        super().__init__()
        filters = mel_filters()
        used = np.flatnonzero(filters.any(0))
        both_parts = np.tile(filters[:, used], 2)
        self.register_buffer("basis", torch.from_numpy(fourier_basis(used)).float()[:, None])
        self.register_buffer("filters", torch.from_numpy(both_parts).float())

    def forward(self, samples: Float[Tensor, "B padded"]) -> Float[Tensor, "B T 80"]:
        """160 T + 240 samples to T frames."""
        parts = F.conv1d(samples[:, None], self.basis, stride=FRAME_SHIFT).transpose(1, 2)
        energies = F.linear(parts * parts, self.filters)
        return torch.clamp(energies, min=FLOOR).log()


def room_for(frames: Any) -> Any:
    """Samples that the input of an `AudioProgram` has for so many frames: a number or a `Dim`."""
    return FRAME_SHIFT * frames + FRAME_SHIFT


def with_room(samples: Float32[Tensor, "1 N"]) -> Float32[Tensor, "1 room"]:
    """Audio in the input of an `AudioProgram`."""
    num_samples = samples.shape[1]
    return F.pad(samples, (0, room_for(num_frames(num_samples)) - num_samples))


class AudioProgram(nn.Module):
    """One utterance of audio in, for ExecuTorch.

    The caller makes room for 160 (T + 1) samples, T = (N + 80) // 160, so that T follows from the
    shape alone; the N samples stand first, and anything behind them. See `with_room`.
    """

    offsets: Tensor

    def __init__(self, encoder: nn.Module) -> None:
        """Wraps an encoder of features (1, T, 80)."""
        super().__init__()
        self.log_mel = LogMel()
        self.encoder = encoder
        # Of all samples after the sure ones, counted from where `end` begins.
        self.register_buffer("offsets", torch.arange(TAIL + BEFORE) + FRAME_SHIFT + TAIL)
        self.eval()

    def forward(
        self, samples: Float[Tensor, "1 room"], num_samples: Int64[Tensor, " 1"]
    ) -> Float[Tensor, "1 T4 V"]:
        """Log-probabilities of the first `num_samples` of `samples`."""
        room = samples.shape[1]
        first = samples[:, :BEFORE].flip(1)
        sure = samples[:, : room - FRAME_SHIFT - TAIL]
        # Only the last 200 samples that any window sees depend on where the audio ends.
        end = samples[:, room - 3 * FRAME_SHIFT :]
        last = num_samples - (room - 3 * FRAME_SHIFT)
        places = torch.where(self.offsets < last, self.offsets, 2 * last - 1 - self.offsets)
        padded = torch.cat([first, sure, end[:, places]], 1)
        return self.encoder(self.log_mel(padded))


class AudioModel(nn.Module):
    """A padded batch of audio in, for ONNX Runtime."""

    def __init__(self, encoder: nn.Module) -> None:
        """Wraps an encoder of features (B, T, 80) and lengths (B,)."""
        super().__init__()
        self.log_mel = LogMel()
        self.encoder = encoder

    def forward(
        self, samples: Float[Tensor, "B N"], num_samples: Int64[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B T4 V"], Int64[Tensor, " B"]]:
        """Log-probabilities and their lengths."""
        frames = (samples.shape[1] + TAIL) // FRAME_SHIFT
        place = torch.arange(FRAME_SHIFT * frames + 2 * BEFORE, device=samples.device) - BEFORE
        place = torch.where(place < 0, -1 - place, place)[None]
        ends = num_samples[:, None]
        mirrored = torch.where(place < ends, place, 2 * ends - 1 - place)
        # Beyond an utterance's own frames anything will do; they are masked.
        padded = samples.gather(1, mirrored.clamp(min=0))
        return self.encoder(self.log_mel(padded), (num_samples + TAIL) // FRAME_SHIFT)
