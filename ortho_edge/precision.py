"""The precisions that an encoder can be exported in, and what each makes of its parameters.

Only the matrices of linear layers are ever quantised: they hold nearly all parameters and take
nearly all the time. Biases, norms and convolutions stay fp32.
"""

from collections.abc import Mapping
from typing import Literal, get_args

from ortho_edge.cli import UserError

Precision = Literal["fp32", "int8"]
"""`int8`: weights of linear layers in 8 bits per output channel; their inputs are rounded to 8 bits
at run time, with a scale taken from the values that are there."""

Asked = Literal["fp32", "int8", "auto", "fp16", "int8-static", "int4"]
"""What can be asked for; `REFUSED` says why some of it is not given."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

REFUSED: Mapping[str, str] = {
    "fp16": "its ONNX files are twice as large as int8, no faster than fp32 and no more accurate "
    "on speech than either; for ExecuTorch it was not measured",
    "int8-static": "its ONNX files are no smaller than int8, slower and 4 dB noisier; for "
    "ExecuTorch it was not measured",
    "int4": "its ONNX files are smaller than int8 but as slow as fp32 and 12 dB noisier; for "
    "ExecuTorch it was not measured",
}
"""Figures stand in docs/log.md."""


def offered(asked: Asked) -> Precision | Literal["auto"]:
    """The precision that was asked for.

    Raises:
        UserError: It is not offered; says why.
    """
    for one in PRECISIONS:
        if asked == one:
            return one
    if asked == "auto":
        return "auto"
    raise UserError(
        f"precision {asked} is not offered: {REFUSED[asked]}; known: {', '.join(PRECISIONS)}, auto"
    )
