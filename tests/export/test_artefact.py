"""A recognizer is the same whatever it is loaded from, and says what is wrong with a file."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ortho_edge.cli import UserError
from ortho_edge.data.audio import load_audio
from ortho_edge.data.features import fbank
from ortho_edge.decoding import greedy_text
from ortho_export.artefact import load_artefact
from tests.export.tiny import LARGE, SMALL, Exported, bursts
from tests.tolerances import tolerance

pytestmark = pytest.mark.export


def sources(exported: Exported) -> list[Path]:
    return [exported.program, exported.model, exported.checkpoint]


def test_all_sources_transcribe_alike(exported: Exported) -> None:
    samples = load_audio(exported.checkpoint / "sample.flac")
    texts = {load_artefact(path).transcribe(samples) for path in sources(exported)}
    (text,) = texts
    x = fbank(samples)
    with torch.no_grad():
        log_probs, _ = exported.encoder(x[None], torch.tensor([len(x)]))
    tokens = load_artefact(exported.checkpoint).tokens
    assert text == greedy_text(log_probs[0].numpy(), tokens)
    assert len(text.split()) > 3


def test_all_sources_encode_a_batch_alike(exported: Exported) -> None:
    clips = [fbank(bursts(seconds)) for seconds in (0.5, 1.13, 0.2)]
    lengths = torch.tensor([len(one) for one in clips])
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    expected, expected_len = exported.encoder(batch, lengths)
    for path in sources(exported):
        log_probs, log_probs_len = load_artefact(path, threads=2).encode_batch(batch, lengths)
        assert log_probs_len.equal(expected_len)
        for found, wanted, length in zip(log_probs, expected, expected_len, strict=True):
            torch.testing.assert_close(
                found[:length], wanted[:length].detach(), **tolerance("parity_float32")
            )


def test_a_subnet_of_a_checkpoint(exported: Exported) -> None:
    x = fbank(bursts(0.7))
    found = load_artefact(exported.checkpoint, subnet=SMALL)
    with torch.no_grad():
        expected, _ = exported.encoder_of(SMALL)(x[None], torch.tensor([len(x)]))
    assert found.subnet == SMALL
    torch.testing.assert_close(found.log_probs(x), expected[0].numpy(), **tolerance("exact"))
    assert load_artefact(exported.checkpoint).subnet == LARGE


def test_audio_beyond_the_bounds(exported: Exported) -> None:
    for path in sources(exported)[:2]:
        recognizer = load_artefact(path)
        with pytest.raises(
            UserError, match=rf"30\.01 s long, longer than the 30\.00 s .*{path.name}"
        ):
            recognizer.transcribe(bursts(30.01))
        with pytest.raises(UserError, match=r"0\.08 s long, shorter than the 0\.09 s"):
            recognizer.transcribe(bursts(0.08))
        with pytest.raises(UserError, match="longer"):
            recognizer.encode_batch(torch.zeros(2, 3001, 80), torch.tensor([3000, 3001]))
        assert recognizer.transcribe(bursts(30.0))
        recognizer.transcribe(bursts(0.09))


def test_a_checkpoint_has_no_longest_input(exported: Exported) -> None:
    assert load_artefact(exported.checkpoint).transcribe(bursts(31.0))


@pytest.mark.parametrize("name", ["model.pte", "model.onnx"])
@pytest.mark.parametrize("left", [0, 3, 100, 0.3, 0.7, 0.999])
def test_a_truncated_file(
    exported: Exported, tmp_path: Path, name: str, left: float, capfd: pytest.CaptureFixture[str]
) -> None:
    content = (exported.folder / name).read_bytes()
    kept = int(left * len(content)) if isinstance(left, float) else left
    (tmp_path / name).write_bytes(content[:kept])
    with pytest.raises(UserError, match=f"{name} is .*truncated"):
        load_artefact(tmp_path / name)
    assert capfd.readouterr().err == "", "native code must not report it too"


@pytest.mark.parametrize("name", ["model.pte", "model.onnx"])
def test_a_file_that_is_something_else(exported: Exported, tmp_path: Path, name: str) -> None:
    for content in (b"not a model " * 100, (exported.folder / "tokens.txt").read_bytes()):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            load_artefact(tmp_path / name)


@pytest.mark.parametrize("name", ["model.pte", "model.onnx"])
def test_a_file_that_its_manifest_does_not_know(
    exported: Exported, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported.folder, folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match="SHA-256"):
        load_artefact(folder / name)


def test_an_onnx_model_of_somebody_else(exported: Exported, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(exported.model)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(UserError, match="no artefact of this project: it does not state"):
        load_artefact(tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["model.pte", ""])
def test_a_folder_between_two_names_is_found(exported: Exported, tmp_path: Path, name: str) -> None:
    # What a kill between the two renames leaves where folders cannot be exchanged.
    source = exported.folder if name else exported.checkpoint
    shutil.copytree(source, tmp_path / ".device.abcdefgh.partial" / "old")
    assert load_artefact(tmp_path / "device" / name).subnet == LARGE
    assert [path.name for path in tmp_path.iterdir()] == ["device"]


def test_mistakes_are_named(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"x")
    for path, options, message in [
        (tmp_path / "nowhere.pte", {}, "no model at"),
        (
            tmp_path / "model.tflite",
            {},
            r"no \.pte, \.onnx or \.ort file and no checkpoint",
        ),
        (tmp_path, {}, "incomplete"),
        (exported.folder, {}, r"name one of model\.onnx, model\.pte"),
        (exported.program, {"subnet": SMALL}, "one subnet only"),
        (exported.program, {"threads": 0}, "threads"),
        (
            exported.checkpoint,
            {"subnet": "s999"},
            f"unknown subnet 's999'; known: {LARGE}, {SMALL}",
        ),
    ]:
        with pytest.raises(UserError, match=message):
            load_artefact(path, **options)


def test_log_probs_are_probabilities(exported: Exported) -> None:
    for path in sources(exported):
        log_probs = load_artefact(path).log_probs(fbank(bursts(0.6)))
        np.testing.assert_allclose(np.exp(log_probs).sum(-1), 1, **tolerance("float32_reordered"))
