"""Core ML, Vulkan and ORT format: what each was checked for, and no more than that."""

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from ortho_edge.cli import UserError
from ortho_edge.devices.catalogue import load_profile
from ortho_edge.devices.profile import Budget
from ortho_export import executorch, onnx, pipeline, targets
from ortho_export.artefact import load_artefact
from ortho_export.card import CARD
from ortho_export.executorch import Delegation, Program
from ortho_export.facts import Facts
from ortho_export.manifest import read_manifest
from ortho_export.results import Request
from ortho_export.targets import COREML, ORT, VULKAN, lower_for, to_ort
from ortho_export.verify import SKIPPED, WRONG, verify
from ortho_export.writing import Job, Written
from tests.export.tiny import SMALL, Exported, bursts, tiny_checkpoint
from tests.tolerances import tolerance

pytestmark = pytest.mark.export

OUTSIDE = {COREML: {"getitem"}, VULKAN: {"getitem"}}
"""What each backend leaves to other kernels: nothing but taking its output apart."""


@pytest.mark.slow
@pytest.mark.parametrize("target", [COREML, VULKAN])
def test_a_backend_takes_the_whole_network(target: str, exported: Exported, tmp_path: Path) -> None:
    facts = Facts(subnet=SMALL, tokens=tiny_checkpoint().tokens, checkpoint_digest="0" * 64)
    program = lower_for(target, exported.encoder_of(SMALL), facts)
    assert program.delegation.subgraphs == 1
    assert set(program.delegation.outside) <= OUTSIDE[target]
    path = tmp_path / "model.pte"
    path.write_bytes(program.content)
    assert executorch.read_facts(path) == facts
    with pytest.raises(UserError, match=r"model\.pte cannot run here"):
        load_artefact(path)


@pytest.fixture(scope="module")
def converted(exported: Exported) -> tuple[bytes, str]:
    return to_ort(exported.model.read_bytes())


def test_a_model_in_ort_format_says_the_same(
    exported: Exported, converted: tuple[bytes, str], tmp_path: Path
) -> None:
    (tmp_path / "model.ort").write_bytes(converted[0])
    read, forward = onnx.load(tmp_path / "model.ort", threads=1)
    other, expected = onnx.load(exported.model, threads=1)
    assert read == other
    x = torch.randn(2, 101, 80, generator=torch.Generator().manual_seed(0)).numpy()
    lengths = np.array([101, 60])
    for found, wanted in zip(forward(x, lengths), expected(x, lengths), strict=True):
        np.testing.assert_allclose(found, wanted, **tolerance("parity_float32"))
    clip = bursts(1.1)
    assert load_artefact(tmp_path / "model.ort").transcribe(clip) == load_artefact(
        exported.model
    ).transcribe(clip)
    (tmp_path / "model.ort").write_bytes(converted[0][: len(converted[0]) // 2])
    with pytest.raises(UserError, match="truncated"):
        load_artefact(tmp_path / "model.ort")


def test_the_operators_that_a_small_build_needs(converted: tuple[bytes, str]) -> None:
    lines = converted[1].splitlines()
    assert any(line.startswith("ai.onnx;13;") and "Softmax{" in line for line in lines)
    assert all(line.count(";") >= 2 for line in lines if line)
    assert all("/" not in line for line in lines), "no folder of this machine"


@pytest.fixture
def request_for(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    """A request whose slow steps copy what was made already."""

    def write(job: Job) -> Written:
        assert job.precision == "fp32"
        content = (exported.folder / job.file).read_bytes()
        return Written(file=job.file, content=content, delegation=None, seconds=1.0)

    def lower(target: str, encoder: object, facts: object) -> Program:
        return Program(
            content=exported.program.read_bytes(),
            delegation=Delegation(subgraphs=1, outside={}, planned_bytes=0),
        )

    monkeypatch.setattr(pipeline, "write_all", partial(map, write))
    monkeypatch.setattr(targets, "lower_for", lower)
    monkeypatch.setattr(targets, "to_onnx", lambda *args: exported.model.read_bytes())
    return Request(
        profile=load_profile("pixel8"),
        budget=Budget(latency_ms=1e3, audio_seconds=1.0, size_mb=1.0),
        checkpoint=exported.checkpoint,
        out=tmp_path / "out",
        also=(COREML, VULKAN, ORT),
    )


def test_the_folder_says_what_was_executed(request_for: Request) -> None:
    pipeline.export(request_for)
    manifest = read_manifest(request_for.out)
    assert manifest is not None
    states = {name: one.get("executed") for name, one in manifest["files"].items()}
    assert states["model.coreml.pte"] is False
    assert states["model.vulkan.pte"] is False
    assert states["model.ort"] is True
    assert manifest["files"]["model.ort"]["parity"]["max_abs_error"] < 1e-3
    assert "parity" not in manifest["files"]["model.vulkan.pte"]
    heard = manifest["sample"]["heard"]
    assert set(heard) == {"model.pte", "model.onnx", "model.ort"}
    card = (request_for.out / CARD).read_text("utf-8")
    for name in ("coreml", "vulkan"):
        assert f"| `model.{name}.pte` | lowered, never executed | delegates: 1 |" in card
    checks = {one.what: one for one in verify(request_for.out, request_for.checkpoint)}
    assert not [one for one in checks.values() if one.outcome == WRONG]
    assert checks["model.vulkan.pte: parity, transcript"].outcome == SKIPPED
    assert "model.ort: parity" in checks


def test_every_file_counts_against_the_budget(
    request_for: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = targets.lower_for
    monkeypatch.setattr(targets, "lower_for", lambda *args: dataclasses.replace(
        small(*args), content=small(*args).content + b"\0" * 1_000_000
    ))  # fmt: skip
    one = dataclasses.replace(request_for, also=(VULKAN,))
    with pytest.raises(UserError, match=r"file size of model\.vulkan\.pte"):
        pipeline.export(one)
    assert not request_for.out.exists()


@pytest.mark.parametrize("target", [COREML, VULKAN])
def test_what_takes_features_only_says_so(request_for: Request, target: str) -> None:
    one = dataclasses.replace(request_for, also=(target,), input="audio")
    with pytest.raises(UserError, match=f"--also {target} takes features only, not --input audio"):
        pipeline.export(one)
