"""File sizes of artefacts: a property of the file format, the same on every device.

Of quantised ones counted are the weights of linear layers, one byte each, and what every output of
such a layer carries besides its bias. What the graph takes, in any case and per layer, was fitted
to files of the shipped checkpoint's sizes, which it meets to 0.1 %.
"""

from collections.abc import Mapping

from ortho_edge.devices.profile import SizeCost

FP32: Mapping[tuple[str, str], SizeCost] = {
    ("executorch", "fp32"): SizeCost(
        provenance="measured",
        source="files of ExecuTorch 1.5.1, November 2026: the same on every machine",
        bytes_per_parameter=4,
        fixed_kb=19.1,
        kb_per_layer=1.549,
    ),
    ("onnxruntime", "fp32"): SizeCost(
        provenance="measured",
        source="files of ONNX Runtime 1.32, November 2026: the same on every machine",
        bytes_per_parameter=4,
        fixed_kb=16.61,
        kb_per_layer=1.483,
    ),
}
QUANTISED: Mapping[tuple[str, str], SizeCost] = {
    ("executorch", "int8"): SizeCost(
        provenance="measured",
        source="files of ExecuTorch 1.5.1, November 2026: the same on every machine",
        bytes_per_parameter=4,
        bytes_per_weight=1,
        bytes_per_output=4,  # a scale
        fixed_kb=20.17,
        kb_per_layer=1.868,
    ),
    ("onnxruntime", "int8"): SizeCost(
        provenance="measured",
        source="files of ONNX Runtime 1.32, November 2026: the same on every machine",
        bytes_per_parameter=4,
        bytes_per_weight=1,
        bytes_per_output=5,  # a scale and a zero point
        fixed_kb=8.35,
        kb_per_layer=1.298,
    ),
}
