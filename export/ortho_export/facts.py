"""What every artefact says about itself, so that a client needs no other file to use it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ortho_edge.checkpoint import DESCRIPTION, FEATURES, SYMBOLS, WEIGHTS
from ortho_edge.conformer.architecture import SUBSAMPLING_FACTOR
from ortho_edge.data.features import FRAME_SHIFT
from ortho_edge.tokens import Tokens

MODEL_TYPE = "zipformer2_ctc"
"""The type that sherpa-onnx knows: inputs `x` and `x_lens`, log-probabilities out."""
AUDIO_MODEL_TYPE = "audio_ctc"
"""Unknown to sherpa-onnx, which computes features itself."""
MIN_FRAMES = 9
"""Shortest input: three encoder frames. A size of one would be compiled as a constant."""
MAX_FRAMES = 3000
"""Longest input: 30 s."""
FEATURES_IN, AUDIO_IN = "features", "audio"
"""What an artefact takes: filter banks, or 16 kHz samples in [-1, 1]."""
FRAMES_PER_SECOND = 1000 // int(FEATURES["frame_shift_ms"])


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Constants of an artefact: constant methods of a program, metadata of an ONNX model.

    Attributes:
        subnet: Name of the trained subnet inside.
        tokens: Meaning of the outputs.
        checkpoint_digest: Of the checkpoint it was made from, see `checkpoint_digest`.
        min_frames: Shortest input in feature frames of 10 ms.
        max_frames: Longest input that was checked.
        features: How the input is computed from audio.
        subsampling_factor: Feature frames per encoder frame.
        input: What it takes: `features`, or `audio` with the features inside.
    """

    subnet: str
    tokens: Tokens
    checkpoint_digest: str
    min_frames: int = MIN_FRAMES
    max_frames: int = MAX_FRAMES
    features: Mapping[str, object] = field(default_factory=lambda: dict(FEATURES))
    subsampling_factor: int = SUBSAMPLING_FACTOR
    input: str = FEATURES_IN

    def constants(self) -> dict[str, int | str]:
        """The facts as numbers and text by name; `parse` reads them back."""
        audio = {}
        if self.input == AUDIO_IN:
            shortest, longest = samples_of(self.min_frames)[0], samples_of(self.max_frames)[1]
            audio = {"min_samples": shortest, "max_samples": longest}
        return {
            "model_type": AUDIO_MODEL_TYPE if audio else MODEL_TYPE,
            "vocab_size": len(self.tokens),
            "subsampling_factor": self.subsampling_factor,
            "sample_rate": int(str(self.features["sample_rate"])),
            "feature_dim": int(str(self.features["num_mel_bins"])),
            "min_frames": self.min_frames,
            "max_frames": self.max_frames,
            "input": self.input,
            **audio,
            "subnet": self.subnet,
            "checkpoint_digest": self.checkpoint_digest,
            "features": json.dumps(self.features, sort_keys=True),
            "tokens": self.tokens.lines(),
        }

    @classmethod
    def parse(cls, constants: Mapping[str, int | str]) -> "Facts":
        """Reads what `constants` wrote; numbers may come as text.

        Raises:
            ValueError: A fact is missing, malformed, or contradicts another.
        """
        try:
            facts = cls(
                subnet=str(constants["subnet"]),
                tokens=Tokens.parse(str(constants["tokens"])),
                checkpoint_digest=str(constants["checkpoint_digest"]),
                min_frames=int(constants["min_frames"]),
                max_frames=int(constants["max_frames"]),
                features=json.loads(str(constants["features"])),
                subsampling_factor=int(constants["subsampling_factor"]),
                input=str(constants["input"]),
            )
            read = facts.constants()
        except KeyError as error:
            raise ValueError(f"it does not state its {error.args[0]}") from error
        for name, value in read.items():
            stated = constants.get(name)
            if name != "features" and str(stated) != str(value):
                raise ValueError(f"its {name} is {stated!r}, not {value!r}")
        if facts.input not in (FEATURES_IN, AUDIO_IN):
            raise ValueError(f"its input is {facts.input!r}, not {FEATURES_IN} or {AUDIO_IN}")
        if facts.features != FEATURES:
            raise ValueError(f"its features are {facts.features}, not {FEATURES}")
        return facts


def samples_of(frames: int) -> tuple[int, int]:
    """The fewest and the most samples that make so many frames."""
    centre = frames * FRAME_SHIFT
    return centre - FRAME_SHIFT // 2, centre + FRAME_SHIFT // 2 - 1


def checkpoint_digest(path: Path) -> str:
    """SHA-256 over the files of a checkpoint that decide what it computes, in a fixed order."""
    digest = hashlib.sha256()
    for name in (WEIGHTS, DESCRIPTION, SYMBOLS):
        digest.update(hashlib.sha256((path / name).read_bytes()).digest())
    return digest.hexdigest()
