"""The encoder as an Ethos-U takes it: one fixed length, in 8 bits but for its two ends.

The flat encoder in three pieces. Subtracting the utterance's mean and the final log-softmax stay
fp32 and run on the CPU beside the accelerator: eight bits for raw log-mel energies, which differ
from speaker to speaker, would cost several of them, and the accelerator has no logarithm of sums.
Everything between, `acoustic`, is quantised and becomes one delegate.

Letters: T frames of 10 ms, T' encoder frames, D model width, V vocabulary.
"""

import copy

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ortho_edge.conformer.front_end import LOG_MEL_SCALE
from ortho_export.flat import FlatEncoder

ON_THE_CPU = ("normalization", "log_softmax")
"""Names of the pieces that are not quantised."""


class Normalization(nn.Module):
    """What a front end does to features before its first convolution."""

    def __init__(self, kind: str) -> None:
        """Takes the architecture's `feature_normalization`."""
        super().__init__()
        self.kind = kind

    def forward(self, x: Float[Tensor, "1 T bins"]) -> Float[Tensor, "1 T bins"]:
        """Subtracts the mean of the utterance twice, as `ortho_export.flat` says, and scales."""
        if self.kind == "utterance":
            x = x - x.mean(1, keepdim=True)
            x = (x - x.mean(1, keepdim=True)) * LOG_MEL_SCALE
        return x


class Acoustic(nn.Module):
    """Normalised features to logits: the part that is quantised."""

    def __init__(self, flat: FlatEncoder) -> None:
        """Copies the layers of a flat encoder."""
        super().__init__()
        self.front_end = copy.deepcopy(flat.front_end)
        self.front_end.normalization = "none"
        self.steps = copy.deepcopy(flat.steps)
        self.ctc_head = copy.deepcopy(flat.ctc_head)
        self.vocab_size = flat.vocab_size

    def forward(self, x: Float[Tensor, "1 T bins"]) -> Float[Tensor, "1 T4 V"]:
        """Logits of every encoder frame."""
        logits = self.ctc_head(self.steps(self.front_end(x)))
        return logits.view(1, -1, self.vocab_size)


class LogSoftmax(nn.Module):
    """Logits to log-probabilities."""

    def forward(self, logits: Float[Tensor, "1 T4 V"]) -> Float[Tensor, "1 T4 V"]:
        """Normalises every frame."""
        return F.log_softmax(logits, -1)


class StaticEncoder(nn.Module):
    """One utterance's features of a fixed length in, CTC log-probabilities out."""

    def __init__(self, flat: FlatEncoder) -> None:
        """Copies a flat encoder."""
        super().__init__()
        self.normalization = Normalization(flat.front_end.normalization)
        self.acoustic = Acoustic(flat)
        self.log_softmax = LogSoftmax()
        self.eval()

    def forward(self, x: Float[Tensor, "1 T bins"]) -> Float[Tensor, "1 T4 V"]:
        """Log-probabilities of `x`."""
        return self.log_softmax(self.acoustic(self.normalization(x)))
