"""Which implementation runs where, and which launch configuration."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ortho_kernels import dispatch, launch

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No choice or table is remembered from, or for, another test."""
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    for cached in (dispatch._choose, launch.read_table, launch.table_config):
        cached.cache_clear()
    yield
    for cached in (dispatch._choose, launch.read_table, launch.table_config):
        cached.cache_clear()


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of launch tables in place of those that ship."""
    folder = tmp_path / launch.TABLES
    folder.mkdir()
    monkeypatch.setattr(launch.resources, "files", lambda _: tmp_path)
    return folder


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)


@pytest.mark.parametrize("wanted", ["auto", "triton", "reference"])
def test_the_cpu_takes_plain_torch(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv(dispatch.VARIABLE, wanted)
    assert dispatch.backend("gated_ffn", CPU) == "reference"


def test_other_accelerators_take_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, "triton")
    assert dispatch.backend("gated_ffn", torch.device("mps")) == "reference"
    pretend_gpu(monkeypatch, "Tesla T4", (7, 5))
    assert dispatch.backend("gated_ffn", torch.device("cuda", 0)) == "reference"
    assert "sm_75" in dispatch.reason("gated_ffn", torch.device("cuda", 0))


def test_a_gpu_takes_kernels_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, "NVIDIA H200", (9, 0))
    monkeypatch.setenv(dispatch.VARIABLE, "triton")
    assert dispatch.backend("gated_ffn", torch.device("cuda", 0)) == "triton"
    monkeypatch.setenv(dispatch.VARIABLE, "reference")
    assert dispatch.backend("gated_ffn", torch.device("cuda", 0)) == "reference"


@pytest.mark.parametrize(
    ("speedup", "expected"), [(None, "reference"), (1.1, "reference"), (1.15, "triton")]
)
def test_by_default_a_kernel_runs_only_where_it_reached_its_target(
    speedup: float | None, expected: str, tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpu(monkeypatch, "NVIDIA H200", (9, 0))
    measured = {"gated_ffn": {"speedup": speedup, "target": 1.15}} if speedup else {}
    table = {"operations": measured}
    (tables / "NVIDIA_H200.json").write_text(json.dumps(table))
    assert dispatch.backend("gated_ffn", torch.device("cuda", 0)) == expected


def test_the_choice_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ortho_kernels"):
        for _ in range(3):
            dispatch.backend("gated_ffn", CPU)
    assert [record.getMessage() for record in caplog.records] == [
        f"gated_ffn on cpu: reference ({dispatch.reason('gated_ffn', CPU)})"
    ]


def test_an_unknown_choice_names_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, "cuda")
    with pytest.raises(ValueError, match="'cuda'; choose from auto, triton, reference"):
        dispatch.backend("gated_ffn", CPU)


def test_importing_the_package_does_not_import_triton() -> None:
    code = (
        "import sys, ortho_kernels.dispatch, ortho_kernels.gated_ffn.reference\n"
        "assert 'triton' not in sys.modules"
    )
    path = [str(Path(launch.__file__).parent.parent)]
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{code}"], check=True
    )


def config(warps: int) -> dict:
    return {"BLOCK_M": 64, "num_warps": warps, "num_stages": 2}


def test_configurations_are_those_of_the_gpu_then_of_older_architectures(tables: Path) -> None:
    old = {"kernels": {"expand": [{"dim": 512, "bits": 16, "config": config(4)}]}}
    tuned = {"kernels": {"expand": [{"dim": 256, "bits": 16, "config": config(1)},
                                    {"dim": 512, "bits": 16, "config": config(8)}]}}  # fmt: skip
    (tables / "sm_80.json").write_text(json.dumps(old))
    (tables / "NVIDIA_H200.json").write_text(json.dumps(tuned))

    def warps(gpu: str, architecture: str, dim: int = 512) -> int:
        found = launch.table_config("expand", gpu, architecture, torch.bfloat16, dim)
        assert found.blocks == {"BLOCK_M": 64}
        return found.num_warps

    assert warps("NVIDIA H200", "sm_90") == 8
    assert warps("NVIDIA H200", "sm_90", dim=300) == 1
    assert warps("NVIDIA H100", "sm_90") == 4
    assert warps("", "sm_120") == 4
    with pytest.raises(KeyError, match="expand for 32 bits on sm_90"):
        launch.table_config("expand", "", "sm_90", torch.float32, 512)
    with pytest.raises(KeyError, match="gfx942"):
        launch.table_config("expand", "", "gfx942", torch.bfloat16, 512)
