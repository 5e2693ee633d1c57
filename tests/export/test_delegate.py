"""Rewritten delegates: the same results to the last bit, fewer operations, smaller files."""

import re
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from ortho_edge.precision import Precision
from ortho_export import delegate, executorch
from ortho_export.executorch import Program, load, lower
from ortho_export.quiet import quiet_stderr
from ortho_export.xnnpack_graph import RESHAPE, TRANSPOSE, Graph, simplified
from tests.export.test_all_precisions import FACTS, encoder

pytestmark = [pytest.mark.export, pytest.mark.slow]
LENGTHS = (FACTS.min_frames, 101, FACTS.max_frames, 38)
MOVES = {TRANSPOSE, RESHAPE, "XNNConvert"}


@cache
def rewritten(precision: Precision) -> Program:
    return lower(encoder(), FACTS, precision)


def outputs(program: Program, file: Path) -> list[np.ndarray]:
    """What a program says of noise of several lengths, in turns."""
    file.write_bytes(program.content)
    with quiet_stderr():
        _, forward = load(file, threads=1)
    noise = torch.Generator().manual_seed(0)
    found = []
    for frames in LENGTHS:
        x = 4 * torch.randn(1, frames, 80, generator=noise) - 8
        found.append(forward(x.numpy()).copy())
    return found


def assert_same_outputs(one: Program, other: Program, folder: Path) -> None:
    pairs = zip(outputs(one, folder / "1.pte"), outputs(other, folder / "2.pte"), strict=True)
    assert all(np.array_equal(*pair) for pair in pairs)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_fewer_operations_say_the_same(
    precision: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, graphs = rewritten(precision), []

    def kept(graph: Graph) -> Graph:
        graphs.append(graph)
        return graph

    monkeypatch.setattr(delegate, "simplified", kept)
    written = lower(encoder(), FACTS, precision)
    (before,) = graphs
    kinds, fewer = (
        Counter(node["xnode_union_type"] for node in one["xnodes"])
        for one in (before, simplified(before))
    )
    assert fewer[TRANSPOSE] < kinds[TRANSPOSE] / 2
    for kind in kinds.keys() - MOVES:
        assert fewer[kind] == kinds[kind]
    assert short.delegation == written.delegation
    assert len(short.content) < len(written.content)
    assert_same_outputs(written, short, tmp_path)


def test_inlined_constants_change_the_size_of_a_program_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inlined = rewritten("int8")
    monkeypatch.setattr(executorch, "rewrite_delegates", lambda edge, graphs, inline: None)
    named = lower(encoder(), FACTS, "int8")
    names = len(re.findall(rb"[0-9a-f]{64}", named.content))
    assert names > 10
    assert not re.search(rb"[0-9a-f]{64}", inlined.content)
    assert len(inlined.content) < len(named.content) - 50 * names
    assert_same_outputs(named, inlined, tmp_path)
