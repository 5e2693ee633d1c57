"""What all tests share: one thread, the speech corpora, and poisoned memory."""

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

# Triton reads it when it is imported: without a GPU, kernels run in its interpreter.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

REPOSITORY = Path(__file__).resolve().parent.parent
OWN_PACKAGES = ("ortho_edge", "ortho_kernels", "ortho_export")

LONGEST = (
    "test_shipped_checkpoint", "test_all_precisions", "test_compile_only", "test_delegate",
    "test_precision", "test_audio", "test_targets", "test_writing", "test_gpu_bench",
    "test_pipeline", "test_executorch", "test_fleet", "test_profiler", "test_gated_conv_kernel",
    "test_gated_attention_op", "test_trainer", "test_distributed", "test_profile_command",
    "test_onnx", "test_supernet_kernels", "test_gated_ffn_op", "test_interruption",
)  # fmt: skip
"""Files that take longest, those that wait for the same artefact apart."""

# Properties are tried on a few examples, the same ones each time; `make test-slow` draws more of
# them, and new ones. A busy machine fails neither.
settings.register_profile(
    "quick", max_examples=25, derandomize=True, deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
settings.register_profile(
    "thorough", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("quick")


def pytest_configure(config: pytest.Config) -> None:
    # More threads than free cores make small operations hundreds of times slower.
    torch.set_num_threads(1)
    # Lowering makes millions of objects that stay: an eighth of its time went into looking at them.
    gc.set_threshold(50_000, 20, 100)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Files go to the processes in this order, and the last ones should be short.
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the working tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the speech corpora; skips the test where there is none."""
    configured = os.environ.get("ORTHO_EDGE_DATA")
    root = Path(configured) if configured else REPOSITORY.parent / "shared" / "data"
    if not root.is_dir():
        pytest.skip(f"no speech corpora at {root}; set ORTHO_EDGE_DATA to their folder")
    return root


def poisoned(allocate: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`allocate`, but floating-point memory that our packages ask for arrives filled with NaN."""

    def wrapper(*args: object, **kwargs: object) -> torch.Tensor:
        tensor = allocate(*args, **kwargs)
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.split(".")[0] in OWN_PACKAGES and tensor.is_floating_point():
            with torch.no_grad():
                tensor.fill_(float("nan"))
        return tensor

    return wrapper


@pytest.fixture(autouse=True)
def nan_poison(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes an element that nobody wrote visible: uninitialised memory is NaN instead of luck."""
    # Tracing follows torch.empty itself and must find the original.
    if request.node.get_closest_marker("export") is not None:
        return
    for name in ("empty", "empty_like", "empty_strided"):
        monkeypatch.setattr(torch, name, poisoned(getattr(torch, name)))
    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned(torch.Tensor.new_empty))
