"""Windows of speech, all of the length that a static program takes.

Ranges are taken from some (calibration), the program is checked on others.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32
from lhotse import CutSet
from torch import Tensor

from ortho_edge.cli import UserError
from ortho_edge.data.dataset import evaluation_batches
from ortho_edge.data.features import FRAME_SHIFT, fbank
from ortho_edge.tokens import Tokens

SAMPLE = "sample"
SHIFTS = 4
"""Windows that a sample clip makes for calibration, each starting elsewhere in it."""
MAX_CALIBRATION, MAX_CHECKED = 32, 4
BATCH_SECONDS = 100.0


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Features (1, T, bins) by name.

    Attributes:
        calibration: To take ranges from.
        checked: To compare on; where there is speech besides, none of it was calibrated with.
        source: Where they come from, in words.
    """

    calibration: dict[str, Tensor]
    checked: dict[str, Tensor]
    source: str


def speech_windows(
    sample: Float32[np.ndarray, " samples"] | None,
    speech: tuple[str, CutSet] | None,
    tokens: Tokens,
    frames: int,
) -> Windows:
    """Windows of the sample clip, repeated to fill them, and of other speech, joined end to end.

    Args:
        sample: Mono 16 kHz.
        speech: A name and its cuts.
        tokens: Of the network.
        frames: Length of every window.

    Raises:
        UserError: There is neither, or the speech does not fill two windows.
    """
    calibration, checked, sources = {}, {}, []
    if sample is not None:
        checked[SAMPLE] = _filled(sample, frames, 0)
        calibration = {
            f"{SAMPLE}-{turn}": _filled(sample, frames, turn * len(sample) // (SHIFTS + 1))
            for turn in range(1, SHIFTS + 1)
        }
        sources.append("the checkpoint's sample clip")
    if speech is not None:
        name, cuts = speech
        windows = _joined(cuts, tokens, frames, 2 * MAX_CALIBRATION)
        if len(windows) < 2:
            raise UserError(
                f"{name} holds less than the two windows of {frames / 100:g} s that static int8 "
                "takes its ranges from and is checked on"
            )
        calibration |= {f"speech-{index}": one for index, one in enumerate(windows[::2])}
        checked |= {f"speech-{index}": one for index, one in enumerate(windows[1::2][:MAX_CHECKED])}
        sources.append(f"{name}, joined end to end")
    if not checked:
        raise UserError(
            "static int8 takes its ranges from speech: the checkpoint carries no sample clip, so "
            "name some with --dev-set"
        )
    return Windows(calibration=calibration, checked=checked, source=" and ".join(sources))


def _filled(sample: np.ndarray, frames: int, start: int) -> Tensor:
    """Features of a clip that is repeated until it fills a window."""
    return fbank(np.resize(np.roll(sample, -start), frames * FRAME_SHIFT))[None]


def _joined(cuts: CutSet, tokens: Tokens, frames: int, most: int) -> list[Tensor]:
    """Windows of the features of utterances in a row, in an order that mixes their lengths."""
    order = np.random.default_rng(0).permutation(len(cuts)).tolist()
    listed = list(cuts)
    mixed = CutSet.from_cuts(listed[index] for index in order[: 8 * most])
    pieces = [
        features[:length]
        for batch in evaluation_batches(mixed, tokens=tokens, max_duration=BATCH_SECONDS)
        for features, length in zip(batch.features, batch.feature_lengths.tolist(), strict=True)
    ]
    if not pieces:
        return []
    # Batches come sorted by length.
    shuffled = [pieces[i] for i in np.random.default_rng(1).permutation(len(pieces)).tolist()]
    stream = torch.cat(shuffled)
    return [one[None] for one in stream.split(frames) if len(one) == frames][:most]
