"""The program: one XNNPACK delegate that takes any number of frames within its bounds."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from ortho_edge.compaction import DenseEncoder, compact
from ortho_edge.conformer.architecture import FrontEndKind
from ortho_export.executorch import Delegation, Forward, load, lower
from ortho_export.facts import MAX_FRAMES, MIN_FRAMES, Facts
from ortho_export.quiet import quiet_stderr
from tests.export.tiny import LARGE, SMALL, Exported, tiny_checkpoint
from tests.tolerances import tolerance

pytestmark = pytest.mark.export

OUTSIDE = {"aten__log_softmax_default", "getitem"}
"""What XNNPACK may leave to other kernels: the utterance's means and the last operation. Anything
more cuts the delegate in pieces."""


def features(frames: int) -> torch.Tensor:
    return 4 * torch.randn(1, frames, 80, generator=torch.Generator().manual_seed(frames)) - 8


def assert_equals_eager(forward: Forward, encoder: DenseEncoder, frames: int) -> None:
    x = features(frames)
    with torch.no_grad():
        expected, lengths = encoder(x, torch.tensor([frames]))
    found = torch.from_numpy(forward(x.numpy()))
    assert found.shape == (1, int(lengths), expected.shape[2])
    torch.testing.assert_close(found, expected, **tolerance("parity_float32"))


@pytest.fixture(scope="module")
def forward(exported: Exported) -> Forward:
    return load(exported.program, threads=1)[1]


def test_every_length_in_any_order(exported: Exported, forward: Forward) -> None:
    lengths = [
        500, 9, MAX_FRAMES, 10, 11, 12, 13, 101, MAX_FRAMES - 1, 250, 251, 252, MIN_FRAMES, 399,
    ]  # fmt: skip
    for frames in lengths:
        assert_equals_eager(forward, exported.encoder, frames)


def test_results_do_not_share_memory(forward: Forward) -> None:
    first = forward(features(40).numpy())
    kept = first.copy()
    forward(features(41).numpy())
    assert np.array_equal(first, kept)


def test_a_longer_input_is_refused_by_the_runtime(forward: Forward) -> None:
    with pytest.raises(RuntimeError), quiet_stderr():
        forward(features(MAX_FRAMES + 1).numpy())
    # The program still works afterwards.
    forward(features(100).numpy())


def test_constants_are_methods_of_the_program(exported: Exported) -> None:
    from executorch.runtime import Runtime

    with quiet_stderr():
        program = Runtime.get().load_program(exported.program)
    expected = {"vocab_size": 11, "subsampling_factor": 4, "sample_rate": 16000, "feature_dim": 80,
                "min_frames": 9, "max_frames": 3000, "subnet": LARGE}  # fmt: skip
    for name, value in expected.items():
        method = program.load_method(name)
        assert method is not None
        assert method.execute([]) == [value]


def test_delegation_of_the_exported_program(exported: Exported) -> None:
    from ortho_export.manifest import read_manifest

    manifest = read_manifest(exported.folder)
    assert manifest is not None
    delegation = Delegation(**manifest["files"]["model.pte"]["delegation"])
    assert delegation.subgraphs == 1, "the whole network"
    assert set(delegation.outside) <= OUTSIDE
    # The features and the logits; log-probabilities take the place of the features.
    assert delegation.planned_bytes < 1.1 * 4 * MAX_FRAMES * (80 + 11 / 4)


@pytest.mark.parametrize(("front_end", "chunks"), [("vgg", 1), ("strided", 3)])
def test_other_front_ends_and_half_of_the_modules(
    front_end: FrontEndKind, chunks: int, tmp_path: Path
) -> None:
    checkpoint = tiny_checkpoint(front_end, front_end_chunks=chunks)
    trained = checkpoint.subnets[1]
    assert trained.name == SMALL
    assert len(checkpoint.supernet.space.front_end_chunks(trained.subnet)) == min(chunks, 2)
    encoder = compact(checkpoint.supernet, trained.subnet, trained.head)
    facts = Facts(
        subnet=SMALL, tokens=checkpoint.tokens, checkpoint_digest="", min_frames=9, max_frames=300
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program = lower(encoder, facts)
    assert program.delegation.subgraphs == 1
    assert set(program.delegation.outside) <= OUTSIDE
    (tmp_path / "model.pte").write_bytes(program.content)
    read, forward = load(tmp_path / "model.pte", threads=1)
    assert read == facts
    for frames in (300, 9, 10, 11, 12, 77):
        assert_equals_eager(forward, encoder, frames)
