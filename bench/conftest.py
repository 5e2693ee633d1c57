"""What all benches share: one thread, and a timer that waits for the accelerator."""

import pytest
import torch


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Set before pytest-benchmark reads its options."""
    # With more threads than free cores the median of a small operation measures the scheduler.
    torch.set_num_threads(1)
    config.option.benchmark_timer = "torch.utils.benchmark.utils.timer.timer"
