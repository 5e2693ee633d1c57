"""Every size of the checkpoint that ships: parity, the same words everywhere, costs that fall."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from lhotse import CutSet

from ortho_edge.checkpoint import Checkpoint, load_checkpoint, shipped_checkpoint
from ortho_edge.compaction import DenseEncoder, compact
from ortho_edge.data import corpora
from ortho_edge.data.audio import load_audio, resample
from ortho_edge.devices.catalogue import load_profile
from ortho_edge.devices.latency import predict_footprint
from ortho_edge.tokens import Tokens
from ortho_edge.training.corpora import HELD_OUT_SPEAKER, TEST_TAKES
from ortho_export import executorch, onnx
from ortho_export.artefact import load_artefact
from ortho_export.facts import MIN_FRAMES, Facts, checkpoint_digest
from ortho_export.fidelity import check_fidelity
from ortho_export.parity import AUDIO_LIMIT, check_parity, encode, parity_clips
from ortho_export.ties import could_say

pytestmark = [pytest.mark.export, pytest.mark.slow]

NAMES = [one.name for one in load_checkpoint(shipped_checkpoint()).subnets]
MAX_FRAMES = 1500


@dataclass(frozen=True)
class Size:
    """One size and its artefacts."""

    flops: float
    encoder: DenseEncoder
    tokens: Tokens
    program: Path
    model: Path

    def in_int8(self) -> bytes:
        """The ONNX model in int8."""
        return onnx.to_onnx(self.encoder, load_facts(self.model), "int8")


def load_facts(model: Path) -> Facts:
    return onnx.load(model, threads=1)[0]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(shipped_checkpoint())


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    return load_audio(shipped_checkpoint() / "sample.flac")


@pytest.fixture(scope="module")
def sizes(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Size]:
    digest = checkpoint_digest(shipped_checkpoint())
    made = {}
    for one in checkpoint.subnets:
        folder = tmp_path_factory.mktemp(one.name)
        facts = Facts(
            subnet=one.name, tokens=checkpoint.tokens, checkpoint_digest=digest,
            max_frames=MAX_FRAMES,
        )  # fmt: skip
        encoder = compact(checkpoint.supernet, one.subnet, one.head)
        (folder / "model.pte").write_bytes(executorch.lower(encoder, facts).content)
        (folder / "model.onnx").write_bytes(onnx.to_onnx(encoder, facts))
        (folder / "tokens.txt").write_text(checkpoint.tokens.lines(), "utf-8")
        flops = checkpoint.supernet.space.cost(one.subnet, "flops")
        made[one.name] = Size(
            flops, encoder, checkpoint.tokens, folder / "model.pte", folder / "model.onnx"
        )
    return made


@pytest.mark.parametrize("name", NAMES)
def test_both_runtimes_agree_with_the_eager_encoder(
    sizes: dict[str, Size], name: str, sample: np.ndarray
) -> None:
    clips = parity_clips(sample, MIN_FRAMES, MAX_FRAMES)
    for path in (sizes[name].program, sizes[name].model):
        parity = check_parity(sizes[name].encoder, load_artefact(path), clips)
        assert parity.max_abs_error <= parity.limit


@pytest.mark.parametrize("name", NAMES)
def test_the_sample_is_heard_by_all_clients(
    sizes: dict[str, Size], name: str, sample: np.ndarray
) -> None:
    words = (shipped_checkpoint() / "sample.txt").read_text("utf-8").strip()
    heard = {
        "executorch": load_artefact(sizes[name].program).transcribe(sample),
        "onnxruntime": load_artefact(sizes[name].model).transcribe(sample),
        "sherpa-onnx": _sherpa(sizes[name].model, [sample])[0],
    }
    assert {one for one in heard.values() if not _as_likely(sizes[name], sample, one)} == set()
    assert words in heard.values()


@pytest.mark.data
@pytest.mark.parametrize("name", NAMES)
def test_real_speech_of_an_unseen_voice_gives_the_same_words_everywhere(
    sizes: dict[str, Size], name: str, data_root: Path
) -> None:
    takes = corpora.fsdd(data_root, speakers=[HELD_OUT_SPEAKER], takes=TEST_TAKES)
    clips = [_two_digits(pair) for pair in _pairs(takes)]
    program, model = load_artefact(sizes[name].program), load_artefact(sizes[name].model)
    check_parity(sizes[name].encoder, program, {str(i): clip for i, clip in enumerate(clips)})
    for heard in (
        [program.transcribe(clip) for clip in clips],
        [model.transcribe(clip) for clip in clips],
        _sherpa(sizes[name].model, clips),
    ):
        others = [
            (index, text)
            for index, (clip, text) in enumerate(zip(clips, heard, strict=True))
            if not _as_likely(sizes[name], clip, text)
        ]
        assert others == []


def test_file_sizes_are_predicted_to_one_per_cent(
    sizes: dict[str, Size], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    space, profile = checkpoint.supernet.space, load_profile("pixel8")
    for name, size in sizes.items():
        trained = checkpoint.subnet(name)
        quantised = tmp_path / f"{name}.int8.onnx"
        quantised.write_bytes(size.in_int8())
        for file, runtime, precision in (
            (size.program, "executorch", "fp32"),
            (size.model, "onnxruntime", "fp32"),
            (quantised, "onnxruntime", "int8"),
        ):
            predicted = predict_footprint(profile, space, trained.subnet, 1.0, runtime, precision)
            assert predicted.size_mb == pytest.approx(file.stat().st_size / 1e6, rel=0.01)


@pytest.mark.data
@pytest.mark.parametrize("name", NAMES)
def test_int8_keeps_the_words_of_real_speech(
    sizes: dict[str, Size], name: str, sample: np.ndarray, data_root: Path, tmp_path: Path
) -> None:
    takes = corpora.fsdd(data_root, speakers=[HELD_OUT_SPEAKER], takes=TEST_TAKES)
    clips = {f"speech-{i}": _two_digits(pair) for i, pair in enumerate(_pairs(takes))}
    file = tmp_path / "model.int8.onnx"
    file.write_bytes(sizes[name].in_int8())
    fidelity = check_fidelity(
        sizes[name].encoder, load_artefact(file), {"sample": sample, **clips}, "int8"
    )
    assert fidelity.snr_db > fidelity.floor_db + 5
    assert fidelity.words is not None
    assert fidelity.words.words > 150
    assert fidelity.words.high > 0.97


def test_file_size_falls_with_the_flops(sizes: dict[str, Size]) -> None:
    for larger, smaller in pairwise(sizes.values()):
        assert smaller.flops < larger.flops
        assert smaller.program.stat().st_size < larger.program.stat().st_size
        assert smaller.model.stat().st_size < larger.model.stat().st_size


def _as_likely(size: Size, clip: np.ndarray, text: str) -> bool:
    """Whether the eager encoder says so, but for ties: clients compute features themselves."""
    return could_say(encode(size.encoder, clip), text, size.tokens, AUDIO_LIMIT)


def _sherpa(model: Path, clips: list[np.ndarray]) -> list[str]:
    import sherpa_onnx

    recognizer = sherpa_onnx.OfflineRecognizer.from_zipformer_ctc(
        model=str(model), tokens=str(model.parent / "tokens.txt"), num_threads=1
    )
    texts = []
    for clip in clips:
        stream = recognizer.create_stream()
        stream.accept_waveform(16000, clip)
        recognizer.decode_stream(stream)
        texts.append(" ".join(stream.result.text.split()))
    return texts


def _pairs(takes: CutSet) -> list[list]:
    cuts = list(takes)
    return [cuts[index : index + 2] for index in range(0, len(cuts), 2)]


def _two_digits(cuts: list) -> np.ndarray:
    gap = np.zeros(2400, np.float32)
    parts = [resample(cut.load_audio()[0], cut.sampling_rate, 16000) for cut in cuts]
    return np.concatenate([gap, *(part for audio in parts for part in (audio, gap))])
