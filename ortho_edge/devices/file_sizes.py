"""File sizes of artefacts: a property of the file format, the same on every device.

Counted are the weights of linear layers and of convolutions, and what every output of a linear
layer carries besides its bias. What the graph takes, in any case and per layer, is fitted to files
of the shipped checkpoint's sizes by `python -m bench.precision_table`, and of random subnets in
fp32.
"""

from collections.abc import Mapping

from ortho_edge.devices.profile import SizeCost


def _size(
    writer: str, fixed_kb: float, kb_per_layer: float, month: str = "November", **numbers: float
) -> SizeCost:
    return SizeCost(
        provenance="measured",
        source=f"files of {writer}, {month} 2026: the same on every machine",
        **{"bytes_per_parameter": 4, **numbers},
        fixed_kb=fixed_kb,
        kb_per_layer=kb_per_layer,
    )


ET, ORT = "ExecuTorch 1.5.1", "ONNX Runtime 1.32"
FP32: Mapping[tuple[str, str], SizeCost] = {
    ("executorch", "fp32"): _size(ET, 14.89, 0.6157),
    ("onnxruntime", "fp32"): _size(ORT, 9.523, 0.9095, "December"),
}
# A scale takes 4 bytes, and with fixed scales its zero point in ONNX one more; of groups, half of
# that in ExecuTorch.
QUANTISED: Mapping[tuple[str, str], SizeCost] = {
    ("executorch", "fp16"): _size(ET, 13.8, 0.416, bytes_per_parameter=2),
    ("executorch", "int8"): _size(
        ET, 4.849, 0.2847, bytes_per_weight=1, bytes_per_output=4, bytes_per_filter=2
    ),
    ("executorch", "int8-static"): _size(
        ET, 7.74, 1.317, bytes_per_weight=1, bytes_per_output=4, bytes_per_filter=1
    ),
    ("executorch", "int4"): _size(
        ET, 4.744, 0.2954, bytes_per_weight=0.5 + 2 / 32, bytes_per_filter=2
    ),
    ("onnxruntime", "fp16"): _size(ORT, 4.459, 0.2499, "December", bytes_per_parameter=2),
    ("onnxruntime", "int8"): _size(
        ORT, 7.193, 0.4342, "December", bytes_per_weight=1, bytes_per_output=4, bytes_per_filter=1
    ),
    ("onnxruntime", "int8-static"): _size(
        ORT, 7.828, 0.6809, "December", bytes_per_weight=1, bytes_per_output=5, bytes_per_filter=1
    ),
    ("onnxruntime", "int4"): _size(
        ORT, 4.896, 0.4171, "December", bytes_per_weight=0.5 + 4 / 32, bytes_per_filter=1
    ),
}
