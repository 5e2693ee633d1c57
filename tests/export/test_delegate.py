"""Rewritten delegates: the same results to the last bit, fewer operations, smaller files."""

import copy
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
from ortho_export.flat import FlatEncoder, FlatScale
from ortho_export.quiet import quiet_stderr
from ortho_export.xnnpack_graph import RESHAPE, TRANSPOSE, Graph, simplified
from tests.export.test_all_precisions import FACTS, encoder
from tests.tolerances import tolerance

pytestmark = [pytest.mark.export, pytest.mark.slow]
LENGTHS = (FACTS.min_frames, 101, FACTS.max_frames, 38)
MOVES = {TRANSPOSE, RESHAPE, "XNNConvert"}


@cache
def rewritten(precision: Precision) -> Program:
    return lower(encoder(), FACTS, precision)


def noise() -> list[torch.Tensor]:
    """Features of several lengths, in turns."""
    generator = torch.Generator().manual_seed(0)
    return [4 * torch.randn(1, frames, 80, generator=generator) - 8 for frames in LENGTHS]


def outputs(program: Program, file: Path) -> list[np.ndarray]:
    """What a program says of noise."""
    file.write_bytes(program.content)
    with quiet_stderr():
        _, forward = load(file, threads=1)
    return [forward(x.numpy()).copy() for x in noise()]


def assert_same_outputs(one: Program, other: Program, folder: Path) -> None:
    pairs = zip(outputs(one, folder / "1.pte"), outputs(other, folder / "2.pte"), strict=True)
    assert all(np.array_equal(*pair) for pair in pairs)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_fewer_operations_say_the_same(
    precision: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, graphs = rewritten(precision), []

    def kept(graph: Graph) -> Graph:
        graphs.append(copy.deepcopy(graph))
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
    monkeypatch.setattr(delegate, "_with_halves", lambda graph, constants: graph)
    inlined = lower(encoder(), FACTS, "int8")
    monkeypatch.setattr(executorch, "rewrite_delegates", lambda edge, graphs, inline: None)
    named = lower(encoder(), FACTS, "int8")
    names = len(re.findall(rb"[0-9a-f]{64}", named.content))
    assert names > 10
    assert not re.search(rb"[0-9a-f]{64}", inlined.content)
    assert len(inlined.content) < len(named.content) - 50 * names
    assert_same_outputs(named, inlined, tmp_path)


def test_convolutions_keep_their_weights_in_fp16_and_compute_in_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of what int8 rounds nothing is rounded, so that only this is seen.
    monkeypatch.setattr(executorch, "quantized", lambda encoder, *_: encoder)
    halved = lower(encoder(), FACTS, "int8")
    reference, rounded = FlatEncoder(encoder(), for_xnnpack=True), 0
    with torch.no_grad():
        for module in reference.modules():
            if isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d | FlatScale):
                for one in module.parameters():
                    one.copy_(one.half())
                    rounded += one.numel()
    found = outputs(halved, tmp_path / "halved.pte")
    for x, log_probs in zip(noise(), found, strict=True):
        expected = reference(x).detach().numpy()
        np.testing.assert_allclose(log_probs, expected, **tolerance("float32_reordered"))
    monkeypatch.setattr(delegate, "_with_halves", lambda graph, constants: graph)
    whole = lower(encoder(), FACTS, "int8")
    # Rounded up to whole lines of 16 bytes, one by one.
    assert len(halved.content) == pytest.approx(len(whole.content) - 2 * rounded, abs=300)
