"""What all benches share: one thread, and a timer that waits for the accelerator."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.latency_table import disproportionate, latency_table, plot_latency, records


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the latency bench."""
    group = parser.getgroup("latency bench")
    group.addoption(
        "--latency-checkpoint", help="folder of the checkpoint to time (default: the shipped one)"
    )
    group.addoption("--latency-plot", help="file for a plot of latency against FLOPs")
    group.addoption(
        "--latency-files", help="folder that keeps the artefacts; those in it are not made again"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Set before pytest-benchmark reads its options."""
    # With more threads than free cores the median of a small operation measures the scheduler.
    torch.set_num_threads(1)
    config.option.benchmark_timer = "torch.utils.benchmark.utils.timer.timer"


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Versions, for the JSON that `--benchmark-json` writes; pytest-benchmark adds the host."""
    from ortho_export.manifest import versions

    machine_info["versions"] = versions()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """The latency table, after everything that pytest-benchmark prints."""
    session = getattr(config, "_benchmarksession", None)
    found = records(session.benchmarks if session is not None else [])
    if not found:
        return
    terminalreporter.section("latency and FLOPs, in ms and as shares of the largest subnet")
    for line in [*latency_table(found), *disproportionate(found)]:
        terminalreporter.write_line(line)
    if plot := config.getoption("latency_plot"):
        plot_latency(found, Path(plot))
        terminalreporter.write_line(f"plot: {plot}")
