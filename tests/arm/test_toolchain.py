import json
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from ortho_export.arm import toolchain
from ortho_export.arm.machines import MachineError, run_here
from ortho_export.arm.toolchain import (
    BENCH,
    EXECUTORCH_LIBRARIES,
    LOADER,
    ONNXRUNTIME_LIBRARY,
    RUNNER,
    SOURCES,
    Bundle,
    MissingToolError,
    load_bundle,
)


def test_a_missing_compiler_names_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match=r"is not installed; .*apt-get install qemu"):
        load_bundle()


def test_the_sources_come_with_the_package() -> None:
    assert "int main(" in toolchain.source("runner.cpp").read_text("utf-8")


def test_a_failing_command_is_named_with_its_last_words() -> None:
    with pytest.raises(MachineError, match="sh ended with status 3: worse"):
        run_here(["sh", "-c", "echo bad >&2; echo worse >&2; exit 3"])


@pytest.mark.arm
def test_a_bundle_has_all_that_our_programs_need_and_says_where_it_is_from(bundle: Bundle) -> None:
    for program, others in ((RUNNER, {BENCH, ONNXRUNTIME_LIBRARY}), (BENCH, {RUNNER})):
        names = {file.name for file in bundle.files_for(program)}
        assert {program, LOADER, "libc.so.6", *EXECUTORCH_LIBRARIES} <= names
        assert not names & others
    assert ONNXRUNTIME_LIBRARY in names
    origin = json.loads((bundle.folder / SOURCES).read_text("utf-8"))
    for package in ("executorch", "onnxruntime"):
        assert origin[f"{package}_wheel"].startswith(f"{package}-{version(package)}-")
        assert len(origin[f"{package}_sha256"]) == 64
    assert all(file.is_file() for file in bundle.files)


@pytest.mark.arm
def test_a_cached_bundle_is_used_again_and_a_damaged_one_is_not(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class RebuiltError(Exception):
        pass

    def build(*_: object) -> None:
        raise RebuiltError

    monkeypatch.setattr(toolchain, "_build", build)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(RebuiltError):
        load_bundle()
    copy = toolchain.cache_folder() / bundle.folder.name
    shutil.copytree(bundle.folder, copy)
    assert load_bundle().sha256 == bundle.sha256
    (copy / RUNNER).write_bytes((copy / RUNNER).read_bytes()[:-1])
    with pytest.raises(RebuiltError):
        load_bundle()
