"""An export appears when everything holds, and otherwise leaves what was there before."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ortho_edge.cli import UserError
from ortho_edge.devices.catalogue import load_profile
from ortho_edge.devices.profile import COUNTED, AssumedSpeed, Budget, Core, DeviceProfile
from ortho_edge.devices.shipped import COUNTS
from ortho_export import checks, pipeline
from ortho_export.artefact import load_artefact
from ortho_export.executorch import Delegation, planned_bytes
from ortho_export.facts import checkpoint_digest
from ortho_export.manifest import read_manifest
from ortho_export.measure import Latency, check_budget
from ortho_export.parity import ParityError
from ortho_export.report import table
from ortho_export.results import EXECUTORCH, FILES, ONNXRUNTIME, Request
from ortho_export.writing import Job, Written
from tests.export.tiny import LARGE, SMALL, Exported, bursts

pytestmark = pytest.mark.export

WIDE = Budget(latency_ms=1e3, audio_seconds=1.0, size_mb=1.0)
DELEGATION = Delegation(subgraphs=1, outside={}, planned_bytes=0)

Change = Callable[[Path], object]


@pytest.fixture
def pixel8() -> DeviceProfile:
    return load_profile("pixel8")


@pytest.fixture
def request_for(exported: Exported, tmp_path: Path, pixel8: DeviceProfile) -> Request:
    return Request(
        profile=pixel8, budget=WIDE, checkpoint=exported.checkpoint, out=tmp_path / "a" / "out"
    )


@pytest.fixture
def copy_artefacts(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Change], None]:
    """Replaces the slow writing by copies of artefacts already made, then changed."""

    def replace(change: Change = lambda file: None) -> None:
        def write(job: Job) -> Written:
            file = tmp_path / FILES[job.runtime]
            file.write_bytes((exported.folder / FILES[job.runtime]).read_bytes())
            if job.file == file.name:
                change(file)
            return Written(
                file=job.file,
                content=file.read_bytes(),
                delegation=DELEGATION if job.runtime == EXECUTORCH else None,
                seconds=1.0,
            )

        monkeypatch.setattr(pipeline, "write_all", partial(map, write))

    replace()
    return replace


def content(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir()}


def grow(file: Path, size: int) -> None:
    """Makes an ONNX model larger without changing what it computes."""
    import onnx

    if file.suffix == ".onnx":
        model = onnx.load(file)
        model.metadata_props.add(key="ballast", value="x" * size)
        onnx.save(model, file)


def leftovers(request: Request) -> list[Path]:
    return list(request.out.parent.iterdir()) if request.out.parent.exists() else []


def test_the_command_left_five_files(exported: Exported) -> None:
    assert set(content(exported.folder)) == {
        "model.pte", "model.onnx", "tokens.txt", "model_card.md", "manifest.json",
    }  # fmt: skip
    assert not list(exported.folder.parent.glob(".*"))


def test_the_manifest_says_what_was_done(exported: Exported) -> None:
    manifest = read_manifest(exported.folder)
    assert manifest is not None
    assert manifest["subnet"]["name"] == LARGE
    assert manifest["subnet"]["kept"] == list(range(manifest["subnet"]["num_components"]))
    assert manifest["subnet"]["metrics"] == {"dev_wer": 5.0}
    assert manifest["device"] == "pixel8"
    assert manifest["budget"]["latency_ms"] == 1e3
    assert manifest["checkpoint_digest"] == checkpoint_digest(exported.checkpoint)
    assert manifest["bounds"]["max_frames"] == 3000
    for name in ("model.pte", "model.onnx", "tokens.txt"):
        stated = manifest["files"][name]
        actual = (exported.folder / name).read_bytes()
        assert stated["bytes"] == len(actual)
        assert stated["sha256"] == hashlib.sha256(actual).hexdigest()
    for name in ("model.pte", "model.onnx"):
        parity = manifest["files"][name]["parity"]
        assert 0 < parity["max_abs_error"] < 1e-3
        assert {9, 3000} <= set(parity["frames"].values())
        assert any(frames % 2 for frames in parity["frames"].values())
    predicted, measured = manifest["latency"]["predicted"], manifest["latency"]["measured"]
    assert {one["runtime"] for one in predicted} == {EXECUTORCH, ONNXRUNTIME}
    assert {one["provenance"] for one in predicted} == {"analytic"}
    assert {one["on_the_device"] for one in measured} == {False}
    parameters = sum(one.numel() for one in exported.encoder.parameters())
    assert manifest["parameters"] == parameters


@pytest.fixture
def counted(pixel8: DeviceProfile) -> DeviceProfile:
    """A profile that claims to be of instructions that were counted on a core which QEMU knows."""
    speed = AssumedSpeed(instructions_per_cycle=2.0, clock_ghz=2.5, source="a guess")
    costs = dataclasses.replace(
        pixel8.runtimes[EXECUTORCH]["fp32"],
        provenance=COUNTED, error_percent=0.25, rows_at_once=7, assumed_speed=speed,
    )  # fmt: skip
    core = Core(name="cortex-a76", count=1, source="emulated")
    return dataclasses.replace(
        pixel8,
        name="a76",
        hardware=dataclasses.replace(pixel8.hardware, runs_on=core.name, cores=(core,)),
        runtimes={EXECUTORCH: {"fp32": costs}},
    )


def test_a_counted_profile_prices_one_runtime_and_the_table_says_not_timed(
    copy_artefacts: Callable[[Change], None],
    request_for: Request,
    counted: DeviceProfile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "_emulation", lambda core: ("not checked", "no QEMU here"))
    request = dataclasses.replace(request_for, profile=counted)
    with pytest.raises(UserError, match="'a76' has no figures for runtime 'onnxruntime'") as error:
        pipeline.export(request)
    assert "\n" not in str(error.value)
    assert leftovers(request) == []
    result = pipeline.export(dataclasses.replace(request, runtimes=(EXECUTORCH,)))
    basis = (
        "not timed: instructions counted (error 0.25 % of the count), at an assumed 2 per cycle "
        "and 2.5 GHz"
    )
    line = next(one for one in table(result).splitlines() if one.startswith("predicted latency"))
    assert line.endswith(basis)
    manifest = read_manifest(request.out)
    assert manifest is not None
    assert manifest["latency"]["predicted"][0]["basis"] == basis
    assert manifest["latency"]["predicted"][0]["assumed_speed"]["source"] == "a guess"
    card = (request.out / "model_card.md").read_text("utf-8")
    assert basis in card
    for text in (table(result), manifest["latency"]["checked"][0]["text"], card):
        assert "not checked: no QEMU here" in text


@pytest.mark.parametrize("instructions", [4_990_000_000, 5_010_000_000])
def test_counted_instructions_above_the_budget_leave_nothing_behind(
    copy_artefacts: Callable[[Change], None],
    request_for: Request,
    counted: DeviceProfile,
    monkeypatch: pytest.MonkeyPatch,
    instructions: int,
) -> None:
    """5 instructions take a nanosecond, the budget is a second."""
    asked = []

    def count(core: str, file: Path, seconds: float) -> int:
        asked.append((core, file.name, seconds))
        return instructions

    monkeypatch.setattr(checks, "_emulation", lambda core: ("counted", ""))
    monkeypatch.setattr(checks, "count_on", count)
    request = dataclasses.replace(request_for, profile=counted, runtimes=(EXECUTORCH,))
    if instructions > 5e9:
        with pytest.raises(UserError, match=r"latency of executorch \(ms\) 1002, limit 1000"):
            pipeline.export(request)
        assert leftovers(request) == []
    else:
        (check,) = pipeline.export(request).checks
        assert (check.way, check.found_ms) == ("counted", 998.0)
        manifest = read_manifest(request.out)
        assert manifest is not None
        (stated,) = manifest["latency"]["checked"]
        assert stated["found_instructions"] == instructions
        predicted = manifest["latency"]["predicted"][0]["milliseconds"]
        assert stated["predicted_instructions"] == pytest.approx(5e6 * predicted)
        assert "4990.00 M instructions counted" in (request.out / "model_card.md").read_text()
    assert asked == [("cortex-a76", "model.pte", 1.0)]


def test_what_cannot_be_checked_is_said_with_its_reason(
    counted: DeviceProfile, pixel8: DeviceProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = dataclasses.replace(pixel8, name="host")
    assert checks.way_of(host, EXECUTORCH, "fp32", "features") == ("measured", "")
    way, reason = checks.way_of(pixel8, EXECUTORCH, "fp32", "features")
    assert way == "not checked"
    assert reason.startswith("pixel8 is not this machine, its figures are ")
    way, reason = checks.way_of(counted, EXECUTORCH, "fp32", "audio")
    assert (way, "not audio" in reason) == ("not checked", True)
    monkeypatch.setenv("PATH", "")
    way, reason = checks.way_of(counted, EXECUTORCH, "fp32", "features")
    assert (way, "qemu-aarch64 is not installed" in reason) == ("not checked", True)


def test_a_core_that_the_emulator_does_not_know_is_named(
    counted: DeviceProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ortho_export.arm.machines.emulated_cores", lambda: ["cortex-a53"])
    way, reason = checks.way_of(counted, EXECUTORCH, "fp32", "features")
    assert (way, reason) == ("not checked", "the installed QEMU knows no core 'cortex-a76'")


@pytest.mark.parametrize("device", sorted(COUNTS))
def test_the_emulator_is_asked_for_the_core_of_a_shipped_device_by_its_own_name(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ortho_export.arm.machines.emulated_cores", lambda: ["cortex-a53", "cortex-a76"]
    )
    monkeypatch.setattr("ortho_export.arm.counts.load_plugin", lambda: None)
    monkeypatch.setattr("ortho_export.arm.toolchain.load_bundle", lambda: None)
    way = checks.way_of(load_profile(device), EXECUTORCH, "fp32", "features")
    assert way == ("counted", "")


def test_a_new_export_replaces_the_old(
    copy_artefacts: Callable[[Change], None], request_for: Request
) -> None:
    pipeline.export(request_for)
    (request_for.out / "stale.txt").write_text("of the earlier export")
    one_runtime = dataclasses.replace(request_for, runtimes=(ONNXRUNTIME,))
    result = pipeline.export(one_runtime)
    assert set(content(request_for.out)) == {
        "model.onnx", "tokens.txt", "model_card.md", "manifest.json",
    }  # fmt: skip
    assert set(result.parity) == {ONNXRUNTIME}
    assert leftovers(request_for) == [request_for.out]


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("write_all", KeyboardInterrupt()),
        ("_compare", KeyboardInterrupt()),
        ("measure_latency", RuntimeError("a defect")),
        ("write_manifest", KeyboardInterrupt()),
    ],
)
def test_an_interruption_leaves_the_old_export(
    copy_artefacts: Callable[[Change], None],
    request_for: Request,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    error: BaseException,
) -> None:
    pipeline.export(request_for)
    before = content(request_for.out)
    copy_artefacts(lambda file: grow(file, 10))

    def interrupt(*args: object) -> None:
        raise error

    monkeypatch.setattr(pipeline, where, interrupt)
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        pipeline.export(request_for)
    assert content(request_for.out) == before
    assert leftovers(request_for) == [request_for.out]


def test_artefacts_of_another_subnet_are_not_written(
    copy_artefacts: Callable[[Change], None], request_for: Request, exported: Exported
) -> None:
    # The copies hold the larger subnet; only the smaller is within this budget.
    smaller = sum(one.numel() for one in exported.encoder_of(SMALL).parameters())
    narrow = dataclasses.replace(request_for, budget=dataclasses.replace(WIDE, params=smaller))
    with pytest.raises(ParityError):
        pipeline.export(narrow)
    assert leftovers(request_for) == []


def test_an_artefact_above_its_budget_is_not_written(
    copy_artefacts: Callable[[Change], None], request_for: Request
) -> None:
    copy_artefacts(lambda file: grow(file, 1_000_000))
    with pytest.raises(UserError, match=r"exceeds its budget: file size of model\.onnx"):
        pipeline.export(request_for)
    assert leftovers(request_for) == []


@pytest.mark.parametrize("slow", [EXECUTORCH, ONNXRUNTIME])
def test_a_latency_measured_on_the_device_counts(
    copy_artefacts: Callable[[Change], None],
    request_for: Request,
    monkeypatch: pytest.MonkeyPatch,
    slow: str,
) -> None:
    def measure(recognizers: object, seconds: float) -> tuple[Latency, ...]:
        return tuple(
            Latency(
                milliseconds=1e3 + 1 if runtime == slow else 1.0,
                seconds=seconds, runtime=runtime, where="here", spread_percent=0.0,
                p50_milliseconds=1e3 + 1 if runtime == slow else 1.0,
            )
            for runtime in FILES
        )  # fmt: skip

    monkeypatch.setattr(pipeline, "measure_latency", measure)
    monkeypatch.setattr(pipeline, "_peak_memory", lambda *args: {EXECUTORCH: 1.0})
    pipeline.export(request_for)
    here = dataclasses.replace(
        request_for,
        profile=dataclasses.replace(request_for.profile, name="host"),
        out=request_for.out.with_name("host"),
    )
    with pytest.raises(UserError, match=f"latency of {slow}"):
        pipeline.export(here)
    assert leftovers(request_for) == [request_for.out]


def test_every_measured_limit_is_named() -> None:
    tight = Budget(latency_ms=8.0, memory_mb=5.0, params=10)
    with pytest.raises(UserError, match=r"parameters 11.*latency of executorch.*memory of execu"):
        check_budget(tight, [], 11, {EXECUTORCH: 9.0}, {EXECUTORCH: 5.1})
    equal = Budget(latency_ms=9.0, memory_mb=5.1, params=11)
    check_budget(equal, [], 11, {EXECUTORCH: 9.0}, {EXECUTORCH: 5.1})


@pytest.mark.slow
def test_memory_of_this_host(
    copy_artefacts: Callable[[Change], None], request_for: Request, exported: Exported
) -> None:
    here = dataclasses.replace(
        request_for,
        profile=dataclasses.replace(request_for.profile, name="host"),
        budget=dataclasses.replace(WIDE, memory_mb=200.0),
    )
    result = pipeline.export(here)
    assert set(result.memory_mb) == {EXECUTORCH, ONNXRUNTIME}
    assert all(0 < peak < 200 for peak in result.memory_mb.values())
    assert set(content(here.out)) == set(content(exported.folder)), "the warm-up files are gone"


def test_a_folder_of_something_else_is_not_replaced(request_for: Request) -> None:
    request_for.out.mkdir(parents=True)
    (request_for.out / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"holds files but no manifest\.json"):
        pipeline.export(request_for)
    (request_for.out / "manifest.json").write_text(json.dumps({"name": "a web application"}))
    with pytest.raises(UserError, match=r"holds files but no manifest\.json"):
        pipeline.export(request_for)
    assert (request_for.out / "thesis.txt").read_text() == "years of work"


def test_places_that_cannot_be_written(request_for: Request, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="file"):
            pipeline.export(dataclasses.replace(request_for, out=out))


def test_a_longer_budget_widens_the_bounds(request_for: Request) -> None:
    longer = dataclasses.replace(WIDE, audio_seconds=45.0)
    model = pipeline._select(dataclasses.replace(request_for, budget=longer))
    assert model.facts.max_frames == 4500
    assert pipeline._select(request_for).facts.max_frames == 3000


def test_a_checkpoint_without_a_sample(exported: Exported, tmp_path: Path) -> None:
    lines = pipeline.transcribe_sample(tmp_path, exported.folder, ["model.pte"])
    assert lines == [f"no sample.flac in {tmp_path}: nothing to transcribe"]


def test_the_sample_is_transcribed(exported: Exported) -> None:
    lines = pipeline.transcribe_sample(
        exported.checkpoint, exported.folder, ["model.pte", "model.onnx"]
    )
    text = load_artefact(exported.checkpoint).transcribe(bursts(2.35))
    assert lines == [
        "sample.flac says: ONE TWO",
        f"model.pte hears: {text}",
        f"model.onnx hears: {text}",
    ]


def test_the_planned_memory_is_predicted_and_read_from_the_artefact(exported: Exported) -> None:
    manifest = read_manifest(exported.folder)
    assert manifest is not None
    planned = planned_bytes(exported.folder / "model.pte")
    assert planned == manifest["files"]["model.pte"]["delegation"]["planned_bytes"]
    assert 1e6 * manifest["memory_mb"]["planned"] == pytest.approx(planned, rel=0.05)
    assert "MB of it in executorch" in exported.printed
