"""Predicted file sizes against files that were written once."""

import pytest

from ortho_edge.checkpoint import load_checkpoint, shipped_checkpoint
from ortho_edge.devices.file_sizes import FP32, QUANTISED
from ortho_edge.devices.latency import file_bytes
from ortho_edge.devices.workload import workload
from tests.devices.recorded import recorded_sizes
from tests.tolerances import tolerance

KNOWN = {**FP32, **QUANTISED}
WRITTEN = {
    ("executorch", "fp32"): {
        "s100": 9_608_348,
        "s070": 6_509_340,
        "s045": 3_931_804,
        "s028": 2_407_580,
        "s015": 1_163_676,
    },
    ("executorch", "fp16"): {"s100": 4_814_080, "s045": 1_975_296, "s015": 588_544},
    ("executorch", "int8"): {
        "s100": 2_548_320,
        "s070": 1_746_624,
        "s045": 1_075_472,
        "s028": 675_184,
        "s015": 328_592,
    },
    ("executorch", "int8-static"): {"s100": 2_615_328, "s045": 1_112_672, "s015": 340_672},
    ("executorch", "int4"): {"s100": 1_468_512, "s045": 639_184, "s015": 204_752},
    ("onnxruntime", "fp32"): {
        "s100": 9_617_339,
        "s070": 6_516_003,
        "s045": 3_935_359,
        "s028": 2_409_713,
        "s015": 1_160_432,
    },
    ("onnxruntime", "fp16"): {"s100": 4_795_353, "s045": 1_956_839, "s015": 576_062},
    ("onnxruntime", "int8"): {
        "s100": 2_544_961,
        "s070": 1_741_516,
        "s045": 1_068_315,
        "s028": 668_411,
        "s015": 323_232,
    },
    ("onnxruntime", "int8-static"): {"s100": 2_574_837, "s045": 1_088_964, "s015": 330_359},
    ("onnxruntime", "int4"): {"s100": 1_608_450, "s045": 687_769, "s015": 213_412},
}
"""Bytes by runtime and precision, then size of `sizes.json`: ExecuTorch 1.5.1 and ONNX Runtime
1.32, 2026-11-26 and, of ONNX, 2026-12-01, by `python -m bench.precision_table`."""


@pytest.mark.parametrize("key", WRITTEN)
def test_the_files_of_trained_sizes_are_as_large_as_predicted(key: tuple[str, str]) -> None:
    space = load_checkpoint(shipped_checkpoint()).supernet.space
    sizes = recorded_sizes(space)
    for name, written in WRITTEN[key].items():
        works = workload(space, sizes[name], 1.0)
        found = file_bytes(KNOWN[key], works)
        assert found == pytest.approx(written, rel=tolerance("file_size")["rtol"]), name


def test_every_precision_is_held_against_files() -> None:
    assert WRITTEN.keys() == KNOWN.keys()
