"""What is known of a program for Ethos-U that no machine here can run."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ortho_edge.decoding import greedy_text
from ortho_edge.tokens import Tokens
from ortho_export.ethos_u.protocol import GRAPH, TOSA, Answer, Lowered
from ortho_export.ethos_u.windows import SAMPLE
from ortho_export.fidelity import decibels, powers
from ortho_export.parity import ParityError

FLOOR_DB = 24.0
"""Lowest ratio of signal to quantisation noise. The shipped sizes reach 29 to 32 dB on real speech;
a wrong scale or a layer left out costs more than what is left."""
ALLOWED_OUTSIDE = frozenset({
    "aten_mean_dim", "aten_sub_tensor", "aten_mul_tensor",  # the mean of the utterance
    "aten__log_softmax_default",
    "quantized_decomposed_quantize_per_tensor_default",
    "quantized_decomposed_dequantize_per_tensor_default",
    "getitem",
})  # fmt: skip
"""What the CPU beside the accelerator may be left with: the two ends, and crossing into 8 bits."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far the 8-bit network says what the fp32 encoder says, on windows of speech.

    Attributes:
        tosa_db: Signal over quantisation noise as TOSA's reference model computes the very graph
            that Vela compiles.
        graph_db: The same as torch computes the quantised graph before it is lowered.
        floor_db: The lowest allowed, of both.
        windows: Names of the windows.
        same_transcripts: Of how many of them TOSA's transcript is that of fp32.
        fp32_heard: By the encoder in the window of the sample clip; None where there is none.
        heard: There by TOSA.
    """

    tosa_db: float
    graph_db: float
    floor_db: float
    windows: tuple[str, ...]
    same_transcripts: int
    fp32_heard: str | None
    heard: str | None


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """A lowered program, what Vela says it costs, and what the profile had predicted.

    Attributes:
        file: Name of the program.
        accelerator: Vela's name of the configuration.
        frames: Length of the input, the only one it takes.
        calibrated_on: Where ranges come from.
        milliseconds: Of Vela's cycles at the profile's clock.
    """

    file: str
    accelerator: str
    frames: int
    calibrated_on: str
    lowered: Lowered
    milliseconds: float
    predicted_cycles: float
    predicted_sram_bytes: float
    agreement: Agreement

    @property
    def rows(self) -> Iterator[tuple[str, str]]:
        """For the table that export prints."""
        cost, one = self.lowered.cost, self.agreement
        yield "executed", f"never: lowered for {self.accelerator}, no such device at hand"
        yield (
            f"Vela's cycles, {self.file}",
            f"{cost.cycles:,}, {self.milliseconds:.2f} ms; predicted {self.predicted_cycles:,.0f}",
        )
        yield (
            f"Vela's SRAM, {self.file}",
            f"{cost.sram_bytes / 1e3:.0f} kB; predicted {self.predicted_sram_bytes / 1e3:.0f} kB; "
            f"and {cost.flash_bytes / 1e3:.0f} kB of weights in flash",
        )
        yield (
            "agreement with fp32",
            f"{one.tosa_db:.1f} dB by TOSA's reference model, {one.graph_db:.1f} dB in torch, at "
            f"least {one.floor_db:g} wanted; same transcripts on {one.same_transcripts} of "
            f"{len(one.windows)} windows",
        )
        if one.heard is not None:
            yield "fp32 hears in the sample", one.fp32_heard or "nothing"
            yield "TOSA's reference model hears", one.heard or "nothing"

    def entry(self) -> dict[str, Any]:
        """For the manifest, besides size and digest."""
        lowered, cost = self.lowered, self.lowered.cost
        return {
            "target": self.accelerator,
            "precision": "int8-static",
            "input": "features",
            "executed": False,
            "frames": self.frames,
            "calibrated_on": self.calibrated_on,
            "delegation": {
                "subgraphs": lowered.subgraphs,
                "outside": dict(lowered.outside),
                "planned_bytes": lowered.planned_bytes,
            },
            "vela": {
                **asdict(cost),
                "milliseconds": self.milliseconds,
                "predicted_cycles": self.predicted_cycles,
                "predicted_sram_bytes": self.predicted_sram_bytes,
            },
            "agreement": asdict(self.agreement),
        }


def check_delegation(lowered: Lowered) -> None:
    """Checks that the accelerator runs all that it should.

    Raises:
        AssertionError: The network is cut, or the CPU is left with more than is allowed.
    """
    more = set(lowered.outside) - ALLOWED_OUTSIDE
    if lowered.subgraphs != 1 or more:
        raise AssertionError(
            f"{lowered.file}: {lowered.subgraphs} delegates, outside them {sorted(more)}"
        )


def compare(
    job: str, answer: Answer, expected: Mapping[str, np.ndarray], tokens: Tokens
) -> Agreement:
    """Compares what was computed in 8 bits with the fp32 encoder.

    Args:
        job: Whose outputs.
        answer: Of the worker.
        expected: Log-probabilities (T', V) of the encoder, by window.
        tokens: Their meaning.

    Raises:
        ParityError: The ratio is below the floor.
    """
    ratios = {}
    for how in (GRAPH, TOSA):
        pairs = [
            powers(wanted, answer.outputs[f"{job}.{how}.{name}"][0].numpy())
            for name, wanted in expected.items()
        ]
        ratios[how] = decibels(sum(one for one, _ in pairs), sum(one for _, one in pairs))
        if not ratios[how] >= FLOOR_DB:
            raise ParityError(
                f"{job} in int8-static: {ratios[how]:.1f} dB between the log-probabilities and "
                f"their quantisation noise ({how}), less than the {FLOOR_DB:g} dB it must keep"
            )
    said = {
        name: (
            greedy_text(wanted, tokens),
            greedy_text(answer.outputs[f"{job}.{TOSA}.{name}"][0].numpy(), tokens),
        )
        for name, wanted in expected.items()
    }
    wanted, heard = said.get(SAMPLE, (None, None))
    return Agreement(
        tosa_db=ratios[TOSA],
        graph_db=ratios[GRAPH],
        floor_db=FLOOR_DB,
        windows=tuple(expected),
        same_transcripts=sum(one == other for one, other in said.values()),
        fp32_heard=wanted,
        heard=heard,
    )
