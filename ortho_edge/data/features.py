"""Kaldi log-mel filter banks, with the settings that sherpa-onnx uses on a device.

16 kHz, 80 bins from 20 Hz to 400 Hz below Nyquist, 25 ms Povey windows every 10 ms, pre-emphasis
0.97, mean of each window removed, no dither, edges mirrored (``snip_edges=False``), samples in
[-1, 1].
"""

import warnings
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from lhotse.features.kaldi.layers import Wav2LogFilterBank

from ortho_edge.data.audio import SAMPLE_RATE

NUM_BINS = 80
FRAME_SHIFT = 160
"""Samples from one frame to the next (10 ms)."""
FRAME_LENGTH = 400
"""Samples under one window (25 ms)."""

Count = TypeVar("Count", int, torch.Tensor)


@lru_cache(maxsize=1)
def _extractor() -> Wav2LogFilterBank:
    with warnings.catch_warnings():
        # lhotse 1.33 applies numpy's functions to tensors to lay out the mel filters.
        warnings.filterwarnings("ignore", message="__array_wrap__", category=DeprecationWarning)
        layer = Wav2LogFilterBank(
            sampling_rate=SAMPLE_RATE,
            frame_length=FRAME_LENGTH / SAMPLE_RATE,
            frame_shift=FRAME_SHIFT / SAMPLE_RATE,
            remove_dc_offset=True,
            preemph_coeff=0.97,
            window_type="povey",
            dither=0.0,
            snip_edges=False,
            use_energy=False,
            low_freq=20.0,
            high_freq=-400.0,
            num_filters=NUM_BINS,
        )
    return layer.eval()


def num_frames(num_samples: Count) -> Count:
    """Returns how many frames `fbank` makes of ``num_samples`` samples at 16 kHz."""
    return (num_samples + FRAME_SHIFT // 2) // FRAME_SHIFT


def fbank(samples: np.ndarray) -> torch.Tensor:
    """Computes log-mel features.

    Args:
        samples: One mono 16 kHz waveform, shape ``(N,)``, float32, full scale at 1.0. At least one
            window, `FRAME_LENGTH` samples: mirroring a shorter one is not defined alike everywhere.

    Returns:
        float32 features, shape ``(T, 80)`` with ``T = num_frames(N)``.

    Raises:
        ValueError: ``samples`` is not one waveform or is shorter than a window.
    """
    if samples.ndim != 1 or len(samples) < FRAME_LENGTH:
        raise ValueError(
            f"samples must be one waveform of at least {FRAME_LENGTH} samples, "
            f"but has shape {samples.shape}"
        )
    waveform = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
    with torch.no_grad():
        # (N,) -> (1, N) -> (1, T, 80) -> (T, 80)
        return _extractor()(waveform[None])[0]
