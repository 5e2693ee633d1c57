"""The command select: what it prints and draws, and one line for every mistake."""

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ortho_edge import select
from ortho_edge.checkpoint import (
    TrainedSubnet,
    load_checkpoint,
    save_checkpoint,
    shipped_checkpoint,
)
from ortho_edge.cli import run
from tests.devices.recorded import recorded_sizes

Command = Callable[..., tuple[int, str, str]]


DEV_WER = {"s100": 3.83, "s070": 5.95, "s045": 6.44, "s028": 8.56, "s015": 15.17}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint that ships with the sizes of a recorded training, so that costs are known."""
    shipped = load_checkpoint(shipped_checkpoint())
    sizes = recorded_sizes(shipped.supernet.space)
    subnets = tuple(
        TrainedSubnet(
            name=name, subnet=subnet, head=head, target=int(name[1:]) / 100,
            metrics={"dev_wer": DEV_WER[name]},
        )
        for head, (name, subnet) in enumerate(sizes.items())
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("recorded") / "model"
    save_checkpoint(replace(shipped, subnets=subnets), folder)
    return folder


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], recorded: Path
) -> Command:
    """Runs the command in this process: status, what it printed and what it complained of."""

    def call(*arguments: str) -> tuple[int, str, str]:
        if "--checkpoint" not in arguments:
            arguments = (*arguments, "--checkpoint", str(recorded))
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        status = 0
        try:
            run(select.main, select.Arguments, prog="command")
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return call


def test_one_subnet_for_all_devices_or_one_for_each(command: Command) -> None:
    devices = ("--device", "pixel8", "raspberrypi5@8ms")
    status, printed, _ = command(*devices)
    assert status == 0
    assert printed.startswith("pixel8, raspberrypi5: s015, dev WER 15.17 %")
    assert "no limit of pixel8 binds: s028 fits here" in printed
    assert re.search(r"raspberrypi5: 7\.451 ms for 5 s of audio \(RTF 0\.0015\)", printed)
    assert "latency binds: the next size up, s028" in printed
    _, printed, _ = command(*devices, "--per-device")
    first = [line.split(", dev")[0] for line in printed.splitlines() if "dev WER" in line]
    assert first[0] == "pixel8: s045"
    assert "raspberrypi5: s015" in first


def test_limits_hold_for_every_device(command: Command) -> None:
    _, printed, _ = command(
        "--device", "pixel8", "raspberrypi5", "--rtf", "0.01", "--audio-seconds", "2",
        "--flops", "1.1e8", "--params", "inf",
    )  # fmt: skip
    assert printed.count("of at most 20 ms") == 2
    assert printed.count("of at most 110,000,000") == 2
    assert printed.count("FLOPs binds: the next size up, s045") == 2
    assert "parameters 5" not in printed


def test_a_composed_subnet_comes_with_its_warnings(command: Command) -> None:
    status, printed, _ = command(
        "--device", "pixel8", "--latency-ms", "10", "--audio-seconds", "4", "--subnet", "any"
    )
    assert status == 0
    assert re.match(r"pixel8: any\d\d\d, dev WER unknown, ", printed)
    assert "the best trained size that fits, s070" in printed
    assert "its error rate is unknown" in printed
    # The solver's native code prints a line of debugging for this very budget.
    assert "HighsMip" not in printed


def test_the_pareto_front_is_listed_and_drawn(
    command: Command, recorded: Path, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(recorded)
    # A large size that is worse than a small one is on no front.
    worse = [{"dev_wer": 9.0} if one.name == "s070" else one.metrics for one in checkpoint.subnets]
    subnets = tuple(
        replace(one, metrics=metrics)
        for one, metrics in zip(checkpoint.subnets, worse, strict=True)
    )
    save_checkpoint(replace(checkpoint, subnets=subnets), tmp_path / "model")
    picture = tmp_path / "front.png"
    status, printed, _ = command(
        "--device", "pixel8", "--checkpoint", str(tmp_path / "model"), "--pareto",
        "--plot", str(picture),
    )  # fmt: skip
    assert status == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    table = printed[printed.index("Pareto front") :]
    stars = {
        line.split()[0]: line.count("*") for line in table.splitlines() if re.match("s[01]", line)
    }
    assert stars == {"s015": 3, "s028": 3, "s045": 3, "s070": 0, "s100": 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--device", "pixel9"), "unknown device 'pixel9'; known: "),
        (("--device", "pixel8@7s"), "'pixel8@7s' is no limit of a device"),
        (
            ("--device", "pixel8", "--latency-ms", "0"),
            "--latency-ms is 0.0; it must be above 0; inf lifts the limit",
        ),
        (
            ("--device", "pixel8", "--rtf", "nan"),
            "--rtf is nan; it must be above 0; inf lifts the limit",
        ),
        (
            ("--device", "pixel8", "--flops", "1e6"),
            "FLOPs 1,000,000 is below the smallest reachable",
        ),
        (
            ("--device", "pixel8", "--size-mb", "0.01", "--subnet", "any"),
            "no subnet fits the budget on 'pixel8' for 5 s of audio: file size 0.01 MB is below",
        ),
        (("--device", "pixel8", "--checkpoint", "nowhere"), "no checkpoint folder at nowhere"),
    ],
)
def test_a_mistake_gets_one_line(
    command: Command, arguments: tuple[str, ...], message: str
) -> None:
    status, printed, complaint = command(*arguments)
    assert (status, printed) == (2, "")
    lines = complaint.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]
