"""Predicted file sizes against files that were written once."""

import pytest

from ortho_edge.checkpoint import load_checkpoint, shipped_checkpoint
from ortho_edge.devices.file_sizes import FP32, QUANTISED
from ortho_edge.devices.latency import file_bytes
from ortho_edge.devices.workload import workload
from tests.tolerances import tolerance

KNOWN = {**FP32, **QUANTISED}
WRITTEN = {
    ("executorch", "fp32"): {
        "s100": 9_632_796,
        "s070": 6_531_868,
        "s045": 3_951_772,
        "s028": 2_426_140,
        "s015": 1_174_556,
    },
    ("executorch", "fp16"): {"s100": 4_868_496, "s045": 2_026_256, "s015": 619_536},
    ("executorch", "int8"): {
        "s100": 2_603_104,
        "s070": 1_799_744,
        "s045": 1_126_416,
        "s028": 724_880,
        "s015": 356_688,
    },
    ("executorch", "int8-static"): {"s100": 2_646_928, "s045": 1_140_224, "s015": 356_768},
    ("executorch", "int4"): {"s100": 1_523_296, "s045": 690_128, "s015": 232_848},
    ("onnxruntime", "fp32"): {
        "s100": 9_665_817,
        "s070": 6_560_779,
        "s045": 3_973_993,
        "s028": 2_443_883,
        "s015": 1_178_167,
    },
    ("onnxruntime", "fp16"): {"s100": 4_810_005, "s045": 1_968_555, "s015": 581_514},
    ("onnxruntime", "int8"): {
        "s100": 2_572_088,
        "s070": 1_763_840,
        "s045": 1_085_346,
        "s028": 681_718,
        "s015": 328_423,
    },
    ("onnxruntime", "int8-static"): {"s100": 2_589_506, "s045": 1_100_688, "s015": 335_807},
    ("onnxruntime", "int4"): {"s100": 1_623_102, "s045": 699_485, "s015": 218_862},
}
"""Bytes by runtime and precision, then size of the shipped checkpoint: ExecuTorch 1.5.1 and ONNX
Runtime 1.32, 2026-11-26, by `python -m bench.precision_table`."""


@pytest.mark.parametrize("key", WRITTEN)
def test_the_files_of_the_shipped_sizes_are_as_large_as_predicted(key: tuple[str, str]) -> None:
    checkpoint = load_checkpoint(shipped_checkpoint())
    for name, written in WRITTEN[key].items():
        works = workload(checkpoint.supernet.space, checkpoint.subnet(name).subnet, 1.0)
        found = file_bytes(KNOWN[key], works)
        assert found == pytest.approx(written, rel=tolerance("file_size")["rtol"]), name


def test_every_precision_is_held_against_files() -> None:
    assert WRITTEN.keys() == KNOWN.keys()
