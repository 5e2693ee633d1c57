"""What runs networks on 64-bit Arm: our programs, the runtimes' own libraries for Arm, and glibc.

The libraries come from the wheels of ExecuTorch and ONNX Runtime for 64-bit Arm Linux, of the
versions that are installed here, and our programs are compiled against them. The folder also
carries the C library and its loader, so that it runs wherever a Linux kernel does, whatever C
library the system has. Everything is made once and kept in the user's cache.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path

from ortho_edge.atomic import atomic_folder
from ortho_edge.cli import UserError
from ortho_export.manifest import digest

logger = logging.getLogger(__name__)

APT = "sudo apt-get install qemu-user g++-aarch64-linux-gnu gcc libc6-dev"
"""Installs the tools on Debian and Ubuntu."""
COMPILER = "aarch64-linux-gnu-g++"
PLATFORM = "manylinux_2_28_aarch64"
RUNNER, BENCH, LOADER, SOURCES = "runner", "bench", "ld-linux-aarch64.so.1", "sources.json"
PROGRAMS = {RUNNER: ("runner.cpp",), BENCH: ("bench.cpp", "bench_program.cpp", "bench_model.cpp")}
HEADERS = ("common.h", "network.h", "program.h")
ONNXRUNTIME_LIBRARY = "libonnxruntime.so.1"
"""The bench opens it where a network needs it."""
EXECUTORCH_LIBRARIES = (
    "libexecutorch.so",
    "libexecutorch_backend_xnnpack.so",
    "libexecutorch_kernels_optimized.so",
    "libexecutorch_kernels_quantized.so",
    "libexecutorch_threadpool.so",
)
SYSTEM_LIBRARIES = (
    LOADER,
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
)
# The definitions that the wheel's own CMake files set; without them its headers miss a file.
FLAGS = (
    "-std=c++17", "-O2", "-Wall", "-Werror", "-DC10_USING_CUSTOM_GENERATED_MACROS",
    "-DET_EVENT_TRACER_ENABLED", "-DET_USE_THREADPOOL",
)  # fmt: skip


class MissingToolError(UserError):
    """A program or package that must be installed or downloaded first is not there."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Everything that a machine needs to run programs.

    Attributes:
        folder: Holds the files and nothing else.
        executorch: Version of its libraries.
        sha256: Digest of every file by its name.
    """

    folder: Path
    executorch: str
    sha256: dict[str, str]

    @property
    def files(self) -> tuple[Path, ...]:
        """All of it."""
        return tuple(self.folder / name for name in self.sha256)

    def files_for(self, program: str) -> tuple[Path, ...]:
        """What is copied to a machine that runs one of `PROGRAMS`."""
        others = {*PROGRAMS, ONNXRUNTIME_LIBRARY} - {program}
        if program == BENCH:
            others.remove(ONNXRUNTIME_LIBRARY)
        return tuple(file for file in self.files if file.name not in others)


def cache_folder() -> Path:
    """Where this is kept: `$XDG_CACHE_HOME/ortho_edge/arm`, `~/.cache` by default."""
    configured = os.environ.get("XDG_CACHE_HOME")
    return (Path(configured) if configured else Path.home() / ".cache") / "ortho_edge" / "arm"


def tool(name: str, installed_by: str = APT) -> str:
    """The path of a program.

    Raises:
        MissingToolError: It is not installed.
    """
    path = shutil.which(name)
    if path is None:
        raise MissingToolError(f"{name} is not installed; on Debian or Ubuntu: {installed_by}")
    return path


def source(name: str) -> Path:
    """A source file that comes with this package."""
    return Path(str(resources.files("ortho_export"))) / "arm" / name


def load_bundle() -> Bundle:
    """Our programs and their libraries; downloaded and compiled when they are not in the cache.

    Raises:
        MissingToolError: The cross compiler is not installed or a wheel cannot be downloaded.
        UserError: The cache cannot be written.
    """
    compiler = tool(COMPILER)
    releases = {name: version(name).split("+")[0] for name in ("executorch", "onnxruntime")}
    executorch = releases["executorch"]
    compiled_by = run_tool([compiler, "--version"]).splitlines()[0]
    files = [*HEADERS, *(file for parts in PROGRAMS.values() for file in parts)]
    code = [source(file).read_text("utf-8") for file in files]
    recipe = [*code, *releases.values(), compiled_by, *FLAGS]
    key = hashlib.sha256("\0".join(recipe).encode()).hexdigest()[:16]
    folder = cache_folder() / f"executorch-{executorch}-{key}"
    bundle = _read(folder, executorch)
    if bundle is None:
        logger.info("building the Arm programs in %s", folder)
        try:
            _build(folder, compiler, releases, compiled_by)
        except OSError as error:
            raise UserError(
                f"cannot build in {folder}: {error}; XDG_CACHE_HOME names another place"
            ) from error
        bundle = _read(folder, executorch)
        assert bundle is not None
    return bundle


def _read(folder: Path, executorch: str) -> Bundle | None:
    """The bundle of a folder; None where there is none or a file is not what was written."""
    try:
        sha256 = json.loads((folder / SOURCES).read_text("utf-8"))["files"]
        whole = all(digest(folder / name) == one for name, one in sha256.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Bundle(folder=folder, executorch=executorch, sha256=sha256) if whole else None


def _build(folder: Path, compiler: str, releases: Mapping[str, str], compiled_by: str) -> None:
    with atomic_folder(folder) as fresh:
        origin = {"compiler": compiled_by}
        unpacked = fresh / "wheels"
        for package, release in releases.items():
            wheel = _download(package, release, fresh)
            origin |= {f"{package}_wheel": wheel.name, f"{package}_sha256": digest(wheel)}
            _unpack(wheel, unpacked)
            wheel.unlink()
        for name, parts in PROGRAMS.items():
            _compile(compiler, unpacked / "executorch", parts, fresh / name)
        for name in EXECUTORCH_LIBRARIES:
            shutil.move(unpacked / "executorch" / "lib" / name, fresh / name)
        (library,) = (unpacked / "onnxruntime" / "capi").iterdir()
        shutil.move(library, fresh / ONNXRUNTIME_LIBRARY)
        shutil.rmtree(unpacked)
        for name in SYSTEM_LIBRARIES:
            shutil.copyfile(run_tool([compiler, f"-print-file-name={name}"]).strip(), fresh / name)
        (fresh / LOADER).chmod(0o755)
        files = {one.name: digest(one) for one in sorted(fresh.iterdir())}
        (fresh / SOURCES).write_text(json.dumps({**origin, "files": files}, indent=1), "utf-8")


def _unpack(wheel: Path, folder: Path) -> None:
    """Headers and libraries; the Python modules beside them stay in the wheel."""
    wanted = re.compile(
        r"executorch/(include/.*|lib/[^/]+\.so)|onnxruntime/capi/libonnxruntime\.so\.[0-9.]+"
    )
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if wanted.fullmatch(name)])


def _download(package: str, release: str, folder: Path) -> Path:
    """A package's wheel for Arm; pip checks it against the digest that the index states.

    Raises:
        MissingToolError: pip is not there, or could not get it.
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    result = subprocess.run(
        [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--no-deps", "--only-binary=:all:", "--platform", PLATFORM, "--python-version", python,
            "--dest", str(folder), f"{package}=={release}",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    wheels = list(folder.glob(f"{package}-*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        said = result.stderr.strip().splitlines() or ["nothing was downloaded"]
        raise MissingToolError(f"pip cannot get {package} {release} for {PLATFORM}: {said[-1]}")
    return wheels[0]


def _compile(compiler: str, executorch: Path, parts: Sequence[str], program: Path) -> None:
    include = executorch / "include"
    portable = include / "executorch" / "runtime" / "core" / "portable_type" / "c10"
    libraries = [
        f"-l{name.removeprefix('lib').removesuffix('.so')}" for name in EXECUTORCH_LIBRARIES
    ]
    run_tool(
        [
            compiler, *FLAGS, *(str(source(part)) for part in parts), "-isystem", str(include),
            "-isystem", str(portable), f"-L{executorch / 'lib'}",
            # The backend and the kernels register themselves; nothing refers to them.
            "-Wl,--no-as-needed", *libraries, "-o", str(program),
        ]
    )  # fmt: skip


def run_tool(command: Sequence[str]) -> str:
    """What a program prints.

    Raises:
        RuntimeError: It fails, which no user can mend.
    """
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{command[0]} failed with status {result.returncode}:\n{result.stderr}")
    return result.stdout
