"""Profiles of devices, through the stand-ins of adb and ssh, with a bench of known answers."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ortho_edge import profile as command
from ortho_edge.checkpoint import Checkpoint, TrainedSubnet, load_checkpoint, shipped_checkpoint
from ortho_edge.cli import UserError
from ortho_edge.components import ComponentSpace
from ortho_edge.devices.catalogue import load_profile
from ortho_edge.devices.latency import predict_latency
from ortho_edge.devices.measurements import Runtime
from ortho_edge.subnet import Subnet
from ortho_export.arm.bench import Bench, ask_board, open_device
from ortho_export.arm.machines import MachineError
from ortho_export.arm.remote import connected
from ortho_export.arm.toolchain import Bundle
from ortho_export.host import export_model
from tests.arm.conftest import Programs
from tests.arm.device import Device, make_device, plain_bundle
from tests.arm.scope import SIZES

# A network's file says how long it takes; each second round is a little slower.
BENCH_SCRIPT = """
import json, sys
what = sys.argv[1]
if what == "time":
    core, seconds, frames, *networks = sys.argv[2:]
    assert core == "1"
    print(json.dumps({"round": 1, "seconds": 1.0}), flush=True)
    calls = []
    for index, network in enumerate(networks):
        times = json.load(open(network))
        for length in map(int, frames.split(",")):
            ms = times[str(length)]
            calls.append({"network": index, "frames": length, "cpu_ms": [1.01 * ms, ms],
                          "median_cpu_ms": 1.02 * ms, "wall_ms": [1.2 * ms, 1.1 * ms]})
    print(json.dumps({"rounds": 12, "calls": calls}))
if what == "memory":
    core, frames, warm_up, network = sys.argv[2:]
    assert json.load(open(warm_up)) == json.load(open(network)) or "warm" in warm_up
    print(json.dumps({"peak_kb": 8000 + 2 * int(frames)}))
"""
LENGTHS = (1.0, 2.0, 4.0, 10.0)


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    return make_device(tmp_path / "device", monkeypatch)


def truth(space: ComponentSpace, subnet: Subnet, seconds: float, of: str) -> float:
    """Milliseconds on the device: those of a shipped profile."""
    return predict_latency(load_profile("pixel8"), space, subnet, seconds, of).milliseconds


def runtime(name: str, suffix: str) -> Runtime:
    def export(checkpoint: Checkpoint, trained: TrainedSubnet, folder: Path) -> Path:
        file = folder / f"{trained.name}{suffix}"
        space = checkpoint.supernet.space
        times = {f"{100 * one:.0f}": truth(space, trained.subnet, one, name) for one in LENGTHS}
        file.write_text(json.dumps(times))
        return file

    return Runtime(name=name, version="1", export=export, load=lambda file: print)


@pytest.fixture
def measurable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the command use a bench, and networks whose times are known; of ExecuTorch alone, for
    each takes a few seconds, unless more runtimes are given."""

    def use(bench: str, *more: Runtime) -> None:
        bundle = plain_bundle(tmp_path / "bundle", bench)
        runtimes = (runtime("executorch", ".pte"), *more)
        monkeypatch.setattr("ortho_export.arm.toolchain.load_bundle", lambda: bundle)
        monkeypatch.setattr("ortho_export.host.host_runtimes", lambda *_: runtimes)
        monkeypatch.setattr("os.cpu_count", lambda: 1)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    return use


def test_the_times_of_a_device_become_a_profile_that_its_name_finds(
    device: Device,
    measurable: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    measurable(BENCH_SCRIPT, runtime("onnxruntime", ".onnx"))
    command.main(command.Arguments(on="ssh:board"))
    assert device.left() == []
    name = "example-phone-7-touch-pwned"
    assert f"--device {name}\n" in capsys.readouterr().out
    profile = load_profile(name)
    assert profile.hardware.core.name == "Cortex-X3 at 2.91 GHz"
    assert profile.hardware.soc.value == 'Maker Chip "9"; rm -rf /'
    space = load_checkpoint(shipped_checkpoint()).supernet.space
    for of in ("executorch", "onnxruntime"):
        costs = profile.runtimes[of]["fp32"]
        assert costs.provenance == costs.memory.provenance == "measured"
        assert costs.spread_percent == 1.0
        for part in ("core 1 (Cortex-X3, asimd asimddp i8mm)", "over 12 turns", "10.0 % longer"):
            assert part in costs.source
        assert "governor walt; before: clock at most 2.5 GHz, hottest sensor 42 C" in costs.source
        for seconds in (1.0, 4.0):
            predicted = predict_latency(profile, space, space.full(), seconds, of)
            expected = truth(space, space.full(), seconds, of)
            assert predicted.milliseconds == pytest.approx(expected, rel=0.05)
        assert costs.p50_ratio == 1.02
    assert not any("pwned" in one for one in device.files())


def test_a_name_a_core_and_a_place_can_be_given(
    device: Device, measurable: Callable[..., None], tmp_path: Path
) -> None:
    measurable(BENCH_SCRIPT.replace('core == "1"', 'core == "0"'))
    out = tmp_path / "elsewhere" / "board.toml"
    command.main(command.Arguments(on="adb:PHONE1", name="my-phone", core=0, out=out))
    profile = load_profile(str(out))
    assert profile.name == "my-phone"
    assert profile.hardware.core.name == "Cortex-A53 at 1.8 GHz"
    assert not (tmp_path / "config").exists()


@pytest.mark.parametrize(
    ("bench", "message"),
    [
        ("import sys; sys.exit('no such library')", "ended with status 1 .*: no such library"),
        ("import sys\nif sys.argv[1] == 'time': print('hello')", "says what the bench does not"),
        ("import os, sys\nif sys.argv[1] == 'time': os.abort()", "ended with status 134"),
    ],
)
def test_a_bench_that_fails_writes_nothing_and_leaves_nothing(
    bench: str, message: str, device: Device, measurable: Callable[..., None], tmp_path: Path
) -> None:
    measurable(bench)
    with pytest.raises(MachineError, match=message):
        command.main(command.Arguments(on="ssh:board"))
    assert device.left() == []
    assert not (tmp_path / "config").exists()


def test_a_device_that_disconnects_while_it_is_timed_writes_nothing(
    device: Device,
    measurable: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measurable(BENCH_SCRIPT)
    monkeypatch.setenv("STANDIN_DROP", "bench time")
    with pytest.raises(MachineError, match="connection to PHONE1 over adb failed: Connection res"):
        command.main(command.Arguments(on="adb"))
    assert not (tmp_path / "config").exists()
    assert device.left() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "x"}, "--name and --core need --on adb or --on ssh:HOST"),
        ({"core": 1, "on": "cortex-a76"}, "--name and --core need"),
        ({"on": "adb", "name": "x", "check": Path("x.pte")}, "--check writes no profile"),
        ({"on": "adb", "clock_ghz": 2.0}, "need --on CORE alone"),
        ({"on": "adb", "core": 7}, r"Example Phone 7 \$\(touch pwned\) has no core 7; it has: 0"),
        ({"on": "adb", "name": "../x"}, "--name must be letters"),
        ({"on": "adb", "out": Path("x.txt")}, r"must be a \.toml file"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_exported(
    arguments: dict, message: str, device: Device, measurable: Callable[..., None]
) -> None:
    measurable("raise SystemExit('nothing may run')")
    with pytest.raises(UserError, match=message):
        command.main(command.Arguments(**arguments))
    assert device.left() == []


CALL = {"network": 0, "frames": 5, "cpu_ms": [2, 1], "median_cpu_ms": 2.5, "wall_ms": [3, 2]}


class Answering:
    """A machine that always says the same."""

    name, emulated = "it", False

    def __init__(self, said: str) -> None:
        self.said = said

    def put(self, file: Path, name: str) -> str:
        return name

    path = get = put

    def run(self, command: object, each_line: Callable[[bytes], None] | None = None) -> str:
        if each_line is not None:
            for line in self.said.splitlines():
                each_line(line.encode())
        return self.said


def bench(said: str) -> Bench:
    return Bench(machine=Answering(said), command=("bench",), core=0)  # pyright: ignore[reportArgumentType]


def test_an_answer_is_read_as_it_is_meant() -> None:
    said = json.dumps({"round": 1, "seconds": 0.1}) + "\n"
    timed = bench(said + json.dumps({"rounds": 4, "calls": [CALL]})).time([Path("a.pte")], [5], 1)
    assert timed.timings[0][0].milliseconds == 1
    assert timed.timings[0][0].spread_percent == 100
    assert timed.timings[0][0].median_milliseconds == 2.5
    assert (timed.rounds, timed.wall_percent) == (4, 100)


@pytest.mark.parametrize(
    "call",
    [
        {},
        {**CALL, "network": 1},
        {**CALL, "frames": 6},
        {**CALL, "cpu_ms": [0, 1]},
        {**CALL, "cpu_ms": [1]},
        {**CALL, "cpu_ms": [float("nan"), 1]},
        {**CALL, "median_cpu_ms": 0.5},
        {**CALL, "median_cpu_ms": float("inf")},
        {**CALL, "wall_ms": [float("inf"), 1]},
        {**CALL, "wall_ms": ["a", 1]},
        {**CALL, "wall_ms": None},
        None,
    ],
)
def test_what_no_bench_says_is_not_believed(call: object) -> None:
    with pytest.raises(MachineError, match="it says what the bench does not"):
        bench(json.dumps({"rounds": 4, "calls": [call]})).time([Path("a.pte")], [5], 1)


@pytest.mark.parametrize(
    "said", ["", "\n", "hello", "[]", "null", '{"rounds": 1}', '{"round": "', "[" * 99_999]
)
def test_no_answer_is_named(said: str) -> None:
    with pytest.raises(MachineError, match="it says what the bench does not"):
        bench(said).time([Path("a.pte")], [5], 1)
    with pytest.raises(MachineError, match="it says what the bench does not"):
        bench(said).peak_mb(Path("a.pte"), Path("b.pte"), 5)


@pytest.mark.parametrize(("answer", "told"), [("echo no", False), ("echo yes", True)])
def test_where_no_peak_memory_is_recorded_none_is_measured(
    answer: str, told: bool, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ortho_export.arm.bench.CAN_RESET_PEAK", answer)
    bundle = plain_bundle(tmp_path / "bundle", BENCH_SCRIPT)
    with connected("ssh:board") as machine:
        there = open_device(machine, bundle, ask_board(machine), "x", 1)
    assert (there.peak_mb is not None) == told


@pytest.mark.arm
@pytest.mark.export
@pytest.mark.slow
def test_the_bench_runs_both_runtimes_on_a_device(
    bundle: Bundle, programs: Programs, device: Device, tmp_path: Path
) -> None:
    program = programs(SIZES[-1])
    model = export_model(programs.checkpoint, programs.checkpoint.subnet(SIZES[-1]), tmp_path)
    with connected("adb") as machine:
        there = open_device(machine, bundle, ask_board(machine), "x", 0)
        timed = there.time([program, model], [30, 120], 0)
        assert there.peak_mb is not None
        peaks = [there.peak_mb(one, one, 100) for one in (program, model)]
    assert timed.rounds == 2
    for short, long in timed.timings:
        assert 0 < short.milliseconds < long.milliseconds
    assert min(peaks) > 0
    assert device.left() == []


@pytest.mark.arm
@pytest.mark.export
@pytest.mark.slow
def test_the_bench_says_in_one_line_what_is_wrong(
    bundle: Bundle, programs: Programs, device: Device, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.pte"
    broken.write_bytes(programs(SIZES[-1]).read_bytes()[:1000])
    model = tmp_path / "broken.onnx"
    model.write_bytes(b"no model")
    other = tmp_path / "network.txt"
    other.touch()
    with connected("ssh:board") as machine:
        there = open_device(machine, bundle, ask_board(machine), "x", 0)
        for file, message in (
            (broken, "bench: reading the program .* failed with ExecuTorch error 0x"),
            (model, "bench: .*Protobuf"),
            (other, r"bench: .*/0\.txt is neither a \.pte nor an \.onnx file"),
        ):
            with pytest.raises(MachineError, match=message):
                there.time([file], [30], 0)
        with pytest.raises(MachineError, match="takes at most 3000 frames"):
            there.time([programs(SIZES[-1])], [3001], 0)


@pytest.mark.arm
@pytest.mark.export
@pytest.mark.slow
def test_programs_are_compared_on_a_device_and_timed(
    bundle: Bundle, programs: Programs, device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    program = programs(SIZES[-1])
    command.main(command.Arguments(on="ssh:board", core=0, check=program))
    said = capsys.readouterr().out
    assert f"{program}: on board over ssh as here" in said
    assert re.search(r" \d+\.\d\d ms on core 0 for 5 s of audio; hears: ", said)
    assert device.left() == []
