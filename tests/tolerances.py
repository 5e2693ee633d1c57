"""Every numeric tolerance of the tests, each with the reason why it is that large and no larger.

The entries of kernels bound the relative RMS error instead of single elements.

Use: `torch.testing.assert_close(actual, expected, **tolerance("compaction_float32"))`.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Agreement is |actual - expected| <= atol + rtol * |expected|."""

    rtol: float
    atol: float
    reason: str


TOLERANCES: dict[str, Tolerance] = {
    "exact": Tolerance(rtol=0.0, atol=0.0, reason="the same operations in the same order"),
    "float64_reordered": Tolerance(
        rtol=1e-10, atol=1e-12, reason="float64 sums taken in another order; eps is 2.2e-16"
    ),
    "float32_reordered": Tolerance(
        rtol=1e-5, atol=1e-6, reason="float32 sums taken in another order; eps is 1.2e-7"
    ),
    "training_float32": Tolerance(
        rtol=1e-4,
        atol=1e-5,
        reason="losses of ten updates whose gradients are summed in another order; AdamW divides "
        "by small second moments, which makes 1e-7 of rounding 1e-5",
    ),
    "compaction_float32": Tolerance(
        rtol=1e-6,
        atol=1e-6,
        reason="the contract of compaction; relative too: a log-prob of -8 is rounded by 5e-7",
    ),
    "fbank": Tolerance(
        rtol=0.0,
        atol=1e-3,
        reason="log-mel energies by two FFTs in float32; speech moves them by 10",
    ),
    "fbank_floor": Tolerance(
        rtol=0.0,
        atol=5e-3,
        reason="bins 80 dB below their frame's loudest hold the rounding of two float32 FFTs",
    ),
    "kernel_float32": Tolerance(
        rtol=1e-5,
        atol=0.0,
        reason="relative RMS of float32 kernels; sums of a few hundred terms measure 2-4e-7",
    ),
    "kernel_float16": Tolerance(
        rtol=2e-3,
        atol=0.0,
        reason="relative RMS where activations are stored in float16: eps 1e-3, measured 3e-4",
    ),
    "kernel_bfloat16": Tolerance(
        rtol=1.6e-2,
        atol=0.0,
        reason="as in float16 with an eps of 8e-3, eight times larger",
    ),
    "parity_float32": Tolerance(
        rtol=0.0, atol=1e-3, reason="the contract of export: log-probs of another runtime's kernels"
    ),
    "lmplz": Tolerance(
        rtol=0.0,
        atol=2e-6,
        reason="base 10 logarithms that lmplz sums and prints in float32; 1e-6 of 274 000 n-grams",
    ),
    "instruction_counts": Tolerance(
        rtol=1e-3,
        atol=0.0,
        reason="now and then a few hundred more, probably for a lock: 333 of 5.1 million seen",
    ),
    "file_size": Tolerance(
        rtol=1e-2,
        atol=0.0,
        reason="the contract of predicted file sizes; graphs differ by what a subnet leaves out",
    ),
    "vela_cycles": Tolerance(
        rtol=1e-4,
        atol=0.0,
        reason="nothing on ethos-u85-256, 0.003 % at worst on ethos-u55-128",
    ),
    "arm_float32": Tolerance(
        rtol=0.0,
        atol=1e-4,
        reason="one program on x86 and Arm: XNNPACK's kernels sum in another order, 4e-6 measured",
    ),
}


def tolerance(name: str) -> dict[str, Any]:
    """The keyword arguments of `assert_close` for the entry `name`."""
    entry = TOLERANCES[name]
    return {"rtol": entry.rtol, "atol": entry.atol}
