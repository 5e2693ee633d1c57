"""The precisions that an encoder can be exported in: the one list of them.

Matrices of linear layers hold nearly all parameters and take most of the time, so it is their
precision that matters; `ortho_export` says what becomes of the rest.
"""

from typing import Literal, get_args

Precision = Literal["fp32", "fp16", "int8", "int8-static", "int4"]
"""What numbers an artefact computes with.

* `fp32`: as trained.
* `fp16`: weights and activations in half precision.
* `int8`: weights in 8 bits per output channel; inputs of products are rounded to 8 bits at run
  time, with a scale taken from the values that are there.
* `int8-static`: the same weights; the scales of inputs and outputs are fixed, taken from speech.
* `int4`: weights of linear layers in 4 bits, a scale for every 32; inputs as in `int8`.
"""

Asked = Literal[Precision, "auto"]
"""What can be asked for; `auto` tries `BY_DEFAULT`."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

BY_DEFAULT: tuple[Precision, ...] = ("fp32", "int8")
"""What is tried, profiled and timed where nobody names a precision: none of the others is both
faster than `int8` and as accurate; docs/results.md has the figures."""

CALIBRATED: tuple[Precision, ...] = ("int8-static",)
"""What needs speech to take scales from."""


def precision_of(file: str) -> Precision:
    """What the name of an artefact says, such as `model.int8.pte`; fp32 goes unsaid."""
    parts = file.split(".")
    said: list[Precision] = [one for one in PRECISIONS if one in parts]
    return said[0] if said else "fp32"
