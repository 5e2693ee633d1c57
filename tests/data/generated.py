"""Audio and texts made up for tests, and Kaldi features by an independent implementation."""

import kaldi_native_fbank
import numpy as np

TEXTS = ("ONE", "TWO SIX", "ZERO", "NINE", "FIVE TWO", "ONE ONE", "SIX", "TWO", "ZERO ONE", "SIX",
         "NINE NINE", "FIVE")  # fmt: skip


def speech_like(seconds: float, rate: int, seed: int) -> np.ndarray:
    """Harmonics of a gliding pitch under a syllable-like envelope, with noise; float32, (N,)."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(rng.uniform(90, 220) * (1 + 0.1 * np.sin(3 * time))) / rate
    harmonics = sum(np.sin(k * phase) / k for k in range(1, 20))
    envelope = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * time)
    samples = 0.15 * envelope * harmonics + 0.003 * rng.standard_normal(len(time))
    return samples.astype(np.float32)


def kaldi_fbank(samples: np.ndarray, **changes: float) -> np.ndarray:
    """Features as kaldi-native-fbank computes them with sherpa-onnx's settings, (T, 80).

    Args:
        samples: 16 kHz waveform.
        changes: Settings to get wrong, such as `high_freq=0`.
    """
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = 16000
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = 80
    options.mel_opts.low_freq = 20
    options.mel_opts.high_freq = -400
    for name, value in changes.items():
        part = options.frame_opts if hasattr(options.frame_opts, name) else options.mel_opts
        setattr(part, name, value)
    extractor = kaldi_native_fbank.OnlineFbank(options)
    extractor.accept_waveform(16000, samples.tolist())
    extractor.input_finished()
    return np.array([extractor.get_frame(i) for i in range(extractor.num_frames_ready)])
