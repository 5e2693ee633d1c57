"""Ethos-U without its environment: what is asked of it and what is made of its answer."""

import dataclasses
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ortho_edge.cli import UserError
from ortho_edge.compaction import compact
from ortho_edge.components import Component, ComponentSpace
from ortho_edge.devices.catalogue import profile_text, read_profile
from ortho_edge.devices.latency import predict_latency
from ortho_edge.devices.profile import Budget, DeviceProfile
from ortho_edge.export import Arguments, main
from ortho_edge.profile import Arguments as ProfileArguments
from ortho_edge.profile import main as make_profile
from ortho_edge.subnet import Subnet
from ortho_export.card import CARD
from ortho_export.ethos_u import environment, pipeline, profiling
from ortho_export.ethos_u.compiled import FLOOR_DB
from ortho_export.ethos_u.environment import MissingEnvironmentError, lower_all
from ortho_export.ethos_u.profiling import context_jobs, held_out_jobs, profile_of, table_jobs
from ortho_export.ethos_u.protocol import GRAPH, TOSA, Answer, Cost, Job, Lowered, Request
from ortho_export.ethos_u.static import StaticEncoder
from ortho_export.ethos_u.windows import speech_windows
from ortho_export.flat import FlatEncoder
from ortho_export.manifest import MANIFEST, read_manifest
from ortho_export.parity import ParityError
from ortho_export.results import Request as ExportRequest
from ortho_export.verify import GOOD, SKIPPED, WRONG, verify
from tests.export.tiny import LARGE, bursts, tiny_checkpoint
from tests.tolerances import tolerance

OUTSIDE = {"aten_mean_dim": 2, "aten__log_softmax_default": 1, "getitem": 1}
ACCELERATOR = "ethos-u85-256"


def lowered(name: str, cycles: int, sram_bytes: int = 8192) -> Lowered:
    cost = Cost(
        cycles=cycles, clock_ghz=1.0, sram_bytes=sram_bytes, flash_bytes=1024,
        system_config="System", memory_mode="Sram_Only", vela="5.1.0",
    )  # fmt: skip
    return Lowered(file=f"{name}.pte", subgraphs=1, outside=OUTSIDE, planned_bytes=64, cost=cost)


@pytest.fixture(scope="module")
def profile() -> DeviceProfile:
    """Of the tiny architecture; every module costs 1000 cycles a unit, as many at every length.

    Alone the modules of a block cost 77 more, whatever their number of units.
    """
    space = tiny_checkpoint().supernet.space
    found = {
        job.name: lowered(
            job.name, 1000 * max(1, len(job.kept)) + 77 * (job.part == "module"), 4096
        )
        for job in table_jobs(space, (1.0, 2.0))
    }
    # Front end, norm and head; the first module costs as much as alone.
    found |= {
        job.name: lowered(job.name, 3000 + 1000 * len(job.kept) + 77)
        for job in context_jobs(space, (1.0, 2.0))
    }
    # The only block is the last, so these are nowhere.
    found |= {one: lowered(one, 1500, 4096) for one in found if one.startswith("norm")}
    whole = Job(name="whole", kept=space.full().kept, frames=100)
    # Front end, norm, head, convolution: 4; three heads; twice four chunks.
    found["whole"] = lowered("whole", 15_077)
    sizes = dict.fromkeys(found, 5_000) | {"whole": 30_000}
    return profile_of(ACCELERATOR, space, found, sizes, [whole], (1.0, 2.0))


@pytest.fixture
def request_for(checkpoint_folder: Path, tmp_path: Path, profile: DeviceProfile) -> ExportRequest:
    return ExportRequest(
        profile=profile,
        budget=Budget(latency_ms=0.02, audio_seconds=1.0, memory_mb=0.01),
        checkpoint=checkpoint_folder,
        out=tmp_path / "out",
        runtimes=("ethos-u",),
        precision="int8-static",
        command="python -m ortho_edge.export --device ethos-u85-256",
    )


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Request]]:
    """Answers in place of the environment: what fp32 says and noise, at a given ratio."""

    def answered(decibels: float = 40.0, **changes: object) -> list[Request]:
        asked: list[Request] = []

        def lower_all(request: Request, folder: Path) -> Answer:
            asked.append(request)
            (job,) = request.jobs
            (folder / f"{job.name}.pte").write_bytes(b"a program" * 100)
            generator = torch.Generator().manual_seed(0)
            encoder = tiny_encoder()
            outputs = {}
            for name, clip in request.clips.items():
                exact = encoder(clip)
                rest = exact - exact.mean(-1, keepdim=True)
                noise = torch.randn(exact.shape, generator=generator)
                noise -= noise.mean(-1, keepdim=True)
                noise *= rest.norm() / noise.norm() * 10 ** (-decibels / 20)
                for how in (GRAPH, TOSA):
                    outputs[f"{job.name}.{how}.{name}"] = exact + noise
            one = dataclasses.replace(lowered(job.name, 14_000), **changes)  # pyright: ignore[reportArgumentType]
            return Answer(lowered={job.name: one}, outputs=outputs)

        monkeypatch.setattr(pipeline, "lower_all", lower_all)
        monkeypatch.setattr(pipeline, "python", lambda: Path("python"))
        # No program here: its constants are those it was to be made with.
        monkeypatch.setattr(pipeline, "states", lambda program, facts: True)
        return asked

    return answered


def tiny_encoder() -> StaticEncoder:
    checkpoint = tiny_checkpoint()
    one = checkpoint.subnet(LARGE)
    return StaticEncoder(FlatEncoder(compact(checkpoint.supernet, one.subnet, one.head)))


@pytest.mark.parametrize("frames", [9, 100, 301])
@torch.no_grad()
def test_the_static_encoder_says_what_the_eager_one_says(frames: int) -> None:
    checkpoint = tiny_checkpoint()
    one = checkpoint.subnet(LARGE)
    eager = compact(checkpoint.supernet, one.subnet, one.head)
    x = 3 * torch.randn(1, frames, 80, generator=torch.Generator().manual_seed(frames)) - 8
    expected = eager(x, torch.tensor([frames]))[0]
    torch.testing.assert_close(tiny_encoder()(x), expected, **tolerance("parity_float32"))


def test_only_the_two_ends_stay_on_the_cpu() -> None:
    names = [name for name, _ in tiny_encoder().named_children()]
    assert names == ["normalization", "acoustic", "log_softmax"]
    assert not list(tiny_encoder().normalization.parameters())


def test_a_request_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    request = Request(
        accelerator=ACCELERATOR,
        architecture=checkpoint.supernet.architecture,
        num_heads=2,
        jobs=[Job(name="a", kept=(1, 3), frames=7, head=1, part="module")],
        constants={"max_frames": 7, "subnet": "a"},
        supernet=checkpoint.supernet.state_dict(),
        calibration={"x": torch.ones(1, 7, 80)},
        clips={"y.z": torch.zeros(1, 7, 80)},
    )
    request.write(tmp_path)
    found = Request.read(tmp_path)
    for name in ("accelerator", "architecture", "num_heads", "jobs", "constants"):
        assert getattr(found, name) == getattr(request, name), name
    for group in ("supernet", "calibration", "clips"):
        torch.testing.assert_close(getattr(found, group), dict(getattr(request, group)))


def test_an_answer_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    answer = Answer(lowered={"a": lowered("a", 5)}, outputs={"a.tosa.x": torch.ones(1, 2, 3)})
    answer.write(tmp_path)
    found = Answer.read(tmp_path)
    assert found.lowered == answer.lowered
    torch.testing.assert_close(found.outputs, dict(answer.outputs))


def test_without_the_environment_one_line_names_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(environment.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingEnvironmentError, match="make it with `make ethos-u`") as caught:
        environment.python()
    assert "\n" not in str(caught.value)


def test_a_worker_that_fails_is_quoted_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    interpreter = tmp_path / "venv" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    lines = ["#!/bin/sh", "echo one", "echo Traceback >&2", "echo 'Error: no op' >&2", "exit 3"]
    interpreter.write_text("\n".join(lines))
    interpreter.chmod(interpreter.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv(environment.VARIABLE, str(tmp_path / "venv"))
    checkpoint = tiny_checkpoint()
    request = Request(
        accelerator=ACCELERATOR, architecture=checkpoint.supernet.architecture, num_heads=2,
        jobs=[], supernet=checkpoint.supernet.state_dict(), calibration={},
    )  # fmt: skip
    done: list[str] = []
    exchange = tmp_path / "exchange"
    exchange.mkdir()
    with pytest.raises(UserError, match=r"failed in .* with status 3: Error: no op$"):
        lower_all(request, exchange, done.append)
    assert done == ["one"]


def test_windows_are_of_one_length_and_none_is_both_calibrated_on_and_checked() -> None:
    tokens = tiny_checkpoint().tokens
    found = speech_windows(bursts(2.35), None, tokens, 300)
    every = [*found.calibration.values(), *found.checked.values()]
    assert {tuple(one.shape) for one in every} == {(1, 300, 80)}
    assert len({one.numpy().tobytes() for one in every}) == len(every)
    assert list(found.checked) == ["sample"]
    with pytest.raises(UserError, match="name some with --dev-set"):
        speech_windows(None, None, tokens, 300)


def test_the_jobs_of_a_profile_are_every_choice_of_every_module_once() -> None:
    space = tiny_checkpoint().supernet.space
    jobs = list(table_jobs(space, (1.0, 4.0)))
    # Three heads, four chunks, one convolution and what every network has, at two lengths.
    assert len({job.name for job in jobs}) == len(jobs) == 2 * (3 + 4 + 1 + 4)
    assert {len(job.kept) for job in jobs if job.name.startswith("ffn")} == {1, 2, 3, 4}
    assert {job.frames for job in jobs} == {100, 400}
    whole = list(context_jobs(space, (1.0, 4.0)))
    assert len({job.name for job in (*jobs, *whole)}) == len(jobs) + 2 * 4
    assert {job.part for job in whole} == {"network"}
    assert sorted(len(set(job.kept)) for job in whole) == [1, 1, 2, 2, 2, 2, 2, 2]
    wide = ComponentSpace(dataclasses.replace(space.architecture, num_blocks=3))
    (first, *others) = context_jobs(wide, (1.0,))
    assert [wide.components[index] for index in first.kept] == [Component(0, "ffn1", 0)]
    behind = [wide.components[job.kept[1]] for job in others]
    assert {(one.block, one.module) for one in behind} == {(1, "conv"), (1, "mhsa"), (1, "ffn2")}
    assert all(job.part == "network" and job.kept for job in held_out_jobs(space))


def test_an_elastic_front_end_has_a_row_for_every_number_of_chunks() -> None:
    supernet = tiny_checkpoint(front_end_chunks=3).supernet
    space = supernet.space
    jobs = list(table_jobs(space, (1.0,)))
    parts = {job.name: job for job in jobs if job.part == "front_end"}
    for chunks in (1, 2, 3):
        kept = Subnet(len(space), parts[f"front_end-{chunks}-1s"].kept)
        assert compact(supernet, kept).front_end.convolutions[-1].out_channels == 2 * chunks
    found = {job.name: lowered(job.name, 700 + 100 * len(job.kept)) for job in jobs}
    # Front end, norm and head of 700, each module of 800.
    found |= {
        job.name: lowered(job.name, 2100 + 800 * len(set(job.kept)))
        for job in context_jobs(space, (1.0,))
    }
    whole = Job(name="whole", kept=space.full().kept, frames=100)
    # Three chunks; norm, head, convolution, three heads, and twice four chunks.
    found["whole"] = lowered("whole", 900 + 700 + 700 + 800 + 1000 + 2 * 1100)
    sizes = dict.fromkeys(found, 5_000)
    made = profile_of(ACCELERATOR, space, found, sizes, [whole], (1.0,))
    costs = made.runtimes["ethos-u"]["int8-static"]
    assert costs.tables is not None
    assert costs.tables.modules["front_end"].cycles == ((700,), (800,), (900,))
    assert costs.error_percent == 0
    less = Subnet.of(len(space), space.full().kept[:-1])
    latency = [
        predict_latency(made, space, one, 1.0, "ethos-u", "int8-static").milliseconds
        for one in (less, space.full())
    ]
    assert latency[1] - latency[0] == pytest.approx(100 / 1e6)


def test_a_profile_states_how_far_whole_networks_are_from_the_sum(profile: DeviceProfile) -> None:
    costs = profile.runtimes["ethos-u"]["int8-static"]
    assert costs.provenance == "vela"
    assert costs.error_percent == costs.worst_error_percent == 0.0
    assert costs.assumed_speed is not None
    assert costs.assumed_speed.clock_ghz == 1.0


def test_the_folder_says_lowered_never_executed(
    request_for: ExportRequest, answered: Callable[..., list[Request]]
) -> None:
    requests = answered()
    pipeline.export(request_for)
    (asked,) = requests
    assert (asked.accelerator, asked.jobs[0].frames) == (ACCELERATOR, 100)
    assert asked.constants["min_frames"] == asked.constants["max_frames"] == 100
    manifest = read_manifest(request_for.out)
    assert manifest is not None
    entry = manifest["files"]["model.ethos-u85-256.pte"]
    assert (entry["executed"], entry["frames"]) == (False, 100)
    vela = entry["vela"]
    assert (vela["cycles"], vela["predicted_cycles"]) == (14_000, pytest.approx(15_077))
    assert (vela["sram_bytes"], vela["predicted_sram_bytes"]) == (8192, pytest.approx(4096))
    assert entry["agreement"]["tosa_db"] == pytest.approx(40, abs=0.01)
    assert manifest["latency"]["measured"] == []
    card = (request_for.out / CARD).read_text("utf-8")
    assert "| `model.ethos-u85-256.pte` | lowered, never executed | delegates: 1 |" in card
    assert "14,000 for 1 s of audio, 0.01 ms; predicted 15,077" in card
    assert "not measured on any device" in card


def test_what_was_lowered_is_verified_as_far_as_it_can_be(
    request_for: ExportRequest,
    answered: Callable[..., list[Request]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered()
    result = pipeline.export(request_for)
    monkeypatch.setattr("ortho_export.verify.read_facts", lambda path: result.facts)
    checks = {one.what: one for one in verify(request_for.out, request_for.checkpoint)}
    assert not [one for one in checks.values() if one.outcome == WRONG]
    name = "model.ethos-u85-256.pte"
    assert checks[f"{name}: parity, transcript"].outcome == SKIPPED
    assert checks[f"{name}: Vela's cycles"].outcome == GOOD
    assert checks[f"{name}: Vela's SRAM"].outcome == GOOD
    path = request_for.out / MANIFEST
    path.write_text(path.read_text("utf-8").replace('"milliseconds": 0.014', '"milliseconds": 0.5'))
    checks = {one.what: one for one in verify(request_for.out, request_for.checkpoint)}
    assert checks[f"{name}: Vela's cycles"].outcome == WRONG
    monkeypatch.setattr(
        "ortho_export.verify.read_facts",
        lambda path: dataclasses.replace(result.facts, max_frames=99, min_frames=99),
    )
    checks = {one.what: one for one in verify(request_for.out, request_for.checkpoint)}
    assert checks[f"{name}: loads"].outcome == WRONG


@pytest.mark.parametrize(("changes", "message"), [
    ({"lowered": lowered("x", 20_001)}, r"latency of ethos-u85-256 by Vela \(ms\) 0.020001"),
    ({"lowered": lowered("x", 9, 10_001)}, r"memory of ethos-u85-256 by Vela \(MB\) 0.010001"),
])  # fmt: skip
def test_nothing_is_written_where_vela_says_too_much(
    request_for: ExportRequest,
    answered: Callable[..., list[Request]],
    changes: dict[str, Lowered],
    message: str,
) -> None:
    answered(cost=changes["lowered"].cost)
    with pytest.raises(UserError, match=f"nothing is written.*{message}"):
        pipeline.export(request_for)
    assert not request_for.out.exists()


def test_nothing_is_written_where_too_little_of_the_signal_is_left(
    request_for: ExportRequest, answered: Callable[..., list[Request]]
) -> None:
    answered(FLOOR_DB - 0.5)
    with pytest.raises(ParityError, match=r"23\.5 dB"):
        pipeline.export(request_for)
    assert not request_for.out.exists()


@pytest.mark.parametrize(
    "changes", [{"subgraphs": 2}, {"outside": {**OUTSIDE, "aten_bmm_default": 1}}]
)
def test_nothing_is_written_where_the_network_is_cut(
    request_for: ExportRequest, answered: Callable[..., list[Request]], changes: dict[str, object]
) -> None:
    answered(**changes)
    with pytest.raises(AssertionError, match="delegates, outside them"):
        pipeline.export(request_for)
    assert not request_for.out.exists()


@pytest.mark.parametrize(("options", "message"), [
    ({"precision": "fp32"}, "takes int8-static only, not --precision fp32"),
    ({"format": "onnx"}, "takes an ExecuTorch program, not --format onnx"),
    ({"input": "audio"}, "takes features only, not --input audio"),
    ({"also": ("ort",)}, "--also ort is for CPUs and phones"),
])  # fmt: skip
def test_what_an_ethos_u_does_not_take_is_refused(
    options: dict[str, object], message: str, profile: DeviceProfile, tmp_path: Path
) -> None:
    device = tmp_path / "npu.toml"
    device.write_text(profile_text(profile), "utf-8")
    arguments = Arguments(device=str(device), out=tmp_path / "out", **options)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=message):
        main(arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("options", "message"), [
    ({"on": "ethos-u65-256"}, "unknown Ethos-U 'ethos-u65-256'; known: ethos-u55-128"),
    ({"on": ACCELERATOR, "clock_ghz": 1.0}, "the clock of ethos-u85-256 is Vela's"),
    ({"on": ACCELERATOR}, "make it with `make ethos-u`"),
])  # fmt: skip
def test_a_profile_that_cannot_be_made_says_why_in_one_line(
    options: dict[str, object], message: str, checkpoint_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv(environment.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    arguments = ProfileArguments(
        out=tmp_path / "npu.toml", checkpoint=checkpoint_folder, **options  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    with pytest.raises(UserError, match=message):
        make_profile(arguments)
    assert not (tmp_path / "npu.toml").exists()


def test_a_profile_is_made_of_what_the_environment_answers(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def lower_all(request: Request, folder: Path, done: Callable[[str], object]) -> Answer:
        for job in request.jobs:
            (folder / f"{job.name}.pte").write_bytes(bytes(1000))
            done(job.name)
        lengths = {clip.shape[1] for clip in request.calibration.values()}
        assert {job.frames for job in request.jobs} == lengths
        units = {job.name: max(1, len(job.kept)) for job in request.jobs}
        # Front end, norm and head; a held-out network costs as much again.
        units |= {job.name: 3 + len(job.kept) for job in request.jobs if job.part == "network"}
        units |= {name: 2 * units[name] for name in units if name.startswith("held-out")}
        return Answer(lowered={
            job.name: lowered(job.name, 10 * job.frames * units[job.name]) for job in request.jobs
        })  # fmt: skip

    monkeypatch.setattr(profiling, "lower_all", lower_all)
    monkeypatch.setattr(profiling, "python", lambda: Path("python"))
    out = tmp_path / "npu.toml"
    make_profile(ProfileArguments(out=out, on=ACCELERATOR, checkpoint=checkpoint_folder))
    costs = read_profile(out).runtimes["ethos-u"]["int8-static"]
    assert costs.tables is not None
    assert costs.tables.audio_seconds == profiling.LENGTHS
    assert costs.tables.modules["mhsa"].cycles == tuple(
        tuple(1000.0 * seconds * heads for seconds in profiling.LENGTHS) for heads in (1, 2, 3)
    )
    assert costs.tables.modules["front_end"].cycles == ((1000.0, 4000.0, 5000.0, 10_000.0),)
    assert costs.error_percent == 50.0
    assert "predicts Vela's cycles of held-out subnets to" in capsys.readouterr().out
