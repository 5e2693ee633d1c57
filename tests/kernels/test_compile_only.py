"""Every kernel that ships fits the chips that it ships for, without any of them being here."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ortho_kernels.launch import GRID, read_table

SHARED_MEMORY = {"sm_80": 163, "sm_90": 227, "sm_100": 227, "gfx942": 64}
"""KiB that one program may use; `triton.compile` does not check it without a device."""


def tables(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / "kernels/ortho_kernels/launch_tables").iterdir())


TABLES = tables(Path(__file__).resolve().parents[2])


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_shipped_kernels_compile_without_spills_and_fit(table: str, repository: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("TRITON_INTERPRET", None)
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (repository, repository / "kernels")))
    result = subprocess.run(
        [sys.executable, "-m", "tests.kernels.compile_only", table], cwd=repository,
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    compiled = [json.loads(line) for line in result.stdout.splitlines()]
    architecture = read_table(table).get("architecture", table)
    limit = 1024 * SHARED_MEMORY[architecture]
    assert [row for row in compiled if row["spills"] or row["shared"] > limit] == []
    unused = [entry for entry in entries(table) if not any(uses(row, entry) for row in compiled)]
    assert unused == [], "rows of the table that no launch in tests/kernels/launches takes"


def entries(table: str) -> list[tuple[str, dict[str, Any]]]:
    """Kernel and configuration of every row of a table."""
    kernels = read_table(table).get("kernels", {})  # a GPU's may only hold speed-ups
    return [(kernel, row["config"]) for kernel, rows in kernels.items() for row in rows]


def uses(row: dict[str, Any], entry: tuple[str, dict[str, Any]]) -> bool:
    kernel, config = entry
    needed = {name: value for name, value in config.items() if name not in GRID}
    return row["kernel"] == f"{kernel}_kernel" and needed.items() <= row["options"].items()
