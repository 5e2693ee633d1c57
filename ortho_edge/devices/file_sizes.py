"""File sizes of artefacts: a property of the file format, the same on every device.

Counted are the weights of linear layers and of convolutions, and what every output of a linear
layer carries besides its bias. What the graph takes, in any case and per layer, is fitted to files
of the shipped checkpoint's sizes by `python -m bench.precision_table`: in fp32 and int8 to 0.7 % at
worst.
"""

from collections.abc import Mapping

from ortho_edge.devices.profile import Provenance, SizeCost

FP32: Mapping[tuple[str, str], SizeCost] = {
    ("executorch", "fp32"): SizeCost(
        provenance="measured",
        source="files of ExecuTorch 1.5.1, November 2026: the same on every machine",
        bytes_per_parameter=4,
        fixed_kb=18.45,
        kb_per_layer=0.943,
    ),
    ("onnxruntime", "fp32"): SizeCost(
        provenance="measured",
        source="files of ONNX Runtime 1.32, November 2026: the same on every machine",
        bytes_per_parameter=4,
        fixed_kb=8.35,
        kb_per_layer=1.533,
    ),
}

GUESSED = "what the graph takes was guessed from fp32 and not compared with files"
EARLIER = "fitted to files of an earlier writer and not compared with those of today"


def _size(
    source: str,
    fixed_kb: float,
    kb_per_layer: float,
    provenance: Provenance = "analytic",
    **numbers: float,
) -> SizeCost:
    return SizeCost(
        provenance=provenance,
        source=source,
        **{"bytes_per_parameter": 4, **numbers},
        fixed_kb=fixed_kb,
        kb_per_layer=kb_per_layer,
    )


# A scale takes 4 bytes, its zero point in ONNX one more; of groups, half of that in ExecuTorch.
QUANTISED: Mapping[tuple[str, str], SizeCost] = {
    ("executorch", "fp16"): _size(GUESSED, 20.0, 1.5, bytes_per_parameter=2),
    ("executorch", "int8"): _size(
        "files of ExecuTorch 1.5.1, November 2026: the same on every machine",
        8.138,
        0.7381,
        "measured",
        bytes_per_weight=1,
        bytes_per_output=4,
    ),
    ("executorch", "int8-static"): _size(
        GUESSED, 20.0, 1.8, bytes_per_weight=1, bytes_per_output=4, bytes_per_filter=1
    ),
    ("executorch", "int4"): _size(GUESSED, 4.0, 1.5, bytes_per_weight=0.5 + 2 / 32),
    ("onnxruntime", "fp16"): _size(EARLIER, 7.093, 0.5804, bytes_per_parameter=2),
    ("onnxruntime", "int8"): _size(
        "files of ONNX Runtime 1.32, November 2026: the same on every machine",
        6.475,
        0.6527,
        "measured",
        bytes_per_weight=1,
        bytes_per_output=5,
        bytes_per_filter=1,
    ),
    ("onnxruntime", "int8-static"): _size(
        EARLIER, 9.698, 1.009, bytes_per_weight=1, bytes_per_output=5, bytes_per_filter=1
    ),
    ("onnxruntime", "int4"): _size(
        EARLIER, 7.028, 0.7428, bytes_per_weight=0.5 + 4 / 32, bytes_per_filter=1
    ),
}
