"""Constants inside the delegate: the same program, smaller, and no names left."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ortho_export import executorch
from ortho_export.executorch import load, lower
from ortho_export.quiet import quiet_stderr
from tests.export.test_all_precisions import FACTS, encoder

pytestmark = [pytest.mark.export, pytest.mark.slow]


def test_inlined_constants_change_the_size_of_a_program_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inlined = lower(encoder(), FACTS, "int8").content
    monkeypatch.setattr(executorch, "inline_constants", lambda edge: None)
    named = lower(encoder(), FACTS, "int8").content
    assert named.count(b"scale_") > 10
    assert b"scale_" not in inlined
    assert len(inlined) < len(named) - 100 * named.count(b"scale_")
    outputs = []
    for name, content in (("inlined", inlined), ("named", named)):
        (tmp_path / f"{name}.pte").write_bytes(content)
        with quiet_stderr():
            _, forward = load(tmp_path / f"{name}.pte", threads=1)
        x = 4 * torch.randn(1, 101, 80, generator=torch.Generator().manual_seed(0)) - 8
        outputs.append(forward(x.numpy()))
    assert np.array_equal(*outputs)
