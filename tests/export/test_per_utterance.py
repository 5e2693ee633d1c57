"""int8 in ONNX Runtime: an utterance is the same alone and in any batch, to the last bit."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from ortho_edge.checkpoint import load_checkpoint, shipped_checkpoint
from ortho_edge.compaction import compact
from ortho_edge.conformer.architecture import FrontEndKind
from ortho_edge.data.audio import load_audio
from ortho_edge.data.waveforms import each_cut, load_cut
from ortho_edge.decoding import greedy_text
from ortho_edge.training.corpora import DataOptions
from ortho_edge.training.speech_sets import speech_set
from ortho_export import onnx as models
from ortho_export.artefact import Recognizer, load_artefact
from ortho_export.batched import UtteranceEncoder
from ortho_export.facts import AUDIO_IN, FEATURES_IN, Facts
from ortho_export.words import utterances_of
from tests.export.tiny import bursts, tiny_checkpoint, utterance_graph
from tests.tolerances import tolerance

pytestmark = pytest.mark.export

CLIPS = [bursts(seconds, seed) for seed, seconds in enumerate((0.5, 1.13, 0.09, 0.77))]
LOUD = 30 * bursts(1.4, 9)
NOT_A_NUMBER = np.full(9000, np.nan, np.float32)


@pytest.fixture(scope="module", params=[FEATURES_IN, AUDIO_IN])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = tiny_checkpoint()
    encoder = compact(checkpoint.supernet, checkpoint.supernet.space.full())
    facts = Facts(
        subnet="s100", tokens=checkpoint.tokens, checkpoint_digest="", input=request.param
    )
    file = tmp_path_factory.mktemp("int8") / "model.int8.onnx"
    file.write_bytes(models.to_onnx(encoder, facts, "int8"))
    return file


@pytest.fixture(scope="module")
def recognizer(model: Path) -> Recognizer:
    return load_artefact(model)


def in_one_batch(recognizer: Recognizer, clips: list[np.ndarray]) -> list[np.ndarray]:
    """Log-probabilities of every clip, from one padded batch."""
    inputs = [recognizer.features(clip) for clip in clips]
    lengths = torch.tensor([len(one) for one in inputs])
    padded = pad_sequence(inputs, batch_first=True, padding_value=-23.0)
    found, counts = recognizer.encode_batch(padded, lengths)
    assert found.shape[1] == counts.max()
    return [one[:count].numpy() for one, count in zip(found, counts.tolist(), strict=True)]


@pytest.mark.parametrize(
    "neighbours", [[], [LOUD], [np.zeros(20000, np.float32)], [NOT_A_NUMBER]],
    ids=["others", "a loud one", "silence", "not a number"],
)  # fmt: skip
def test_neighbours_have_no_say(recognizer: Recognizer, neighbours: list[np.ndarray]) -> None:
    found = in_one_batch(recognizer, [*neighbours, *CLIPS])[len(neighbours) :]
    for clip, one in zip(CLIPS, found, strict=True):
        alone = recognizer.log_probs(recognizer.features(clip))
        np.testing.assert_array_equal(one, alone)


def test_padding_beyond_the_longest_is_silence_behind_it(recognizer: Recognizer) -> None:
    one = recognizer.features(CLIPS[0])
    wider = torch.cat([one, torch.full_like(one, 7.0)])[None]
    found, counts = recognizer.encode_batch(wider, torch.tensor([len(one)]))
    expected = recognizer.log_probs(one)
    assert counts.tolist() == [len(expected)]
    np.testing.assert_array_equal(found[0, : len(expected)].numpy(), expected)
    assert found.shape[1] == -(-int(recognizer.num_frames(torch.tensor(wider.shape[1]))) // 4)


def test_the_body_has_no_masks_and_all_the_weights(model: Path) -> None:
    content = onnx.load(model)
    body = utterance_graph(content)
    makers = {name: node.op_type for node in body.node for name in node.output}
    scores = [makers[node.input[0]] for node in body.node if node.op_type == "Softmax"]
    assert set(scores) == {"MatMul"}, "nothing is added to the scores of attention"
    assert "Mod" not in makers.values(), "frames are counted by the shape"
    outside = sum(len(one.raw_data) for one in content.graph.initializer)
    inside = sum(len(one.raw_data) for one in body.initializer)
    assert outside < 100 < 10_000 < inside


@pytest.mark.parametrize("kind", ["strided", "vgg"])
def test_without_masks_the_encoder_is_the_same(kind: FrontEndKind) -> None:
    supernet = tiny_checkpoint(kind).supernet.double()
    dense = compact(supernet, supernet.space.full())
    alone = UtteranceEncoder(dense)
    generator = torch.Generator().manual_seed(0)
    for frames in (9, 10, 11, 12, 101):
        x = 4 * torch.randn(1, frames, 80, generator=generator, dtype=torch.float64) - 8
        with torch.no_grad():
            expected, counts = dense(x, torch.tensor([frames]))
            found, found_counts = alone(x, torch.tensor([frames]))
        assert found_counts.tolist() == counts.tolist() == [found.shape[1]]
        torch.testing.assert_close(found, expected, **tolerance("float64_reordered"))


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Recognizer:
    """The smallest shipped size in int8."""
    checkpoint = load_checkpoint(shipped_checkpoint())
    trained = checkpoint.subnets[-1]
    encoder = compact(checkpoint.supernet, trained.subnet, trained.head)
    facts = Facts(subnet=trained.name, tokens=checkpoint.tokens, checkpoint_digest="")
    file = tmp_path_factory.mktemp("shipped") / "model.int8.onnx"
    file.write_bytes(models.to_onnx(encoder, facts, "int8"))
    return load_artefact(file)


def changed(recognizer: Recognizer, clips: list[np.ndarray]) -> list[int]:
    """Clips whose transcript is another in batches of 16, or there beside clicks and silence."""
    generator = np.random.default_rng(0)
    clicks = generator.normal(0, 0.3, 32000) * (np.arange(32000) % 8000 < 400)
    odd = [clicks.astype(np.float32), np.zeros(16000, np.float32)]
    found = []
    for first in range(0, len(clips), 16):
        batch = clips[first : first + 16]
        alone = [recognizer.transcribe(clip) for clip in batch]
        for others in ([], odd):
            rows = in_one_batch(recognizer, [*batch, *others])[: len(batch)]
            texts = [greedy_text(one, recognizer.tokens) for one in rows]
            found += [first + index for index in range(len(batch)) if texts[index] != alone[index]]
    return found


@pytest.mark.slow
def test_no_utterance_of_the_sample_changes_in_a_batch(shipped: Recognizer) -> None:
    clips = list(utterances_of(load_audio(shipped_checkpoint() / "sample.flac")).values())
    assert changed(shipped, clips) == []


@pytest.mark.slow
@pytest.mark.data
def test_none_of_200_utterances_of_another_voice_changes_in_a_batch(
    shipped: Recognizer, data_root: Path
) -> None:
    cuts = list(each_cut(speech_set("digits/unseen", DataOptions(root=data_root))))[:200]
    assert len(cuts) == 200
    assert changed(shipped, [load_cut(cut) for cut in cuts]) == []
