"""The command `python -m ortho_edge.profile`; the measurement itself is tested with fakes."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ortho_edge import profile as command
from ortho_edge.checkpoint import Checkpoint, save_checkpoint
from ortho_edge.cli import UserError
from ortho_edge.compaction import compact
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.devices.catalogue import load_profile
from ortho_edge.devices.probes import probes
from ortho_edge.devices.profile import DeviceProfile
from ortho_edge.supernet import Supernet
from ortho_edge.tokens import BLANK, Tokens
from tests.tolerances import tolerance

ARCHITECTURE = Architecture(
    vocab_size=5, dim=16, num_blocks=1, num_heads=2, head_dim=8, ffn_dim=32, kernel_size=3,
    front_end="strided", front_end_channels=(4, 4),
)  # fmt: skip


@pytest.fixture
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    symbols = (BLANK, "a", "b", "c", "d")
    return Checkpoint(supernet=Supernet(ARCHITECTURE).eval(), tokens=Tokens(symbols), subnets=())


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Checkpoint]:
    """Puts a made-up result in place of the measurement; holds what it was asked to measure."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    shipped = load_profile("pixel8")
    costs = dataclasses.replace(
        shipped.runtimes["executorch"]["fp32"],
        provenance="measured",
        error_percent=1.5,
        worst_error_percent=4.0,
        spread_percent=0.5,
        p50_ratio=1.04,
    )
    asked = []

    def measure(checkpoint: Checkpoint, *_: Any, **__: Any) -> DeviceProfile:
        asked.append(checkpoint)
        return dataclasses.replace(shipped, name="host", runtimes={"executorch": {"fp32": costs}})

    monkeypatch.setattr("ortho_edge.devices.profiler.measure_host", measure)
    return asked


def test_the_profile_is_found_as_the_device_host(
    checkpoint: Checkpoint,
    measured: list[Checkpoint],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_checkpoint(checkpoint, tmp_path / "checkpoint")
    with pytest.raises(UserError, match="not measured yet"):
        load_profile("host")
    command.main(command.Arguments(checkpoint=tmp_path / "checkpoint"))
    assert load_profile("host").runtimes["executorch"]["fp32"].error_percent == 1.5
    assert measured[0].supernet.architecture == ARCHITECTURE
    printed = capsys.readouterr().out
    quality = "1.5 % on average, 4.0 % at worst; noise 0.5 %; p50 1.04 times the minimum"
    assert quality in printed
    assert "--device host" in printed


def test_the_profile_goes_where_it_is_told_to(
    checkpoint: Checkpoint, measured: list[Checkpoint], tmp_path: Path
) -> None:
    save_checkpoint(checkpoint, tmp_path / "checkpoint")
    out = tmp_path / "new" / "folder" / "board.toml"
    command.main(command.Arguments(checkpoint=tmp_path / "checkpoint", out=out))
    assert load_profile(str(out)).name == "host"
    assert not (tmp_path / "config").exists()


@pytest.mark.parametrize("out", ["board.txt", "folder.toml", "file/board.toml"])
def test_a_place_that_cannot_be_written_is_refused_before_measuring(
    out: str, measured: list[Checkpoint], tmp_path: Path
) -> None:
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=out.split("/")[0]):
        command.main(command.Arguments(out=tmp_path / out))
    assert not measured


@pytest.mark.slow
def test_a_missing_checkpoint_is_one_line_and_status_2(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "ortho_edge.profile", "--checkpoint", "nowhere", "--out", "a.toml"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.strip() == "error: no checkpoint folder at nowhere"
    assert result.stdout == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.export
@pytest.mark.slow
@pytest.mark.parametrize("name", ["executorch", "onnxruntime"])
@pytest.mark.parametrize("probe_name", ["empty", "full"])
def test_a_runtime_of_this_host_runs_what_it_exports(
    name: str, probe_name: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    from ortho_export.host import host_runtimes

    runtime = next(one for one in host_runtimes() if one.name == name)
    assert runtime.version[0].isdigit()
    probe = next(one for one in probes(checkpoint, seed=0) if one.trained.name == probe_name)
    file = runtime.export(probe.checkpoint, probe.trained, tmp_path)
    assert file.parent == tmp_path
    features = np.random.default_rng(0).standard_normal((1, 57, 80), np.float32)
    output: Any = runtime.load(file)(features)
    actual = output[0] if isinstance(output, tuple) else output
    encoder = compact(probe.checkpoint.supernet, probe.trained.subnet)
    expected, _ = encoder(torch.from_numpy(features), torch.tensor([57]))
    torch.testing.assert_close(
        torch.from_numpy(actual), expected.detach(), **tolerance("parity_float32")
    )
