"""Budgets against what artefacts turned out to be, without any artefact."""

from pathlib import Path

import pytest

from ortho_edge.cli import UserError
from ortho_edge.devices.profile import Budget
from ortho_export.measure import check_budget


def test_every_limit_that_is_exceeded_is_named(tmp_path: Path) -> None:
    file = tmp_path / "model.pte"
    file.write_bytes(bytes(2_000_000))
    budget = Budget(latency_ms=5.0, memory_mb=3.0, size_mb=1.0, params=10)
    with pytest.raises(UserError) as caught:
        check_budget(budget, [file], 11, {"executorch": 6.0}, {"executorch": 4.0}, 3.5)
    for one in (
        "file size of model.pte (MB) 2, limit 1",
        "parameters 11, limit 10",
        "latency of executorch (ms) 6, limit 5",
        "memory of executorch (MB) 4, limit 3",
        "planned memory (MB) 3.5, limit 3",
    ):
        assert one in str(caught.value)


def test_planned_memory_alone_breaks_a_budget_and_a_limit_itself_is_allowed() -> None:
    budget = Budget(memory_mb=3.0)
    check_budget(budget, [], 1, planned_mb=3.0)
    with pytest.raises(UserError, match=r"planned memory \(MB\) 3\.1, limit 3$"):
        check_budget(budget, [], 1, planned_mb=3.1)
