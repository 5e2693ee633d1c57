"""The batched encoder computes what the dense encoder computes, in few operations."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ortho_edge.compaction import compact
from ortho_edge.conformer.architecture import FrontEndKind
from ortho_edge.subnet import Subnet
from ortho_export.batched import BatchedEncoder
from tests.export.tiny import Exported, tiny_checkpoint
from tests.tolerances import tolerance

SUPERNETS = {kind: tiny_checkpoint(kind).supernet for kind in ("strided", "vgg")}


def assert_batched_equals_dense(
    kind: str, kept: list[int], lengths: list[int], seed: int, dtype: torch.dtype
) -> None:
    supernet = SUPERNETS[kind].to(dtype)
    subnet = Subnet.of(len(supernet.space), [index % len(supernet.space) for index in kept])
    dense = compact(supernet, subnet, seed % 2)
    generator = torch.Generator().manual_seed(seed)
    features = 4 * torch.randn(len(lengths), max(lengths), 80, generator=generator) - 8
    with torch.no_grad():
        found, found_lengths = BatchedEncoder(dense)(features.to(dtype), torch.tensor(lengths))
        for index, length in enumerate(lengths):
            # Alone, so that nothing beyond an utterance can help.
            one = features[index : index + 1, :length].to(dtype)
            expected, frames = dense(one, torch.tensor([length]))
            assert found_lengths[index] == frames[0] == expected.shape[1]
            torch.testing.assert_close(
                found[index, : expected.shape[1]],
                expected[0],
                **tolerance(f"{str(dtype)[6:]}_reordered"),
            )


@settings(deadline=None, max_examples=40)
@given(
    kind=st.sampled_from(["strided", "vgg"]),
    kept=st.lists(st.integers(0, 11)),
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_any_subnet_and_batch_in_double_precision(
    kind: FrontEndKind, kept: list[int], lengths: list[int], seed: int
) -> None:
    assert_batched_equals_dense(kind, kept, lengths, seed, torch.float64)


@pytest.mark.parametrize("kind", ["strided", "vgg"])
def test_the_whole_network_in_single_precision(kind: FrontEndKind) -> None:
    assert_batched_equals_dense(kind, list(range(12)), [333, 12, 11, 10, 9], 0, torch.float32)


def test_the_dense_encoder_is_left_alone() -> None:
    supernet = SUPERNETS["strided"].to(torch.float32)
    dense = compact(supernet, supernet.space.full())
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    with torch.no_grad():
        for parameter in BatchedEncoder(dense).parameters():
            parameter.zero_()
    for name, value in dense.state_dict().items():
        assert value.equal(before[name]), name


@pytest.mark.export
def test_onnx_runtime_fuses_what_it_was_written_for(exported: Exported, tmp_path: Path) -> None:
    """One block with two feed-forward modules, a convolution and attention."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # The last level rewrites for this processor's vectors, which other processors lack.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(exported.model, options, providers=["CPUExecutionProvider"])
    found = Counter(one.op_type for one in onnx.load(tmp_path / "optimised.onnx").graph.node)
    # Front end, 2 + 2 of the feed-forward modules, 3 of the convolution, 4 of attention, the head.
    assert found["Gemm"] + found["FusedGemm"] == 13
    assert found["Add"] <= 10, "biases belong to their products"
    assert found["LayerNormalization"] == 6
    assert found["QuickGelu"] == 3
    # Four of attention, two of the depthwise convolution, one behind the front end.
    assert found["Transpose"] + found["FusedMatMul"] <= 8
    slow = {"SkipLayerNormalization", "IsNaN", "Where", "Split", "Gather"}
    assert not slow & set(found), "slower in ONNX Runtime than what it stands for"
