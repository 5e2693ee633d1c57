"""A tiny untrained checkpoint, audio for it, and what an export of it left behind."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from onnx import GraphProto, ModelProto

from ortho_edge.checkpoint import Checkpoint, TrainedSubnet, load_checkpoint
from ortho_edge.compaction import DenseEncoder, compact
from ortho_edge.conformer.architecture import Architecture, FrontEndKind
from ortho_edge.data.audio import SAMPLE_RATE
from ortho_edge.precision import Precision
from ortho_edge.subnet import Subnet
from ortho_edge.supernet import Supernet
from ortho_edge.tokens import character_tokens
from ortho_export.artefact import Encoder
from ortho_export.results import file_name

WORDS = ("ONE", "TWO", "THREE", "FOUR", "FIVE")
LARGE, SMALL = "s100", "s050"


def bursts(seconds: float, seed: int = 0) -> np.ndarray:
    """Coloured noise in bursts: frames differ as those of speech do."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tones = sum(
        np.sin(2 * np.pi * generator.uniform(100, 5000) * time + generator.uniform(0, 6))
        * np.clip(np.sin(2 * np.pi * generator.uniform(0.3, 3) * time), 0, None)
        for _ in range(12)
    )
    noise = generator.standard_normal(len(time))
    return (0.03 * tones + 0.003 * noise).astype(np.float32)


def tiny_checkpoint(
    front_end: FrontEndKind = "strided", spread: float = 20, front_end_chunks: int = 1
) -> Checkpoint:
    """One block of width 32 whose outputs are spread widely, so that transcripts are not empty."""
    torch.manual_seed(7)
    tokens = character_tokens(WORDS, "ABC'")
    architecture = Architecture(
        vocab_size=len(tokens), dim=32, num_blocks=1, num_heads=3, head_dim=8, ffn_dim=64,
        kernel_size=5, front_end=front_end,
        front_end_channels=(4, 6) if front_end == "strided" else (3, 4, 4, 3),
        front_end_chunks=front_end_chunks,
        feature_normalization="utterance" if front_end == "strided" else "none",
    )  # fmt: skip
    supernet = Supernet(architecture, 2).eval()
    with torch.no_grad():
        for head in supernet.ctc_heads:
            assert isinstance(head, torch.nn.Linear)
            head.weight *= spread
            head.bias.zero_()
    space = supernet.space
    half = Subnet.of(len(space), range(0, len(space), 2))
    return Checkpoint(
        supernet=supernet,
        tokens=tokens,
        subnets=(
            TrainedSubnet(
                name=LARGE, subnet=space.full(), head=0, target=1.0, metrics={"dev_wer": 5.0}
            ),
            TrainedSubnet(name=SMALL, subnet=half, head=1, target=0.5, metrics={"dev_wer": 9.0}),
        ),
    )


def tied(encoder: Encoder, off: float) -> Encoder:
    """An encoder whose two best symbols are equal but for twice `off`, to one side or the other."""

    def forward(features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        log_probs, out_lengths = encoder(features, lengths)
        best = log_probs.topk(2, -1).indices.sort(-1).values
        level = log_probs.amax(-1, keepdim=True)
        return log_probs.scatter(-1, best, level + off * torch.tensor([1, -1])), out_lengths

    return forward


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The tiny checkpoint's larger subnet as the export command left it."""

    checkpoint: Path
    folder: Path
    printed: str
    input: str = "features"
    precision: Precision = "fp32"

    @property
    def encoder(self) -> DenseEncoder:
        """The eager encoder of the subnet that was exported."""
        return self.encoder_of(LARGE)

    def encoder_of(self, name: str) -> DenseEncoder:
        loaded = load_checkpoint(self.checkpoint)
        trained = loaded.subnet(name)
        return compact(loaded.supernet, trained.subnet, trained.head)

    @property
    def program(self) -> Path:
        return self.folder / file_name("executorch", self.input, self.precision)

    @property
    def model(self) -> Path:
        return self.folder / file_name("onnxruntime", self.input, self.precision)


def utterance_graph(model: ModelProto) -> GraphProto:
    """What an int8 model does with each utterance of a batch."""
    (loop,) = (node for node in model.graph.node if node.op_type == "Scan")
    (body,) = (one.g for one in loop.attribute if one.name == "body")
    return body
