"""The shared fixtures do what the tests rely on."""

from pathlib import Path

import pytest
import torch

from tests.conftest import poisoned

ALLOCATIONS = {
    "empty": "torch.empty(3)",
    "empty_like": "torch.empty_like(torch.ones(3))",
    "empty_strided": "torch.empty_strided((3,), (1,))",
    "new_empty": "torch.ones(3).new_empty(3)",
}


def evaluated_in(module: str, expression: str, **names: object) -> torch.Tensor:
    namespace = {"torch": torch, "__name__": module, **names}
    exec(f"result = {expression}", namespace)
    result = namespace["result"]
    assert isinstance(result, torch.Tensor)
    return result


@pytest.mark.parametrize("expression", ALLOCATIONS.values(), ids=ALLOCATIONS)
@pytest.mark.parametrize("module", ["ortho_edge.supernet", "ortho_kernels", "ortho_export.onnx"])
def test_memory_of_our_packages_is_nan(module: str, expression: str) -> None:
    assert evaluated_in(module, expression).isnan().all()


@pytest.mark.parametrize("module", ["ortho_edgeless", "torch.nn.modules.linear", "__main__"])
def test_memory_of_other_packages_is_left_alone(module: str) -> None:
    result = evaluated_in(module, "allocate(3)", allocate=poisoned(torch.ones))
    assert result.equal(torch.ones(3))


def test_integer_memory_is_left_alone() -> None:
    allocate = poisoned(torch.zeros)
    result = evaluated_in("ortho_edge", "allocate(3, dtype=torch.long)", allocate=allocate)
    assert result.equal(torch.zeros(3, dtype=torch.long))


@pytest.mark.export
def test_an_export_test_finds_the_original_allocator() -> None:
    assert torch.empty.__module__ != poisoned.__module__


def test_one_thread() -> None:
    assert torch.get_num_threads() == 1


@pytest.mark.data
def test_data_root_holds_the_corpora(data_root: Path) -> None:
    assert (data_root / "speechocean762").is_dir()
    assert (data_root / "fsdd" / "transcripts.tsv").is_file()
