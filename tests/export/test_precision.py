"""Quantised artefacts: close to the float encoder, the same contract, small where it counts."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jiwer
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from ortho_edge.compaction import DenseEncoder
from ortho_edge.devices.latency import Prediction
from ortho_export import quantized_model, report
from ortho_export.artefact import load_artefact
from ortho_export.batched import BatchedEncoder
from ortho_export.facts import MAX_FRAMES, MIN_FRAMES
from ortho_export.fidelity import FLOORS_DB, decibels, powers
from ortho_export.manifest import MANIFEST, read_manifest
from ortho_export.opset import IR_VERSION
from ortho_export.verify import OTHER, complain, verify
from tests.export.tiny import Exported, bursts, utterance_graph

pytestmark = pytest.mark.export


def features(frames: int) -> torch.Tensor:
    return 4 * torch.randn(1, frames, 80, generator=torch.Generator().manual_seed(frames)) - 8


def eager(encoder: DenseEncoder, x: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return encoder(x, torch.tensor([x.shape[1]]))[0][0].numpy()


@pytest.fixture(scope="module", params=["program", "model"])
def artefact(exported_int8: Exported, request: pytest.FixtureRequest) -> Path:
    return getattr(exported_int8, request.param)


def test_files_say_their_precision(exported_int8: Exported) -> None:
    assert {one.name for one in exported_int8.folder.iterdir()} == {
        "model.int8.pte", "model.int8.onnx", "tokens.txt", "manifest.json", "model_card.md",
    }  # fmt: skip
    manifest = read_manifest(exported_int8.folder)
    assert manifest is not None
    for name in ("model.int8.pte", "model.int8.onnx"):
        file = manifest["files"][name]
        assert file["precision"] == "int8"
        assert "parity" not in file, "which says how fp32 artefacts agree"
        fidelity = file["fidelity"]
        assert fidelity["floor_db"] <= fidelity["snr_db"] < 80
        assert {MIN_FRAMES, MAX_FRAMES} <= set(fidelity["frames"].values())
        assert f"file size, {name}" in exported_int8.printed
        assert f"agreement, {name}" in exported_int8.printed


def test_the_latency_is_predicted_with_the_figures_of_int8(exported_int8: Exported) -> None:
    lines = [
        line for line in exported_int8.printed.splitlines() if line.startswith("predicted latency")
    ]
    assert len(lines) == 2
    for line in lines:
        assert line.endswith("not timed: an analytic estimate")
        assert "not predicted" not in line
    manifest = read_manifest(exported_int8.folder)
    assert manifest is not None
    assert {one["precision"] for one in manifest["latency"]["predicted"]} == {"int8"}


def test_a_latency_that_nobody_predicted_is_not_passed_off() -> None:
    plain = Prediction(
        milliseconds=2.0, seconds=5.0, runtime="executorch", provenance="analytic", source=""
    )
    export: Any = SimpleNamespace(
        selection=SimpleNamespace(
            budget=SimpleNamespace(audio_seconds=5.0), chosen=SimpleNamespace(latency=(plain,))
        ),
        request=SimpleNamespace(
            input="features", profile=SimpleNamespace(name="board"), is_for_this_host=False
        ),
        precisions={"executorch": "int8"},
        latency=(),
        checks=(),
    )
    assert list(report._latency_rows(export)) == [
        (
            "predicted latency, executorch",
            "not predicted for int8; the budget was held with fp32: "
            "2.00 ms for 5 s on board, not timed: an analytic estimate",
        )
    ]


def test_every_length_between_the_bounds(artefact: Path, exported: Exported) -> None:
    recognizer, encoder = load_artefact(artefact), exported.encoder
    for frames in (MAX_FRAMES, MIN_FRAMES, 10, 11, 12, 101, MAX_FRAMES - 1, 250):
        x = features(frames)
        expected, found = eager(encoder, x), recognizer.log_probs(x[0])
        assert found.shape == expected.shape
        assert decibels(*powers(expected, found)) > FLOORS_DB["int8"]
        np.testing.assert_allclose(np.exp(found).sum(-1), 1, atol=1e-5)


def test_rounding_is_really_there(exported_int8: Exported, exported: Exported) -> None:
    x = features(300)
    expected = eager(exported.encoder, x)
    for path in (exported_int8.program, exported_int8.model):
        assert decibels(*powers(expected, load_artefact(path).log_probs(x[0]))) < 80


def test_symmetric_weights_have_no_zero_points(exported_int8: Exported) -> None:
    nodes = utterance_graph(onnx.load(exported_int8.model)).node
    products = [node for node in nodes if node.op_type == "MatMulInteger"]
    assert products
    assert {len(node.input) for node in products} == {3}


def test_facts_survive(artefact: Path, exported: Exported) -> None:
    found, expected = load_artefact(artefact), load_artefact(exported.program)
    for name in ("subnet", "tokens", "min_frames", "max_frames"):
        assert getattr(found, name) == getattr(expected, name)


def test_the_contract_of_sherpa_onnx_survives(exported_int8: Exported, exported: Exported) -> None:
    quantised, plain = onnx.load(exported_int8.model), onnx.load(exported.model)
    onnx.checker.check_model(quantised)
    assert quantised.graph.input == plain.graph.input
    assert quantised.graph.output == plain.graph.output
    assert quantised.metadata_props == plain.metadata_props
    assert quantised.opset_import == plain.opset_import


def test_sherpa_onnx_reads_it(exported_int8: Exported) -> None:
    import sherpa_onnx

    recognizer = sherpa_onnx.OfflineRecognizer.from_zipformer_ctc(
        model=str(exported_int8.model),
        tokens=str(exported_int8.folder / "tokens.txt"),
        num_threads=1,
    )
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, bursts(2.35))
    recognizer.decode_stream(stream)
    text = load_artefact(exported_int8.model).transcribe(bursts(2.35))
    assert text
    # Its features differ in the last digits, its ONNX Runtime is another: rounding may, too.
    assert jiwer.cer(text, " ".join(stream.result.text.split())) < 0.2


def test_all_weights_of_linear_layers_and_convolutions_and_no_others_are_bytes(
    exported_int8: Exported, exported: Exported
) -> None:
    graph = utterance_graph(onnx.load(exported_int8.model))
    found = [
        numpy_helper.to_array(one).size
        for one in graph.initializer
        if one.data_type == onnx.TensorProto.INT8 and len(one.dims) > 1
    ]
    kinds = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d)
    layers = [one for one in BatchedEncoder(exported.encoder).modules() if isinstance(one, kinds)]
    assert sorted(found) == sorted(layer.weight.numel() for layer in layers)


def test_small_convolutions_cost_nothing_once_a_model_is_loaded(
    exported_int8: Exported, tmp_path: Path
) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(exported_int8.model, options, providers=["CPUExecutionProvider"])
    graph = utterance_graph(onnx.load(tmp_path / "optimised.onnx"))
    constants = {one.name for one in graph.initializer}
    convolutions = [node for node in graph.node if "Conv" in node.op_type]
    kinds = [node.op_type for node in convolutions]
    assert sorted(kinds) == ["Conv", "FusedConv", "QLinearConv"]
    # Behind the input and its scale and zero stands the weight of an integer convolution.
    places = [3 if kind == "QLinearConv" else 1 for kind in kinds]
    assert all(
        node.input[place] in constants for node, place in zip(convolutions, places, strict=True)
    )


def test_a_constant_that_is_no_weight_of_the_encoder_is_left_alone(exported: Exported) -> None:
    model, encoder = onnx.load(exported.model), BatchedEncoder(exported.encoder)
    ours = quantized_model.linear_nodes(model, encoder)
    ones = numpy_helper.from_array(np.ones((80, 80), np.float32), "mel")
    model.graph.initializer.append(ones)
    node = onnx.helper.make_node("MatMul", ["x", "mel"], ["melled"], name="filters")
    model.graph.node.append(node)
    assert quantized_model.linear_nodes(model, encoder) == ours
    assert len(ours) == len(set(ours)) == 13


def test_one_layer_against_quantisation_by_hand() -> None:
    """8-bit inputs with one scale, 7-bit weights with one per column, integers added exactly."""
    torch.manual_seed(3)
    layer = torch.nn.Linear(24, 7, bias=False)
    x = np.random.default_rng(0).standard_normal((5, 24)).astype(np.float32)
    weight = layer.weight.detach().T.contiguous().numpy()
    product = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    graph = onnx.helper.make_graph(
        [product],
        "one",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [5, 24])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [5, 7])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    model.ir_version = IR_VERSION
    session = onnxruntime.InferenceSession(
        quantized_model.quantized(model, layer, "int8").SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    found = np.asarray(session.run(None, {"x": x})[0])

    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / 255
    zero = np.round(-low / scale)
    rounded = np.clip(np.round(x / scale) + zero, 0, 255) - zero
    scales = 2 * np.abs(weight).max(0) / 128
    integers = np.clip(np.round(weight / scales), -64, 64)
    expected = scale * scales * (rounded @ integers)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(found - x @ weight).max() > 1e-4


def test_an_int8_export_can_be_verified(exported_int8: Exported) -> None:
    checks = verify(exported_int8.folder, exported_int8.checkpoint)
    # Of a quantised clip another processor may hear another word, and that alone.
    others = [one for one in checks if one.outcome != "ok"]
    assert all(one.outcome == "differs" and "transcript" in one.what for one in others), checks
    details = {one.what: one.detail for one in checks}
    for file in (exported_int8.program.name, exported_int8.model.name):
        assert "dB of at least 30" in details[f"{file}: parity"]
        assert "words the same, 95 % interval" in details[f"{file}: parity"]


def test_another_processors_words_for_the_sample_are_told_and_not_wrong(
    exported_int8: Exported, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exported_int8.folder, tmp_path / "device"))
    manifest = read_manifest(folder)
    assert manifest is not None
    name = exported_int8.model.name
    manifest["sample"]["heard"][name] += " ONE"
    manifest["files"][name]["fidelity"]["machine"] = "Another"
    (folder / MANIFEST).write_text(json.dumps(manifest))
    checks = {one.what: one for one in verify(folder, exported_int8.checkpoint)}
    found = checks[f"{name}: transcript of the sample"]
    assert found.outcome == OTHER
    assert re.search(r" ONE. where it was made, on Another$", found.detail)
    complain(folder, tuple(checks.values()))


def test_the_card_says_how_much_survives(exported_int8: Exported) -> None:
    card = (exported_int8.folder / "model_card.md").read_text("utf-8")
    for file in (exported_int8.program.name, exported_int8.model.name):
        (line,) = (one for one in card.splitlines() if f"| `{file}` | int8 against" in one)
        assert re.search(r"% of [\d,]+ words the same, 95 % interval [\d.]+ to [\d.]+ \(", line)
        assert re.search(r"; on [^|]+ \|$", line), "the machine"
    assert "predicted for pixel8 in int8, not timed: an analytic estimate" in card
