import copy
import dataclasses
import json
import logging
import math
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ortho_edge.cli import UserError
from ortho_edge.devices import catalogue
from ortho_edge.devices.catalogue import (
    known_devices,
    load_profile,
    profile_text,
    read_profile,
    shipped_folder,
    user_folder,
)
from ortho_edge.devices.profile import KINDS, SCHEMA_VERSION, DeviceProfile
from ortho_edge.devices.tables import read_table, write_table

SHIPPED = sorted(path.stem for path in shipped_folder().glob("*.toml"))


@pytest.fixture(autouse=True)
def no_profiles_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "ortho_edge" / "devices"


@pytest.fixture
def content() -> dict[str, Any]:
    """A valid profile as nested tables."""
    return tomllib.loads((shipped_folder() / "pixel8.toml").read_text("utf-8"))


def write(content: dict[str, Any], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(write_table(content | {"hardware": hardware(content)}), "utf-8")
    return path


def hardware(content: dict[str, Any]) -> dict[str, Any]:
    """With the array of cores as `write_table` takes it."""
    tables = dict(content["hardware"])
    tables["cores"] = tuple(tables["cores"])
    return tables


def test_pixel8_ships() -> None:
    assert "pixel8" in SHIPPED


@pytest.mark.parametrize("device", SHIPPED)
def test_a_shipped_profile_claims_no_measurement_of_the_device(device: str) -> None:
    profile = load_profile(device)
    assert profile.name == device
    for precisions in profile.runtimes.values():
        for costs in precisions.values():
            assert "measured" not in (costs.provenance, costs.memory.provenance)
            assert len(costs.source) > 100
            assert (costs.error_percent is None) == (costs.provenance == "analytic")
    hardware = profile.hardware
    for fact in (
        hardware.soc, hardware.ram_gb, hardware.bandwidth_gb_per_s, *hardware.cores,
    ):  # fmt: skip
        # An accelerator states no memory: it has that of the chip around it.
        assert fact is not None or device.startswith("ethos-u")
        assert fact is None or fact.source


@pytest.mark.parametrize("device", SHIPPED)
def test_a_profile_survives_writing_and_reading(device: str, tmp_path: Path) -> None:
    profile = load_profile(device)
    path = tmp_path / "again.toml"
    path.write_text(profile_text(profile), "utf-8")
    assert read_profile(path) == profile


def test_an_unknown_device_is_named_with_the_known_ones() -> None:
    with pytest.raises(UserError) as error:
        load_profile("pixel99")
    assert str(error.value) == f"unknown device 'pixel99'; known: {', '.join(known_devices())}"
    assert set(known_devices()) == {*SHIPPED, "host"}


def test_an_unmeasured_host_says_how_to_measure_it() -> None:
    with pytest.raises(UserError, match=r"'host' is not measured yet; run: python -m ortho_edge\."):
        load_profile("host")


def test_profiles_of_the_user_are_found_by_name_and_come_first(
    content: dict[str, Any],
    no_profiles_of_the_user: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    changed = write(content | {"description": "mine"}, no_profiles_of_the_user / "pixel8.toml")
    write(content | {"name": "host"}, user_folder() / "host.toml")
    with caplog.at_level(logging.INFO):
        assert load_profile("pixel8").description == "mine"
    assert str(changed) in caplog.text
    assert load_profile("host").name == "host"


def test_a_profile_is_found_by_path(content: dict[str, Any], tmp_path: Path) -> None:
    path = write(content | {"name": "my-board"}, tmp_path / "folder" / "my_board.toml")
    assert load_profile(str(path)).name == "my-board"
    with pytest.raises(UserError, match=r"no device profile at .*other\.toml"):
        load_profile(str(tmp_path / "other.toml"))


@pytest.mark.parametrize("device", ["", ".", "../pixel8", "/etc/passwd", "pixel8/", "PIXEL8"])
def test_a_name_never_leaves_the_folders(device: str) -> None:
    with pytest.raises(UserError, match="unknown device"):
        load_profile(device)


@pytest.mark.parametrize(
    "raw",
    [b"", b"\xff\xfe", b"schema_version = ", b"schema_version = 1", b"schema_version = 2", b"[[a"],
)
def test_a_file_that_is_no_profile_gets_one_line(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"broken\.toml"):
        load_profile(str(path))


def setting(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Sets the key at a dotted path."""

    def change(content: dict[str, Any]) -> None:
        *folders, name = path.split(".")
        table: Any = content
        for folder in folders:
            table = table[int(folder) if folder.isdigit() else folder]
        if value is None:
            del table[name]
        else:
            table[name] = value

    return change


FP32 = "runtimes.executorch.fp32"
MISTAKES = [
    ("schema_version", 7, "schema_version 7; this version reads 2$"),
    (
        "schema_version",
        1,
        r'reads 2: write schema_version = 2 and provenance = "analytic" for "estimated", or make '
        "the profile again",
    ),
    ("schema_version", None, "schema_version None"),
    ("colour", "red", "unknown key 'colour'; known: schema_version, name"),
    ("name", None, "the key 'name' is missing"),
    ("name", 8, "name must be a text, not 8"),
    *(
        ("name", name, re.escape(f"begin with neither '-' nor '.', not {name!r}"))
        for name in ("", "../../escaped", "/a", ".hidden", "-rf", "a b", "a\0", "a\n", "\u00e4")
    ),
    ("name", 101 * "x", "name must be at most 100 letters"),
    ("hardware", "fast", "hardware must be a table"),
    ("hardware.runs_on", "Cortex-Z9", "unknown core 'Cortex-Z9'; known: Cortex-X3"),
    ("hardware.soc.source", None, "soc: the key 'source' is missing"),
    ("hardware.ram_gb.value", 0, "value must be above 0"),
    ("hardware.ram_gb.value", True, "value must be a number, not True"),
    ("hardware.ram_gb.value", math.nan, "value must be a number, not nan"),
    ("hardware.cores", {"name": "x"}, "cores must be an array"),
    ("hardware.cores.0.count", 1.5, r"cores\[0\]: count must be a whole number, not 1.5"),
    (
        "hardware.cores.0.dot_product",
        "yes",
        r"cores\[0\]: dot_product must be one of none, sdot, i8mm, vnni, not 'yes'",
    ),
    ("hardware.cores.1.clock_ghz", -1, r"cores\[1\]: clock_ghz must be above 0"),
    ("budget.latency_ms", 0, "latency_ms must be above 0"),
    ("budget.audio_seconds", math.inf, "audio_seconds must be finite"),
    ("runtimes", {}, "no runtime has a cost table"),
    ("runtimes.executorch", {}, "runtime 'executorch' has no precision"),
    (
        f"{FP32}.provenance",
        "guessed",
        "must be one of measured, instruction-count, vela, analytic, not 'guessed'",
    ),
    (f"{FP32}.provenance", "measured", "a table of provenance 'measured' states error_percent"),
    (f"{FP32}.provenance", "vela", "a table of provenance 'vela' states error_percent"),
    (f"{FP32}.source", None, "the key 'source' is missing"),
    (f"{FP32}.scale", 0, "scale must be above 0"),
    (f"{FP32}.modules.lstm", {}, "unknown module kind 'lstm'; known: front_end, ffn"),
    (f"{FP32}.modules.norm", None, r"modules\.norm is missing"),
    (f"{FP32}.modules.ffn.us_per_call", -1, "us_per_call must be finite and at least 0"),
    (f"{FP32}.modules.ffn.us_per_call", math.inf, "us_per_call must be finite"),
    (f"{FP32}.modules.ffn.us_per_mflop", 5.0, "modules.ffn: us_per_mflop 5.0 beats the peak"),
    (f"{FP32}.memory.weight_copies", "two", "memory: weight_copies must be a number"),
    (f"{FP32}.size.kb_per_module", -3, "kb_per_module must be finite and at least 0"),
    (f"{FP32}.size.kb_per_module", 1e308, "kb_per_module must be at most"),
    ("budget.audio_seconds", 1e308, "audio_seconds must be at most"),
    ("budget.audio_seconds", 1e-300, "audio_seconds must be from 1e-06"),
    ("budget.latency_ms", 1e308, "latency_ms must be from 1e-06 to 1e\\+12"),
    ("budget.memory_mb", 1e-300, "memory_mb must be from 1e-06"),
]


@pytest.mark.parametrize(("path", "value", "message"), MISTAKES)
def test_a_mistake_in_a_profile_is_named(
    path: str, value: object, message: str, content: dict[str, Any], tmp_path: Path
) -> None:
    changed = copy.deepcopy(content)
    setting(path, value)(changed)
    with pytest.raises(UserError, match=message) as error:
        read_table_or_file(changed, tmp_path)
    assert "\n" not in str(error.value)


def read_table_or_file(content: dict[str, Any], tmp_path: Path) -> DeviceProfile:
    """Through a file for the version, which is checked before anything else."""
    if content.get("schema_version") == SCHEMA_VERSION:
        return read_table(DeviceProfile, content, "board.toml")
    cut = {key: value for key, value in content.items() if not isinstance(value, dict)}
    path = tmp_path / "board.toml"
    path.write_text(write_table(cut), "utf-8")
    return read_profile(path)


def test_the_documented_example_is_a_profile_once_every_module_has_its_table(
    repository: Path,
) -> None:
    page = (repository / "docs" / "devices.md").read_text("utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    tables = tomllib.loads(example)
    modules = tables["runtimes"]["executorch"]["fp32"]["modules"]
    for kind in KINDS:
        modules.setdefault(kind, {})
    profile = read_table(DeviceProfile, tables, "example")
    assert profile.name == "my-board"
    assert profile.budget.latency_ms == 200


scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=("Cs",))),
)
tables = st.dictionaries(
    st.text(st.characters(exclude_categories=("Cs",))),
    st.recursive(
        scalars,
        lambda inner: st.dictionaries(st.text("ab. \"'\\"), inner, max_size=3),
        max_leaves=5,
    ),
    max_size=5,
)


@settings(deadline=None)
@given(tables)
def test_what_is_written_is_toml_of_the_same_value(table: dict[str, Any]) -> None:
    read = tomllib.loads(write_table(table))
    assert read == table
    assert json.dumps(read, sort_keys=True) == json.dumps(table, sort_keys=True)


@pytest.mark.parametrize("share", [0.96, 0.94])
def test_a_fitted_module_may_beat_the_peak_by_little_and_an_analytic_one_may_not(
    share: float,
) -> None:
    def with_front_end(profile: DeviceProfile, runtime: str) -> DeviceProfile:
        costs = profile.runtimes[runtime]["fp32"]
        peak = profile.hardware.core.peak_gflops
        assert peak is not None
        front_end = dataclasses.replace(
            costs.modules["front_end"], us_per_mflop=share * 1000 / peak / costs.scale
        )
        changed = dataclasses.replace(costs, modules={**costs.modules, "front_end": front_end})
        return dataclasses.replace(profile, runtimes={runtime: {"fp32": changed}})

    profile = load_profile("raspberrypi5")
    if share > 0.95:
        with_front_end(profile, "executorch")
    else:
        with pytest.raises(ValueError, match=r"front_end: us_per_mflop \S+ beats the peak"):
            with_front_end(profile, "executorch")
    with pytest.raises(ValueError, match="beats the peak"):
        with_front_end(profile, "onnxruntime")


@pytest.mark.parametrize("home", ["missing", "unreadable"])
def test_shipped_profiles_need_no_home(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobodys() -> Path:
        raise RuntimeError("Could not determine home directory.")

    def unreadable() -> Path:
        raise PermissionError(13, "Permission denied", "/root/.config/ortho_edge/devices")

    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(Path, "home", nobodys)
    with pytest.raises(UserError, match="no home folder; name one by XDG_CONFIG_HOME"):
        user_folder()
    if home == "unreadable":
        monkeypatch.setattr(catalogue, "user_folder", unreadable)
    assert load_profile("pixel8").name == "pixel8"
    with pytest.raises(UserError, match=r"unknown device 'pixel99'; known: .*pixel8"):
        load_profile("pixel99")
