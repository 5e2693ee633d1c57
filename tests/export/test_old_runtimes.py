"""ONNX files in the oldest runtimes that are named: `make test-old-runtimes`."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
import pytest

from ortho_edge.checkpoint import load_checkpoint, shipped_checkpoint
from ortho_edge.compaction import compact
from ortho_edge.data.audio import load_audio
from ortho_edge.data.features import fbank
from ortho_edge.precision import PRECISIONS, Precision, precision_of
from ortho_edge.tokens import Tokens
from ortho_export import onnx
from ortho_export.calibration import calibration_features
from ortho_export.facts import AUDIO_IN, FEATURES_IN, MAX_FRAMES, MIN_FRAMES, Facts
from ortho_export.fidelity import FLOORS_DB, decibels, powers
from ortho_export.parity import AUDIO_LIMIT, FP32_LIMIT, encode
from ortho_export.results import ONNXRUNTIME, file_name
from ortho_export.ties import could_say

pytestmark = [pytest.mark.export, pytest.mark.slow]

VARIABLE = "ORTHO_EDGE_OLD_RUNTIMES"
WORDS = "SEVEN TWO NINE FOUR ONE FIVE"
MADE: list[tuple[str, Precision]] = [
    *((FEATURES_IN, one) for one in PRECISIONS), (AUDIO_IN, "fp32"), (AUDIO_IN, "int8")
]  # fmt: skip
FILES = [file_name(ONNXRUNTIME, takes, precision) for takes, precision in MADE]


@dataclass(frozen=True, kw_only=True)
class Old:
    """What the old runtimes made of the smallest shipped size, and what is right."""

    versions: dict[str, str]
    outputs: dict[str, np.ndarray]
    heard: dict[str, str]
    expected: dict[str, np.ndarray]
    tokens: Tokens


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Old:
    environment = os.environ.get(VARIABLE)
    if not environment:
        pytest.skip("`make test-old-runtimes` runs it, in an environment of its own")
    folder = tmp_path_factory.mktemp("old")
    checkpoint = load_checkpoint(shipped_checkpoint())
    trained = checkpoint.subnets[-1]
    encoder = compact(checkpoint.supernet, trained.subnet, trained.head)
    clip = load_audio(shipped_checkpoint() / "sample.flac")
    speech = calibration_features(clip, None, checkpoint.tokens, MIN_FRAMES, MAX_FRAMES)
    for file, (takes, precision) in zip(FILES, MADE, strict=True):
        facts = Facts(
            subnet=trained.name, tokens=checkpoint.tokens, checkpoint_digest="", input=takes
        )
        used = speech if precision == "int8-static" else ()
        (folder / file).write_bytes(onnx.to_onnx(encoder, facts, precision, calibration=used))
    (folder / "tokens.txt").write_text(checkpoint.tokens.lines(), "utf-8")
    parts = {"samples": clip, "first": clip[:30_000], "second": clip[20_000:41_237]}
    np.savez(folder / "inputs.npz", **{name: fbank(one).numpy() for name, one in parts.items()})
    np.save(folder / "samples.npy", clip)
    worker = Path(__file__).with_name("old_runtimes.py")
    python = Path(environment).absolute() / "bin" / "python"
    run = subprocess.run(
        [python, "-I", worker, folder], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    said = json.loads((folder / "heard.json").read_text())
    return Old(
        versions=said["versions"],
        outputs=dict(np.load(folder / "outputs.npz")),
        heard=said["heard"],
        expected={name: encode(encoder, one) for name, one in parts.items()},
        tokens=checkpoint.tokens,
    )


def test_the_versions_are_those_that_the_model_card_names(old: Old) -> None:
    assert old.versions == onnx.OLDEST


@pytest.mark.parametrize("file", FILES)
def test_log_probabilities_in_the_oldest_onnx_runtime(old: Old, file: str) -> None:
    precision, names = precision_of(file), {one.split("/")[1] for one in old.outputs}
    for name in ["samples"] if ".audio." in file else sorted(names):
        expected = old.expected[name]
        for found in (old.outputs[f"{file}/{name}/{how}"] for how in ("alone", "batch")):
            assert found.shape == expected.shape
            if precision == "fp32":
                limit = AUDIO_LIMIT if ".audio." in file else FP32_LIMIT
                np.testing.assert_allclose(found, expected, rtol=0, atol=limit)
            else:
                assert decibels(*powers(expected, found)) >= FLOORS_DB[precision]
        if precision == "int8":
            np.testing.assert_array_equal(
                old.outputs[f"{file}/{name}/alone"], old.outputs[f"{file}/{name}/batch"]
            )


@pytest.mark.parametrize("file", [one for one in FILES if ".audio." not in one])
def test_words_in_the_oldest_sherpa_onnx(old: Old, file: str) -> None:
    heard = old.heard[file]
    if precision_of(file) == "fp32":
        assert could_say(old.expected["samples"], heard, old.tokens, AUDIO_LIMIT)
    # A word of six may be at a tie, which 8 bits decide by the processor.
    assert jiwer.process_words(WORDS, heard).hits >= 5
