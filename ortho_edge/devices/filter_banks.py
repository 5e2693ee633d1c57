"""The filter banks inside an artefact of audio: their work, and what they take in files and memory.

One convolution of 400 samples every 160 makes the parts of all frequencies, and one product makes
80 bins of their squares (`ortho_export.audio`). Both stay in fp32 in every precision and are the
same in front of every subnet, so an artefact of audio costs that much more, whatever is behind.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ortho_edge.cli import UserError
from ortho_edge.components import FRAMES_PER_SECOND
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.devices.profile import FILTER_BANKS, DeviceProfile, ModuleCost, RuntimeCost
from ortho_edge.devices.workload import BYTES, LONGEST_SECONDS, Work, planned_elements

Input = Literal["features", "audio"]
"""What an artefact takes: filter banks, or samples with the filter banks inside."""
FEATURES_IN: Input = "features"
AUDIO_IN: Input = "audio"

WINDOW, SHIFT, BINS = 400, 160, 80
"""Samples under a window and from one to the next, and filters."""
PARTS = 2 * 243
"""Cosines and sines of the frequencies that a filter takes."""
BASIS, FILTERS = PARTS * WINDOW, PARTS * BINS
"""Elements of the two matrices."""


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """How a kind of file keeps the matrices.

    Attributes:
        basis: Bytes of an element of the first, of those of the second 4.
        graph_kb: What the nodes take, and further constants.
    """

    basis: float
    graph_kb: float


_FILES: Mapping[tuple[str, str], _Stored] = {
    ("executorch", "fp32"): _Stored(basis=4, graph_kb=7.552),
    ("executorch", "int8"): _Stored(basis=2, graph_kb=7.248),
    ("onnxruntime", "fp32"): _Stored(basis=4, graph_kb=7.241),
    ("onnxruntime", "int8"): _Stored(basis=4, graph_kb=1.319),
}
"""Of files of s015 by ExecuTorch 1.5.1 and ONNX Runtime 1.32, 2026-12-01: with audio as input less
with features."""


def check_input(profile: DeviceProfile, runtime: str, precision: str, takes: Input) -> None:
    """Whether there are artefacts of a runtime that take audio.

    Raises:
        UserError: There are none.
    """
    if takes == FEATURES_IN:
        return
    if any(costs.tables is not None for costs in profile.runtimes[runtime].values()):
        raise UserError(
            f"device {profile.name!r} takes features alone, not {takes}: {runtime} has no filter "
            "banks"
        )
    if (runtime, precision) not in _FILES:
        known = ", ".join(one for name, one in _FILES if name == runtime) or "no precision"
        raise UserError(
            f"{runtime} in precision {precision} takes features alone; input {takes} goes with "
            f"{known}"
        )


def filter_bank_work(seconds: float) -> Work:
    """The work for `seconds` of audio; the matrices count as parameters, though none is trained."""
    frames = round(seconds * FRAMES_PER_SECOND)
    samples = SHIFT * frames
    return Work(
        kind=FILTER_BANKS,
        flops=2.0 * frames * (BASIS + FILTERS),
        params=float(BASIS + FILTERS),
        # Mirrored samples; parts and their squares; energies, their floor and logarithm.
        activations=float(samples + frames * (2 * PARTS + 3 * BINS)),
        live=float(2 * samples + 2 * frames * PARTS),
    )


def filter_bank_flops(seconds: float, takes: Input) -> float:
    """FLOPs in front of every subnet for `seconds` of audio: none where features are taken."""
    return 0.0 if takes == FEATURES_IN else filter_bank_work(seconds).flops


def rates(costs: RuntimeCost) -> ModuleCost:
    """Of the filter banks: their own, else those of a feed-forward module, products of like shape.

    On an AMD EPYC with AVX-512 they take half of that, so a budget is held, and with room.
    """
    return costs.modules.get(FILTER_BANKS, costs.modules["ffn"])


def file_bytes(runtime: str, precision: str) -> float:
    """What the filter banks take in a file."""
    one = _FILES[runtime, precision]
    return one.basis * BASIS + BYTES * FILTERS + 1e3 * one.graph_kb


def planned_bytes(architecture: Architecture, seconds: float, takes: Input) -> float:
    """Memory that ExecuTorch plans ahead, for the longest input of an artefact for such a budget.

    Of audio, the input, a copy without its end and the mirrored samples stand there together.
    """
    longest = max(LONGEST_SECONDS, seconds)
    planned = BYTES * planned_elements(architecture, longest)
    if takes == FEATURES_IN:
        return planned
    frames = round(longest * FRAMES_PER_SECOND)
    return max(planned, 3 * BYTES * SHIFT * frames + PLANNED_BESIDE)


PLANNED_BESIDE = 2144
"""Bytes of the ends of the samples and of indices."""
