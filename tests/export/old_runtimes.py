"""Runs ONNX files in old runtimes, in an environment of its own that has nothing of this project.

python old_runtimes.py FOLDER: `inputs.npz` in it holds features by name, `samples.npy` audio. Every
`*.onnx` is run in ONNX Runtime, alone and in one padded batch, and what takes features in
sherpa-onnx. Writes `outputs.npz`, and `heard.json` with the versions.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import sherpa_onnx.offline_recognizer as sherpa

PADDING = -23.0


def run(file: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def forward(batch: np.ndarray, lengths: list[int]) -> list[np.ndarray]:
        return session.run(None, dict(zip(names, (batch, np.array(lengths)), strict=True)))

    lengths = [len(one) for one in inputs.values()]
    shape = len(inputs), max(lengths), *next(iter(inputs.values())).shape[1:]
    padded = np.full(shape, PADDING, np.float32)
    for row, one in zip(padded, inputs.values(), strict=True):
        row[: len(one)] = one
    rows, counts = forward(padded, lengths)
    outputs = {}
    for index, (name, one) in enumerate(inputs.items()):
        outputs[f"{file.name}/{name}/alone"] = forward(one[None], [len(one)])[0][0]
        outputs[f"{file.name}/{name}/batch"] = rows[index, : counts[index]]
    return outputs


def hear(file: Path, samples: np.ndarray) -> str:
    """Before 1.10 no function makes a recognizer of this model type."""
    kind = getattr(sherpa, "FeatureExtractorConfig", None) or sherpa.OfflineFeatureExtractorConfig
    config = sherpa.OfflineRecognizerConfig(
        feat_config=kind(sampling_rate=16000, feature_dim=80),
        model_config=sherpa.OfflineModelConfig(
            zipformer_ctc=sherpa.OfflineZipformerCtcModelConfig(model=str(file)),
            tokens=str(file.parent / "tokens.txt"), num_threads=1, debug=False, provider="cpu",
        ),
        decoding_method="greedy_search",
    )  # fmt: skip
    recognizer = sherpa._Recognizer(config)
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, samples)
    recognizer.decode_streams([stream])
    return " ".join(stream.result.text.split())


def main(folder: Path) -> None:
    features, samples = dict(np.load(folder / "inputs.npz")), np.load(folder / "samples.npy")
    outputs, heard = {}, {}
    for file in sorted(folder.glob("*.onnx")):
        audio = ".audio." in file.name
        outputs |= run(file, {"samples": samples} if audio else features)
        if not audio:
            heard[file.name] = hear(file, samples)
    np.savez(folder / "outputs.npz", **outputs)
    versions = {name: version(name) for name in ("onnxruntime", "sherpa-onnx")}
    (folder / "heard.json").write_text(json.dumps({"heard": heard, "versions": versions}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
