"""Strings of digits composed of isolated ones, as lhotse mixes: nothing is decoded or written."""

import numpy as np
from lhotse import CutSet, MonoCut, SupervisionSegment
from lhotse.cut import MixedCut, MixTrack, PaddingCut
from lhotse.supervision import AlignmentItem

from ortho_edge.data.waveforms import MIXDOWN, each_cut

Range = tuple[float, float]


def digit_strings(
    isolated: CutSet,
    *,
    num_strings: int,
    min_digits: int,
    max_digits: int,
    seed: int,
    pauses: Range = (0.02, 0.4),
    margins: Range = (0.0, 0.3),
) -> CutSet:
    """Lays isolated digits of one speaker one after another, with varied pauses of silence.

    Speakers take turns, lengths and digits are drawn evenly, and the take of a digit at random.

    Args:
        isolated: Cuts with one word and one speaker each, all at one sampling rate.
        num_strings: Strings to compose.
        min_digits: Fewest digits in a string.
        max_digits: Most digits in a string.
        seed: The same seed composes the same strings of the same cuts.
        pauses: Shortest and longest silence between digits in seconds.
        margins: Shortest and longest silence before the first and after the last digit in seconds.

    Returns:
        Mixes with one supervision each: the joined words, their alignment and the speaker.

    Raises:
        ValueError: No cuts, several sampling rates, or a range that is not (lowest, highest).
    """
    _check_range("pauses", pauses)
    _check_range("margins", margins)
    if not 1 <= min_digits <= max_digits:
        raise ValueError(f"digits must be 1 or more, but are {min_digits} to {max_digits}")
    takes = _by_speaker_and_word(isolated)
    rng = np.random.default_rng(seed)
    speakers = sorted(takes)
    strings = []
    for index in range(num_strings):
        speaker = speakers[index % len(speakers)]
        words = sorted(takes[speaker])
        length = int(rng.integers(min_digits, max_digits + 1))
        chosen = [takes[speaker][words[w]] for w in rng.integers(0, len(words), length)]
        digits = [cuts[int(rng.integers(0, len(cuts)))] for cuts in chosen]
        silences = [
            rng.uniform(*margins),
            *rng.uniform(*pauses, size=length - 1),
            rng.uniform(*margins),
        ]
        strings.append(_string(f"{speaker}-{seed}-{index:06d}", digits, silences))
    return CutSet.from_cuts(strings)


def _check_range(name: str, bounds: Range) -> None:
    if not 0.0 <= bounds[0] <= bounds[1]:
        raise ValueError(f"`{name}` must be (lowest, highest) in seconds, but is {bounds}")


def _by_speaker_and_word(isolated: CutSet) -> dict[str, dict[str, list[MonoCut]]]:
    takes: dict[str, dict[str, list[MonoCut]]] = {}
    rates = set()
    for cut in each_cut(isolated):
        if not isinstance(cut, MonoCut) or len(cut.supervisions) != 1:
            raise ValueError(f"cut {cut.id} is not an isolated digit")
        supervision = cut.supervisions[0]
        if not supervision.speaker or not supervision.text:
            raise ValueError(f"cut {cut.id} lacks its speaker or its text")
        takes.setdefault(supervision.speaker, {}).setdefault(supervision.text, []).append(cut)
        rates.add(cut.sampling_rate)
    if len(rates) != 1:
        raise ValueError(f"isolated digits must share one sampling rate, but have {sorted(rates)}")
    return takes


def _string(name: str, digits: list[MonoCut], silences: list[float]) -> MixedCut:
    """Places ``digits`` after ``silences`` (seconds; one more than digits), in whole samples."""
    rate = digits[0].sampling_rate
    gaps = [round(silence * rate) for silence in silences]
    starts, position = [], 0
    for digit, gap in zip(digits, gaps, strict=False):
        position += gap
        starts.append(position)
        position += digit.num_samples or 0
    num_samples = position + gaps[-1]
    supervision = SupervisionSegment(
        id=name,
        recording_id=name,
        start=0.0,
        duration=(position - starts[0]) / rate,
        text=" ".join(digit.supervisions[0].text or "" for digit in digits),
        speaker=digits[0].supervisions[0].speaker,
        language="English",
        alignment={
            "word": [
                AlignmentItem(
                    digit.supervisions[0].text or "", start / rate, (digit.num_samples or 0) / rate
                )
                for digit, start in zip(digits, starts, strict=True)
            ]
        },
    )
    # A silent track of full length carries both margins.
    silence = PaddingCut(
        id=f"{name}-silence",
        duration=num_samples / rate,
        sampling_rate=rate,
        feat_value=0.0,
        num_samples=num_samples,
    )
    tracks = [MixTrack(cut=silence)]
    for index, (digit, start) in enumerate(zip(digits, starts, strict=True)):
        # One supervision for the whole string, so that a reader of the first one sees all words.
        track_cut = MonoCut(
            id=f"{name}-{index}",
            start=digit.start,
            duration=digit.duration,
            channel=digit.channel,
            supervisions=[supervision] if index == 0 else [],
            recording=digit.recording,
            custom={MIXDOWN: True} if (digit.custom or {}).get(MIXDOWN) else None,
        )
        tracks.append(MixTrack(cut=track_cut, offset=start / rate))
    return MixedCut(id=name, tracks=tracks)
