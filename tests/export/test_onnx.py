"""The ONNX model: the contract of sherpa-onnx, exact padding, and sherpa-onnx itself."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ortho_edge.compaction import compact
from ortho_edge.conformer.architecture import FrontEndKind
from ortho_edge.data.features import fbank
from ortho_edge.decoding import greedy_text
from ortho_export.facts import Facts
from ortho_export.onnx import Forward, load, to_onnx
from tests.export.tiny import LARGE, Exported, bursts, tiny_checkpoint
from tests.tolerances import tolerance

pytestmark = pytest.mark.export


def features(frames: int) -> torch.Tensor:
    return 4 * torch.randn(1, frames, 80, generator=torch.Generator().manual_seed(frames)) - 8


@pytest.fixture(scope="module")
def forward(exported: Exported) -> Forward:
    return load(exported.model, threads=1)[1]


def padded(lengths: list[int], padding: float) -> np.ndarray:
    batch = np.full((len(lengths), max(lengths), 80), padding, np.float32)
    for row, length in zip(batch, lengths, strict=True):
        row[:length] = features(length)[0]
    return batch


@pytest.mark.parametrize("padding", [0.0, -23.0, 1e4])
@pytest.mark.parametrize("lengths", [[101], [77, 250, 9], [12, 11, 10, 9], [399, 400, 398, 5]])
def test_an_utterance_is_the_same_alone_and_padded(
    exported: Exported, forward: Forward, lengths: list[int], padding: float
) -> None:
    log_probs, log_probs_len = forward(padded(lengths, padding), np.array(lengths))
    assert log_probs_len.tolist() == [-(-length // 4) for length in lengths]
    encoder = exported.encoder
    for row, length in zip(log_probs, lengths, strict=True):
        with torch.no_grad():
            expected, _ = encoder(features(length), torch.tensor([length]))
        alone, _ = forward(features(length).numpy(), np.array([length]))
        found = row[: expected.shape[1]]
        torch.testing.assert_close(found, expected[0].numpy(), **tolerance("parity_float32"))
        torch.testing.assert_close(found, alone[0], **tolerance("parity_float32"))


def test_longer_than_any_traced_length(exported: Exported, forward: Forward) -> None:
    x = features(4001)
    with torch.no_grad():
        expected, _ = exported.encoder(x, torch.tensor([4001]))
    log_probs, _ = forward(x.numpy(), np.array([4001]))
    torch.testing.assert_close(torch.from_numpy(log_probs), expected, **tolerance("parity_float32"))


@pytest.mark.parametrize(("front_end", "chunks"), [("vgg", 1), ("vgg", 3), ("strided", 3)])
def test_other_front_ends(front_end: FrontEndKind, chunks: int, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(front_end, front_end_chunks=chunks)
    trained = checkpoint.subnets[1]
    assert len(checkpoint.supernet.space.front_end_chunks(trained.subnet)) == min(chunks, 2)
    encoder = compact(checkpoint.supernet, trained.subnet, trained.head)
    facts = Facts(subnet=trained.name, tokens=checkpoint.tokens, checkpoint_digest="")
    (tmp_path / "model.onnx").write_bytes(to_onnx(encoder, facts))
    read, forward = load(tmp_path / "model.onnx", threads=1)
    assert read == facts
    lengths = [97, 60, 9]
    log_probs, _ = forward(padded(lengths, 3.0), np.array(lengths))
    for row, length in zip(log_probs, lengths, strict=True):
        with torch.no_grad():
            expected, _ = encoder(features(length), torch.tensor([length]))
        torch.testing.assert_close(
            row[: expected.shape[1]], expected[0].numpy(), **tolerance("parity_float32")
        )


def test_the_contract(exported: Exported) -> None:
    import onnx

    model = onnx.load(exported.model)
    onnx.checker.check_model(model)
    types = onnx.TensorProto
    signature = [
        (one.name, one.type.tensor_type.elem_type, len(one.type.tensor_type.shape.dim))
        for one in (*model.graph.input, *model.graph.output)
    ]
    assert signature == [
        ("x", types.FLOAT, 3),
        ("x_lens", types.INT64, 1),
        ("log_probs", types.FLOAT, 3),
        ("log_probs_len", types.INT64, 1),
    ]
    sizes = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == [0, 0, 80], "batch and time are free"
    assert {one.domain: one.version for one in model.opset_import} == {"": 17}
    assert model.ir_version == 8, "ONNX Runtime 1.12 reads both"
    dims = [
        [dim.dim_param or dim.dim_value for dim in one.type.tensor_type.shape.dim]
        for one in model.graph.output
    ]
    assert dims == [["N", "frames", 11], ["N"]]
    metadata = {one.key: one.value for one in model.metadata_props}
    assert metadata["model_type"] == "zipformer2_ctc"
    assert metadata["vocab_size"] == "11"
    assert metadata["subsampling_factor"] == "4"
    assert metadata["subnet"] == LARGE


def test_artefacts_say_nothing_of_the_machine_they_were_made_on(
    exported: Exported, repository: Path
) -> None:
    for file in (exported.model, exported.program):
        content = file.read_bytes()
        for path in (str(repository), "site-packages", ".py"):
            assert path.encode() not in content, f"{path} in {file.name}"


def test_sherpa_onnx_hears_the_same_words(exported: Exported) -> None:
    import sherpa_onnx

    recognizer = sherpa_onnx.OfflineRecognizer.from_zipformer_ctc(
        model=str(exported.model), tokens=str(exported.folder / "tokens.txt"), num_threads=1
    )
    clips = [bursts(seconds, seed) for seed, seconds in enumerate((0.91, 1.27, 3.3, 2.0))]
    streams = []
    for clip in clips:
        stream = recognizer.create_stream()
        stream.accept_waveform(16000, clip)
        streams.append(stream)
    recognizer.decode_streams(streams)
    tokens, encoder = tiny_checkpoint().tokens, exported.encoder
    for clip, stream in zip(clips, streams, strict=True):
        x = fbank(clip)
        with torch.no_grad():
            log_probs, _ = encoder(x[None], torch.tensor([len(x)]))
        best, second = log_probs[0].topk(2, dim=-1).values.unbind(-1)
        assert (best - second).min() > 5e-3, "a clip whose symbols are too close to compare"
        text = greedy_text(log_probs[0].numpy(), tokens)
        assert len(text.split()) >= 3
        assert " ".join(stream.result.text.split()) == text


@pytest.mark.parametrize(("before", "expected"), [(None, "1"), ("0", "0")])
def test_onnx_runtime_is_told_not_to_report(before: str | None, expected: str) -> None:
    environment = {
        name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"
    }
    if before is not None:
        environment["ORT_DISABLE_TELEMETRY"] = before
    code = (
        "import ortho_export.onnx, os, sys; assert 'onnxruntime' not in sys.modules; "
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    said = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert said.strip() == expected
