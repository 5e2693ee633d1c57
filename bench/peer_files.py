"""Artefacts of the encoders to compare, in a folder that keeps what was built.

Every artefact has a JSON file of its own name beside it. What cannot be exported has only that,
with the reason; delete it to try again.
"""

import contextlib
import dataclasses
import io
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.peer_encoders import (
    AUDIO,
    FEATURES,
    FRAMES,
    SIZES,
    Peer,
    example,
    num_parameters,
    ours,
    peers,
)
from ortho_edge.atomic import write_atomically
from ortho_edge.checkpoint import load_checkpoint, shipped_checkpoint
from ortho_edge.devices.memory import can_measure, peak_memories_mb
from ortho_export import executorch, onnx
from ortho_export.audio import AudioModel
from ortho_export.batched import BatchedEncoder
from ortho_export.facts import Facts
from ortho_export.quiet import quiet_stderr
from ortho_export.results import EXECUTORCH, ONNXRUNTIME

SECONDS = (1.0, 4.0, 10.0)
SUFFIXES = {ONNXRUNTIME: ".onnx", EXECUTORCH: ".pte"}
OURS = "ours"


@dataclass(frozen=True, kw_only=True)
class Built:
    """An artefact of the comparison.

    Attributes:
        name: Of the encoder; `ours` begins the name of ours.
        lengths: Seconds of audio that it takes; a peer's is exported for one length.
        params: Parameters.
        flops: By length, a multiply-accumulate counted as two; what torch counts.
        frames: Of the output, by length.
        delegates: Pieces of an ExecuTorch program that XNNPACK runs.
        memory_mb: Peak above the runtime's libraries, by length.
        failed: Why it could not be exported; empty where it was.
    """

    name: str
    group: str
    input: str
    runtime: str
    lengths: tuple[float, ...]
    params: int
    flops: dict[str, float] = dataclasses.field(default_factory=dict)
    frames: dict[str, int] = dataclasses.field(default_factory=dict)
    size_mb: float = 0.0
    delegates: int | None = None
    memory_mb: dict[str, float] = dataclasses.field(default_factory=dict)
    failed: str = ""

    @property
    def file(self) -> str:
        """Its name in the folder."""
        length = f".{self.lengths[0]:g}s" if len(self.lengths) == 1 else ""
        stem = f"{self.group}.{self.name}.{self.input}{length}".replace(" ", "_").replace(",", "")
        return stem + SUFFIXES[self.runtime]


def build_all(folder: Path) -> list[Built]:
    """All artefacts, building those that the folder lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for one, make in _wanted():
        record = folder / f"{one.file}.json"
        if not record.exists():
            print(f"building {one.file}", flush=True)
            built = _build(one, make, folder)
            write_atomically(record, json.dumps(dataclasses.asdict(built), indent=1))
        found.append(read_record(record))
    return found


def read_record(path: Path) -> Built:
    """What stands beside an artefact."""
    fields = json.loads(path.read_text("utf-8"))
    return Built(**{**fields, "lengths": tuple(fields["lengths"])})


Write = Callable[[Path], tuple[nn.Module, int | None]]
"""Writes an artefact; returns the eager module, to count in, and its delegates."""


def _wanted() -> Iterator[tuple[Built, Write]]:
    for group in SIZES:
        params = num_parameters(ours(group))
        for takes in (FEATURES, AUDIO):
            for runtime in (ONNXRUNTIME, EXECUTORCH):
                one = Built(
                    name=OURS, group=group, input=takes, runtime=runtime, lengths=SECONDS,
                    params=params,
                )  # fmt: skip
                yield one, lambda path, one=one: _write_ours(one, path)
    for peer in peers():
        with torch.device("meta"):
            params = num_parameters(peer.make(peer.length(SECONDS[0])))
        for seconds in SECONDS:
            for runtime in (ONNXRUNTIME, EXECUTORCH):
                one = Built(
                    name=peer.name, group=peer.group, input=peer.input, runtime=runtime,
                    lengths=(seconds,), params=params,
                )  # fmt: skip
                yield one, lambda path, one=one, peer=peer: _write_peer(one, peer, path)


def _build(one: Built, write: Write, folder: Path) -> Built:
    path = folder / one.file
    torch.manual_seed(0)
    try:
        with quiet_stderr(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            module, delegates = write(path)
    # Whatever exporters raise for a network that is not ours is a finding of the comparison.
    except Exception as error:  # noqa: BLE001
        path.unlink(missing_ok=True)
        reason = " ".join(str(error).split())[:300]
        return dataclasses.replace(one, failed=f"{type(error).__name__}: {reason}")
    flops, frames = {}, {}
    for seconds in one.lengths:
        flops[f"{seconds:g}"], frames[f"{seconds:g}"] = _count(module, example(one.input, seconds))
    built = dataclasses.replace(
        one, flops=flops, frames=frames, size_mb=path.stat().st_size / 1e6, delegates=delegates
    )
    record = path.with_name(f"{path.name}.json")
    # The process that measures memory reads it.
    record.write_text(json.dumps(dataclasses.asdict(built)), "utf-8")
    try:
        return dataclasses.replace(built, memory_mb=_memory(built, path))
    finally:
        record.unlink()


@torch.no_grad()
def _count(module: nn.Module, x: Tensor) -> tuple[float, int]:
    with FlopCounterMode(display=False) as counter:
        output = module(x)
    return float(counter.get_total_flops()), output.shape[1]


def _memory(built: Built, path: Path) -> dict[str, float]:
    """Measured after a run of our smallest artefact, which loads the libraries."""
    if not can_measure():
        return {}
    first = next(one for one, _ in _wanted() if one.runtime == built.runtime)
    warm_up = path.with_name(first.file)
    points = [(path, seconds) for seconds in built.lengths]
    peaks = peak_memories_mb(load_for_memory, warm_up, points)
    return {f"{seconds:g}": peak for (_, seconds), peak in zip(points, peaks, strict=True)}


def load_for_memory(path: Path) -> Callable[[np.ndarray], object]:
    """What runs an artefact once on as much audio as `features` (1, T, 80) are of."""
    built = read_record(path.with_name(f"{path.name}.json"))
    return lambda features: runner(path, built, features.shape[1] / FRAMES)()


def runner(path: Path, built: Built, seconds: float) -> Callable[[], object]:
    """A call that runs an artefact on noise, with one thread."""
    x = example(built.input, seconds)
    if built.name == OURS and built.runtime == EXECUTORCH:
        _, program = executorch.load(path, threads=1)
        return lambda: program(x.numpy())
    if built.name == OURS:
        _, model = onnx.load(path, threads=1)
        return lambda: model(x.numpy(), np.array([x.shape[1]]))
    if built.runtime == EXECUTORCH:
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        with quiet_stderr():
            portable_lib._unsafe_reset_threadpool(1)
            loaded = Runtime.get().load_program(path)
            method = loaded.load_method("forward")
        assert method is not None
        # The method lives no longer than its program.
        return lambda: (method.execute([x]), loaded)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {session.get_inputs()[0].name: x.numpy()})


class Ours(nn.Module):
    """Ours as a module of one input."""

    def __init__(self, encoder: nn.Module) -> None:
        """Wraps an encoder of padded batches."""
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities (1, T', V)."""
        return self.encoder(x, torch.tensor([x.shape[1]]))[0]


def _write_ours(one: Built, path: Path) -> tuple[nn.Module, int | None]:
    encoder = ours(one.group)
    tokens = load_checkpoint(shipped_checkpoint()).tokens
    facts = Facts(subnet=OURS, tokens=tokens, checkpoint_digest="", input=one.input)
    delegates = None
    if one.runtime == EXECUTORCH:
        program = executorch.lower(encoder, facts)
        path.write_bytes(program.content)
        delegates = program.delegation.subgraphs
    else:
        path.write_bytes(onnx.to_onnx(encoder, facts))
    batched = BatchedEncoder(encoder)
    return Ours(AudioModel(batched) if one.input == AUDIO else batched), delegates


def _write_peer(one: Built, peer: Peer, path: Path) -> tuple[nn.Module, int | None]:
    (seconds,) = one.lengths
    module, x = peer.make(peer.length(seconds)), example(peer.input, seconds)
    if one.runtime == EXECUTORCH:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.devtools.backend_debug import get_delegation_info
        from executorch.exir import to_edge_transform_and_lower

        exported = torch.export.export(module, (x,))
        edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        info = get_delegation_info(edge.exported_program().graph_module)
        path.write_bytes(edge.to_executorch().buffer)
        return module, info.num_delegated_subgraphs
    program = torch.onnx.export(
        module,
        (x,),
        dynamo=True,
        verbose=False,
        opset_version=onnx.EXPORTED_OPSET,
        external_data=False,
    )  # fmt: skip
    assert program is not None
    program.save(path)
    return module, None
