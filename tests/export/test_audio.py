"""Audio as input: the filter banks inside are Kaldi's, for every number of samples."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ortho_edge import evaluate
from ortho_edge.cli import UserError
from ortho_edge.data.audio import load_audio
from ortho_edge.data.features import num_frames
from ortho_export import audio
from ortho_export.artefact import load_artefact
from ortho_export.audio import AudioModel, AudioProgram, room_for, with_room
from ortho_export.executorch import Delegation
from ortho_export.facts import MAX_FRAMES, MIN_FRAMES, samples_of
from ortho_export.manifest import read_manifest
from ortho_export.parity import AUDIO_LIMIT, check_parity
from ortho_export.quiet import quiet_stderr
from ortho_export.ties import could_say
from ortho_export.verify import GOOD, verify
from tests.data.generated import kaldi_fbank, speech_like
from tests.data.test_features import assert_same_features, signals
from tests.export.tiny import Exported, bursts
from tests.tolerances import tolerance

SHORTEST, LONGEST = samples_of(MIN_FRAMES)[0], samples_of(MAX_FRAMES)[1]


class Features(nn.Module):
    """In place of an encoder, so that the filter banks come out."""

    def forward(self, features: Tensor, *lengths: Tensor) -> Any:
        return (features, *lengths) if lengths else features


PROGRAM, MODEL = AudioProgram(Features()), AudioModel(Features())


def one(samples: np.ndarray) -> Tensor:
    """Features by the path of a program."""
    utterance = torch.from_numpy(samples)[None]
    return PROGRAM(with_room(utterance), torch.tensor([len(samples)]))[0]


def padded(samples: list[np.ndarray], padding: float) -> tuple[Tensor, Tensor]:
    """Features by the path of a model, and their lengths."""
    lengths = torch.tensor([len(each) for each in samples])
    batch = torch.full((len(samples), int(lengths.max())), padding)
    for row, each in zip(batch, samples, strict=True):
        row[: len(each)] = torch.from_numpy(each)
    return MODEL(batch, lengths)


@pytest.mark.parametrize("name", signals())
def test_generated_audio_agrees_with_kaldi(name: str) -> None:
    samples = signals()[name]
    assert_same_features(one(samples), kaldi_fbank(samples))
    features, lengths = padded([samples], 0.0)
    assert lengths.tolist() == [num_frames(len(samples))]
    assert_same_features(features[0], kaldi_fbank(samples))


@settings(deadline=None)  # a busy machine is not a failure
@given(
    numbers=st.lists(st.integers(SHORTEST, 2500), min_size=1, max_size=3),
    padding=st.sampled_from([0.0, 1e4, -23.0]),
    seed=st.integers(0, 99),
)
def test_any_number_of_samples_and_any_padding_agrees_with_kaldi(
    numbers: list[int], padding: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    clips = [0.1 * generator.standard_normal(number).astype(np.float32) for number in numbers]
    features, lengths = padded(clips, padding)
    assert lengths.tolist() == [num_frames(number) for number in numbers]
    for clip, row, length in zip(clips, features, lengths, strict=True):
        expected = kaldi_fbank(clip)
        assert_same_features(row[:length], expected)
        room = with_room(torch.from_numpy(clip)[None])
        room[:, len(clip) :] = padding
        assert_same_features(PROGRAM(room, torch.tensor([len(clip)]))[0], expected)


@pytest.mark.data
@pytest.mark.parametrize(
    "pattern",
    ["librivox/audio/*.flac", "fsdd/audio/*_[0-4].flac", "speechocean762/dev/audio/*.opus"],
)
def test_real_clips_agree_with_kaldi(data_root: Path, pattern: str) -> None:
    clips = sorted(data_root.glob(pattern))
    assert clips
    for clip in clips[:: max(1, len(clips) // 20)]:
        samples = load_audio(clip)
        assert_same_features(one(samples), kaldi_fbank(samples))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PREEMPHASIS", 0.0), ("POVEY_POWER", 1.0), ("LOW_HZ", 60.0), ("HIGH_HZ", 8000.0),
        ("FLOOR", 1e-10),
    ],
)  # fmt: skip
def test_the_comparison_sees_one_wrong_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    samples = speech_like(1.0, 16000, seed=2) + np.float32(0.01)
    samples[:1600] = 0
    monkeypatch.setattr(audio, name, value)
    wrong = AudioProgram(Features())
    found = wrong(with_room(torch.from_numpy(samples)[None]), torch.tensor([len(samples)]))[0]
    with pytest.raises(AssertionError):
        assert_same_features(found, kaldi_fbank(samples))


def test_the_room_for_samples() -> None:
    for number in (SHORTEST, 16000, 16079, 16080, LONGEST):
        room = with_room(torch.ones(1, number))
        assert room.shape == (1, room_for(num_frames(number)))
        assert room.shape[1] > number
        assert room.sum() == number


@pytest.mark.export
class TestArtefacts:
    """What the export command writes with `--input audio`."""

    def test_names_and_manifest(self, exported_audio: Exported) -> None:
        manifest = read_manifest(exported_audio.folder)
        assert manifest is not None
        artefacts = {name for name, one in manifest["files"].items() if "runtime" in one}
        assert artefacts == {"model.audio.pte", "model.audio.onnx"}
        assert {manifest["files"][name]["input"] for name in artefacts} == {"audio"}
        bounds = manifest["bounds"]
        assert (bounds["min_samples"], bounds["max_samples"]) == (SHORTEST, LONGEST)
        assert [num_frames(bounds[name]) for name in ("min_samples", "max_samples")] == [9, 3000]
        assert [num_frames(SHORTEST - 1), num_frames(LONGEST + 1)] == [8, 3001]
        assert exported_audio.printed.count("filter banks included (") == 2

    def test_every_number_of_samples_is_heard_alike(self, exported_audio: Exported) -> None:
        numbers = [SHORTEST, 1361, 1439, 1440, 1519, 1520, 15999, 16079, 16080, 16081, LONGEST]
        clips = {str(number): bursts(30.1, seed=number % 7)[:number] for number in numbers}
        features = load_artefact(exported_audio.checkpoint)
        for path in (exported_audio.program, exported_audio.model):
            recognizer = load_artefact(path)
            assert recognizer.takes_audio
            check_parity(exported_audio.encoder, recognizer, clips)
            texts = [recognizer.transcribe(clip) for clip in clips.values()]
            for clip, text in zip(clips.values(), texts, strict=True):
                expected = features.log_probs(features.features(clip))
                assert could_say(expected, text, features.tokens, AUDIO_LIMIT)
            assert len(texts[-1].split()) > 3

    def test_what_stands_behind_the_samples_never_matters(self, exported_audio: Exported) -> None:
        from executorch.runtime import Runtime

        with quiet_stderr():
            method = Runtime.get().load_program(exported_audio.program).load_method("forward")
        assert method is not None
        number = torch.tensor([15999])
        outputs = []
        for padding in (0.0, 1e6, float("nan")):
            room = with_room(torch.from_numpy(bursts(1.0)[None, :15999]))
            room[:, 15999:] = padding
            outputs.append(method.execute([room, number])[0].clone())
        torch.testing.assert_close(outputs[1], outputs[0], **tolerance("exact"))
        torch.testing.assert_close(outputs[2], outputs[0], **tolerance("exact"))

    def test_audio_beyond_the_bounds(self, exported_audio: Exported) -> None:
        for path in (exported_audio.program, exported_audio.model):
            recognizer = load_artefact(path)
            with pytest.raises(UserError, match=rf"longer than the 30\.00 s that {path.name}"):
                recognizer.transcribe(bursts(30.1)[: LONGEST + 1])
            with pytest.raises(UserError, match=r"0\.08 s long, shorter than the 0\.09 s"):
                recognizer.transcribe(bursts(1.0)[: SHORTEST - 1])
            with pytest.raises(UserError, match="longer"):
                recognizer.encode_batch(torch.zeros(1, LONGEST + 1), torch.tensor([LONGEST + 1]))

    def test_delegation(self, exported_audio: Exported) -> None:
        manifest = read_manifest(exported_audio.folder)
        assert manifest is not None
        delegation = Delegation(**manifest["files"]["model.audio.pte"]["delegation"])
        assert delegation.subgraphs <= 4
        assert set(delegation.outside) <= AUDIO_OUTSIDE

    def test_constants(self, exported_audio: Exported) -> None:
        import onnx

        stated = {item.key: item.value for item in onnx.load(exported_audio.model).metadata_props}
        assert (stated["input"], stated["model_type"]) == ("audio", "audio_ctc")
        assert stated["max_samples"] == str(LONGEST)
        features = json.loads(stated["features"])
        assert features["sample_rate"] == 16000

    def test_it_verifies(self, exported_audio: Exported) -> None:
        checks = verify(exported_audio.folder, exported_audio.checkpoint)
        assert {one.outcome for one in checks} == {GOOD}

    def test_evaluation_hears_what_transcription_hears(
        self, exported_audio: Exported, exported: Exported, tmp_path: Path
    ) -> None:
        set_of_two = _labelled(tmp_path / "set", [bursts(1.7), bursts(2.6, seed=1)])
        heard = {}
        for model in (exported_audio.program, exported_audio.model, exported.program):
            out = tmp_path / f"{model.name}.json"
            evaluate.main(evaluate.Arguments(model, set=str(set_of_two), out=out))
            (result,) = json.loads(out.read_text())["results"].values()
            heard[model.name] = {one["cut_id"]: one["hypothesis"] for one in result["transcripts"]}
        first, *others = heard.values()
        assert len(first) == 2
        assert all(first.values())
        assert others == [first, first]

    def test_evaluation_hears_what_is_too_long_in_pieces(
        self, exported_audio: Exported, tmp_path: Path
    ) -> None:
        set_of_one = _labelled(tmp_path / "set", [np.concatenate([bursts(15.2), bursts(16)])])
        results = []
        for model in (exported_audio.program, exported_audio.model):
            out = tmp_path / f"{model.name}.json"
            evaluate.main(evaluate.Arguments(model, set=str(set_of_one), out=out))
            (found,) = json.loads(out.read_text("utf-8"))["results"].values()
            assert found["not_scored"] == {}
            assert found["seconds"] == pytest.approx(31.2)
            results.append([one["hypothesis"] for one in found["transcripts"]])
        assert results[0] == results[1]
        assert results[0][0]


def _labelled(folder: Path, clips: list[np.ndarray]) -> Path:
    """A folder of labelled speech."""
    (folder / "audio").mkdir(parents=True)
    lines = ["utterance\tspeaker\ttext"]
    for index, clip in enumerate(clips):
        soundfile.write(folder / "audio" / f"clip-{index}.flac", clip, 16000)
        lines.append(f"clip-{index}\tnobody\tONE TWO")
    (folder / "transcripts.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


AUDIO_OUTSIDE = {
    # Mirroring the ends, by the number of samples.
    "aten_slice_copy_tensor", "aten_flip_default", "sym_size", "sub", "scalar_tensor",
    "aten_sub_tensor", "aten_lt_tensor", "aten_mul_tensor", "aten_where_self", "aten_index_tensor",
    "aten_cat_default", "aten_unsqueeze_copy_default", "dim_order_ops__to_dim_order_copy_default",
    # As in a program of features.
    "aten__log_softmax_default", "getitem",
}  # fmt: skip
"""What XNNPACK may leave to other kernels."""
