"""`--precision auto` takes the fastest precision that keeps the words, and says why."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from lhotse import CutSet
from lhotse.utils import fastcopy

from ortho_edge.checkpoint import load_checkpoint
from ortho_edge.cli import UserError
from ortho_edge.compaction import compact
from ortho_edge.data.audio import SAMPLE_RATE
from ortho_edge.devices.catalogue import load_profile
from ortho_edge.devices.profile import Budget, DeviceProfile
from ortho_edge.precision import Precision
from ortho_edge.training.corpora import DataOptions
from ortho_edge.training.speech_sets import speech_set
from ortho_export import pipeline
from ortho_export.accuracy import Accuracy, DevSet, alone, measure_accuracy
from ortho_export.artefact import load_artefact
from ortho_export.auto import choose
from ortho_export.measure import Latency
from ortho_export.results import EXECUTORCH, ONNXRUNTIME, Request
from ortho_export.writing import Job, Written
from tests.export.tiny import Exported, bursts

pytestmark = pytest.mark.export


@pytest.mark.parametrize(
    ("fp32", "wer", "milliseconds", "expected"),
    [
        (5.0, 5.0, (2.0, 1.0), "int8"),
        (5.0, 5.3, (2.0, 1.0), "int8"),
        (0.1 + 0.2, 0.6, (2.0, 1.0), "int8"),
        (5.0, 5.31, (2.0, 1.0), "fp32"),
        (5.0, 4.0, (1.0, 2.0), "fp32"),
        (5.0, 4.0, (1.0, 1.0), "fp32"),
    ],
)
def test_the_fastest_within_the_margin(
    fp32: float, wer: float, milliseconds: tuple[float, float], expected: Precision
) -> None:
    rates: list[tuple[Precision, float]] = [("fp32", fp32), ("int8", wer)]
    choice = choose(EXECUTORCH, rates, milliseconds, fp32, "measured on this host")
    assert choice.precision == expected
    assert [one.precision for one in choice.trials] == ["fp32", "int8"]
    assert choice.trials[0].accurate


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """A folder as a user would make it."""
    folder = tmp_path / "speech"
    (folder / "audio").mkdir(parents=True)
    rows = ["utterance\tspeaker\ttext"]
    for seed, words in enumerate(("ONE TWO", "FIVE", "THREE FOUR ONE")):
        soundfile.write(folder / "audio" / f"{seed}.flac", bursts(0.8 + seed, seed), SAMPLE_RATE)
        rows.append(f"{seed}\tme\t{words}")
    (folder / "transcripts.tsv").write_text("\n".join(rows) + "\n", "utf-8")
    return folder


def dev_set(folder: Path) -> DevSet:
    return DevSet(name="mine", cuts=speech_set(str(folder), DataOptions()))


def without_int8(profile: DeviceProfile) -> DeviceProfile:
    runtimes = {name: {"fp32": costs["fp32"]} for name, costs in profile.runtimes.items()}
    return dataclasses.replace(profile, runtimes=runtimes)


@pytest.fixture
def auto(exported: Exported, exported_int8: Exported, tmp_path: Path, speech: Path,
         monkeypatch: pytest.MonkeyPatch) -> Request:  # fmt: skip
    """A request for auto whose artefacts are those of the two exports."""

    def write(job: Job) -> Written:
        source = exported if job.precision == "fp32" else exported_int8
        content = (source.folder / job.file).read_bytes()
        return Written(file=job.file, content=content, delegation=None, seconds=1.0)

    monkeypatch.setattr(pipeline, "write_all", partial(map, write))
    return Request(
        profile=without_int8(load_profile("pixel8")),
        budget=Budget(latency_ms=1e3, audio_seconds=1.0),
        checkpoint=exported.checkpoint, out=tmp_path / "out", precision="auto",
        dev_set=dev_set(speech),
    )  # fmt: skip


def test_each_runtime_gets_its_own_precision(
    auto: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    def accuracy(*args: object) -> Accuracy:
        rates = {"model.pte": 4.0, "model.int8.pte": 4.2, "model.onnx": 4.0, "model.int8.onnx": 4.4}
        return Accuracy(name="mine", fp32=4.0, artefacts=rates, words=1000)

    def latency(recognizers: dict[str, object], seconds: float) -> tuple[Latency, ...]:
        return tuple(
            Latency(
                milliseconds=1.0 if "int8" in name else 2.0, seconds=seconds, runtime=name,
                where="here", spread_percent=0.0, p50_milliseconds=3.0,
            )
            for name in recognizers
        )  # fmt: skip

    monkeypatch.setattr(pipeline, "measure_accuracy", accuracy)
    monkeypatch.setattr(pipeline, "measure_latency", latency)
    result = pipeline.export(auto)
    assert result.precisions == {EXECUTORCH: "int8", ONNXRUNTIME: "fp32"}
    assert {one.name for one in auto.out.iterdir()} == {
        "model.int8.pte", "model.onnx", "tokens.txt", "manifest.json", "model_card.md",
    }  # fmt: skip
    assert set(result.fidelity) == {EXECUTORCH}
    assert set(result.parity) == {ONNXRUNTIME}
    assert {one.latency_from for one in result.choices} == {"measured on this host"}


def test_a_profile_with_figures_for_all_decides_by_them(auto: Request) -> None:
    def with_int8(profile: DeviceProfile, scale: float) -> DeviceProfile:
        runtimes = {
            name: {
                "fp32": costs["fp32"],
                "int8": dataclasses.replace(costs["fp32"], scale=scale * costs["fp32"].scale),
            }
            for name, costs in profile.runtimes.items()
        }
        return dataclasses.replace(profile, runtimes=runtimes)

    slow = dataclasses.replace(auto, profile=with_int8(auto.profile, 1.5))
    result = pipeline.export(slow)
    assert set(result.precisions.values()) == {"fp32"}
    assert {one.latency_from for one in result.choices} == {"predicted for the device"}
    assert result.accuracy is not None
    assert set(result.accuracy.artefacts) == {
        "model.pte", "model.int8.pte", "model.onnx", "model.int8.onnx",
    }  # fmt: skip
    assert result.accuracy.words == 6


def test_auto_without_speech_is_refused(auto: Request) -> None:
    with pytest.raises(UserError, match="--dev-set"):
        pipeline.export(dataclasses.replace(auto, dev_set=None))
    assert not auto.out.exists()


@pytest.mark.parametrize(
    ("change", "word"),
    [({"also": ("ort",)}, "fp32 encoder"), ({"input": "audio"}, "features as input, not audio")],
)
def test_what_does_not_go_together_is_refused(
    auto: Request, change: dict[str, Any], word: str
) -> None:
    with pytest.raises(UserError, match=word):
        pipeline.export(dataclasses.replace(auto, **change))
    assert not auto.out.exists()


def test_fp32_artefacts_make_the_errors_of_the_encoder(exported: Exported, speech: Path) -> None:
    artefacts = {
        path.name: load_artefact(path).encode_batch for path in (exported.program, exported.model)
    }
    tokens = load_artefact(exported.program).tokens
    found = measure_accuracy(exported.encoder, artefacts, dev_set(speech), tokens)
    assert set(found.artefacts.values()) == {found.fp32}
    assert found.fp32 > 0


def test_children_and_adults_are_counted_apart(
    checkpoint_folder: Path, speech: Path, tmp_path: Path
) -> None:
    """An encoder that hears nothing misses every word of both."""
    checkpoint = load_checkpoint(checkpoint_folder)
    trained = checkpoint.subnets[0]
    encoder = compact(checkpoint.supernet, trained.subnet, trained.head)

    def deaf(features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        log_probs, frames = encoder(features, lengths)
        blank = torch.zeros_like(log_probs)
        blank[..., 0] = 1
        return blank, frames

    plain = dev_set(speech)
    cuts = CutSet.from_cuts(
        fastcopy(cut, custom={"age": age}) for cut, age in zip(plain.cuts, (9, 40, 50), strict=True)
    )
    found = measure_accuracy(
        encoder, {"model.pte": deaf}, DevSet(name="mine", cuts=cuts), checkpoint.tokens
    )
    assert [one.name for one in found.groups] == ["adults", "children"]
    assert sum(one.words for one in found.groups) == found.words
    assert all(one.artefacts == {"model.pte": 100.0} for one in found.groups)
    weighted = sum(one.fp32 * one.words for one in found.groups) / found.words
    assert weighted == pytest.approx(found.fp32)
    assert measure_accuracy(encoder, {}, plain, checkpoint.tokens).groups == ()


def test_speech_without_words_is_refused(exported: Exported, speech: Path) -> None:
    (speech / "transcripts.tsv").write_text("utterance\tspeaker\ttext\n0\tme\t\n", "utf-8")
    tokens = load_artefact(exported.checkpoint).tokens
    with pytest.raises(UserError, match=r"1 of 1 utterances cannot be scored \(1 no ref"):
        measure_accuracy(exported.encoder, {}, dev_set(speech), tokens)


def test_an_unknown_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown set 'nowhere'.*digits"):
        speech_set("nowhere", DataOptions())
    with pytest.raises(UserError, match=r"no transcripts\.tsv"):
        speech_set(str(tmp_path), DataOptions())


def test_alone_means_without_neighbours() -> None:
    seen = []

    def encoder(x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(tuple(x.shape))
        return x[:, ::4], (lengths + 3) // 4

    x = torch.arange(2 * 9.0)[:, None].view(2, 9, 1)
    output, lengths = alone(encoder)(x, torch.tensor([9, 5]))
    assert seen == [(1, 9, 1), (1, 5, 1)]
    assert lengths.tolist() == [3, 2]
    assert output[1, :2].equal(x[1, :5:4])
