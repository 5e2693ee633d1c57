"""The comparison with other encoders, without any of them."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from bench import peer_files, peers
from bench.peer_encoders import Peer, example, num_parameters, scaled_to
from bench.peers_table import plot, table
from ortho_edge.cli import UserError


def row(name: str, milliseconds: float, mflops: float, frames: int, **other: object) -> dict:
    return {
        "group": "2.4 M", "name": name, "input": "features", "runtime": "onnxruntime",
        "seconds": 4.0, "params": 2_400_000, "mflops": mflops, "frames": frames, "size_mb": 9.6,
        "delegates": None, "memory_mb": None, "min_ms": milliseconds, "p50_ms": 2 * milliseconds,
        "spread_percent": 1.0, "rtf": milliseconds / 4000, **other,
    }  # fmt: skip


ROWS = [
    row("ours", 8.0, 400.0, 100, memory_mb=21.4),
    row("slow", 9.0, 300.0, 200),
    row("fast", 6.0, 200.0, 50),
    row("fast", 1.0, 200.0, 50, input="audio"),
    row("fast", 1.0, 200.0, 50, seconds=1.0),
]


def test_the_table_says_who_is_faster_and_with_what() -> None:
    lines = table(ROWS)
    assert "### 2.4 M, 4 s" in lines
    assert "| ours | features | 2,400,000 | 400 | 25.0 | 8.00 / 16.00, 21 |" in lines
    assert "| slow | features | 2,400,000 | 300 | 50.0 | 9.00 / 18.00 |" in lines
    after = lines[lines.index("Faster than ours:") + 2 :]
    assert after == [
        "- fast (2.4 M, 4 s, onnxruntime, features): 0.75 of our time, with 0.50 of our FLOPs and "
        "0.50 of our frames; per MFLOP 1.50 of our time."
    ], "others of that input or length have no counterpart"
    assert table(ROWS[:2])[-1] == "No peer is faster than ours."


def test_results_are_shown_from_their_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "peers.json"
    path.write_text(json.dumps({"schema_version": peers.SCHEMA_VERSION, "results": ROWS}))
    peers.main(peers.Arguments(json=path, plot=tmp_path / "peers.png"))
    assert capsys.readouterr().out.splitlines() == table(ROWS)
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
    plot(ROWS, tmp_path / "plots" / "again.png")
    path.write_text('{"schema_version": 0}')
    with pytest.raises(UserError, match="not of schema version"):
        peers.main(peers.Arguments(json=path))
    path.write_text("no JSON")
    with pytest.raises(UserError, match="holds no results of this bench"):
        peers.main(peers.Arguments(json=path))
    with pytest.raises(UserError, match="name a folder of artefacts"):
        peers.main(peers.Arguments())


@pytest.mark.parametrize("params", [10_000, 123_456, 2_387_431])
def test_widths_give_the_parameters_that_are_asked_for(params: int) -> None:
    def make(width: int, inner: int) -> nn.Module:
        return nn.Sequential(nn.Linear(width, inner), nn.Linear(inner, width), nn.Linear(width, 3))

    width, inner = scaled_to(params, make, 8)
    assert width % 8 == 0
    assert 3 <= inner / width <= 6
    assert num_parameters(make(width, inner)) == pytest.approx(params, rel=0.02)


def test_what_cannot_be_exported_is_recorded_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def fails(path: Path) -> tuple[nn.Module, int | None]:
        tries.append(path.name)
        path.write_bytes(b"half")
        raise RuntimeError("no such\noperator")

    def works(path: Path) -> tuple[nn.Module, int | None]:
        tries.append(path.name)
        path.write_bytes(bytes(2_000_000))
        return nn.Linear(80, 5, bias=False), 3

    peer = Peer(name="one, two", group="2.4 M", input="features", make=lambda _: nn.Identity())
    wanted = [
        (
            peer_files.Built(
                name=peer.name, group=peer.group, input=peer.input, runtime=runtime,
                lengths=(1.0,), params=7,
            ),
            write,
        )
        for runtime, write in (("executorch", works), ("onnxruntime", fails))
    ]  # fmt: skip
    monkeypatch.setattr(peer_files, "_wanted", lambda: iter(wanted))
    monkeypatch.setattr(peer_files, "_memory", lambda built, path: {"1": 5.5})
    built, failed = peer_files.build_all(tmp_path)
    assert (built.flops, built.frames, built.size_mb) == ({"1": 2 * 100 * 80 * 5}, {"1": 100}, 2.0)
    assert (built.delegates, built.memory_mb) == (3, {"1": 5.5})
    assert failed.failed == "RuntimeError: no such operator"
    assert not (tmp_path / failed.file).exists()
    assert peer_files.build_all(tmp_path) == [built, failed]
    assert tries == ["2.4_M.one_two.features.1s.pte", "2.4_M.one_two.features.1s.onnx"]


def test_examples_are_as_long_as_asked() -> None:
    assert example("features", 4.0).shape == (1, 400, 80)
    assert example("audio", 4.0).shape == (1, 64000)
    assert torch.equal(example("audio", 1.0), example("audio", 1.0))
