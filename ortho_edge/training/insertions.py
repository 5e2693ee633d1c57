"""Words heard where nothing is said: the rate at which sounds become words."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from lhotse import CutSet
from torch import Tensor

from ortho_edge.data.features import fbank
from ortho_edge.data.sounds import SOUNDS, sound_cuts
from ortho_edge.data.waveforms import each_cut
from ortho_edge.tokens import Tokens
from ortho_edge.training.evaluation import Encoder, Transcript, transcribe_cuts

CLIPS_PER_KIND = 12
CLIP_SECONDS = (2.0, 8.0)
SEED = 20_000_000
"""Of the clips; epochs, whose numbers are seeds of training's clips, never get there."""


def inserted_words_per_minute(
    encoders: Mapping[str, Encoder],
    tokens: Tokens,
    features: Callable[[np.ndarray], Tensor] = fbank,
) -> dict[str, dict[str, float]]:
    """Words that each encoder hears in each kind of sound, about a minute of each.

    Args:
        encoders: By name.
        tokens: Their symbols.
        features: What they take, of samples.

    Returns:
        Words per minute by encoder and by kind of `ortho_edge.data.sounds.SOUNDS`.
    """
    kinds = tuple(SOUNDS)
    cuts = CutSet.from_cuts(sound_cuts(kinds, CLIPS_PER_KIND * len(kinds), CLIP_SECONDS, SEED))
    minutes: dict[str, float] = {}
    for cut in each_cut(cuts):
        speaker = str(cut.supervisions[0].speaker)
        minutes[speaker] = minutes.get(speaker, 0.0) + cut.duration / 60
    heard = transcribe_cuts(encoders, cuts, tokens, features=features)
    return {name: _rates(heard[name], minutes) for name in heard}


def _rates(transcripts: Sequence[Transcript], minutes: Mapping[str, float]) -> dict[str, float]:
    words: Counter[str] = Counter()
    for one in transcripts:
        words[one.speaker] += len(one.hypothesis.split())
    return {
        speaker.partition("-")[2]: words[speaker] / duration
        for speaker, duration in minutes.items()
    }
