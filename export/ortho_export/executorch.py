"""ExecuTorch programs: XNNPACK, batch 1, any number of frames up to a bound."""

import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float32

from ortho_edge.cli import UserError
from ortho_edge.compaction import DenseEncoder
from ortho_edge.data.features import FRAME_SHIFT
from ortho_edge.precision import Precision
from ortho_export.audio import AudioProgram, room_for, with_room
from ortho_export.calibration import Calibration
from ortho_export.delegate import kept_graphs, rewrite_delegates
from ortho_export.facts import AUDIO_IN, Facts
from ortho_export.flat import FlatEncoder
from ortho_export.quantized_program import quantized
from ortho_export.quiet import quiet_stderr

if TYPE_CHECKING:
    from executorch.exir import EdgeProgramManager
    from executorch.exir.backend.partitioner import Partitioner
    from executorch.runtime import Method
    from executorch.runtime import Program as RuntimeProgram

SUFFIX = ".pte"
HEADER = struct.Struct("<4x4s4sIQQQ")
"""The root's offset, the file's identifier, then the extended header: magic, length, sizes."""
IDENTIFIER, EXTENDED = b"ET", b"eh00"
EXAMPLE_FRAMES = 501
"""Traced length; odd, so that nothing divides by accident."""


@dataclass(frozen=True, kw_only=True)
class Delegation:
    """How well a backend, such as XNNPACK, took a program.

    Attributes:
        subgraphs: Pieces that it runs; 1 is the best.
        outside: Operations left to the portable kernels, with their counts.
        planned_bytes: Memory planned outside the delegate, for the longest input.
    """

    subgraphs: int
    outside: Mapping[str, int]
    planned_bytes: int


@dataclass(frozen=True, kw_only=True)
class Program:
    """A lowered program.

    Attributes:
        content: The bytes of the `.pte` file.
        delegation: How it was cut.
    """

    content: bytes
    delegation: Delegation


def lower(
    encoder: DenseEncoder,
    facts: Facts,
    precision: Precision = "fp32",
    *,
    calibration: Calibration = (),
    partitioner: "Partitioner | None" = None,
) -> Program:
    """Lowers a compacted encoder.

    The program's method `forward` takes x (1, T, bins) float32 with any `min_frames` <= T <=
    `max_frames` and returns log-probabilities (1, T', V), T' = ceil(ceil(T / 2) / 2). Where the
    facts say that the input is audio, it takes what `ortho_export.audio.AudioProgram` takes, for
    the same T. Every fact is a constant method of its name.

    Args:
        encoder: The dense encoder; it is left as it is.
        facts: Its constants and bounds.
        precision: Of its weights and products.
        calibration: Features of speech, for a precision of `ortho_edge.precision.CALIBRATED`.
        partitioner: Cuts the graph for another backend than XNNPACK.
    """
    with quiet_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flat = FlatEncoder(encoder, for_xnnpack=partitioner is None)
        flat = quantized(flat, precision, calibration)
        with kept_graphs() as graphs:
            edge = _to_edge(_exported(flat, facts), facts, partitioner)
        # Where the weights are small, what stands around them counts.
        rewrite_delegates(edge, graphs, inline=precision != "fp32")
        return _written(edge)


def _exported(encoder: FlatEncoder, facts: Facts) -> torch.export.ExportedProgram:
    """The encoder as a graph of its input, with a free number of frames."""
    frames = torch.export.Dim("T", min=facts.min_frames, max=facts.max_frames)
    traced = min(max(EXAMPLE_FRAMES, facts.min_frames), facts.max_frames)
    if facts.input == AUDIO_IN:
        samples = torch.zeros(1, room_for(traced))
        return torch.export.export(
            AudioProgram(encoder),
            (samples, torch.tensor([traced * FRAME_SHIFT])),
            dynamic_shapes=({1: room_for(frames)}, None),
        )
    bins = int(str(facts.features["num_mel_bins"]))
    return torch.export.export(
        encoder, (torch.zeros(1, traced, bins),), dynamic_shapes=({1: frames},)
    )


def _to_edge(
    exported: torch.export.ExportedProgram, facts: Facts, partitioner: "Partitioner | None"
) -> "EdgeProgramManager":
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    return to_edge_transform_and_lower(
        exported,
        partitioner=[partitioner or XnnpackPartitioner()],
        constant_methods=facts.constants(),
    )


def _written(edge: "EdgeProgramManager") -> Program:
    from executorch.devtools.backend_debug import get_delegation_info

    info = get_delegation_info(edge.exported_program().graph_module)
    program = edge.to_executorch()
    forward = next(
        plan for plan in program.executorch_program.execution_plan if plan.name == "forward"
    )
    delegation = Delegation(
        subgraphs=info.num_delegated_subgraphs,
        outside={
            name: counts.non_delegated
            for name, counts in sorted(info.delegation_by_operator.items())
            if counts.non_delegated
        },
        planned_bytes=sum(forward.non_const_buffer_sizes),
    )
    return Program(content=bytes(program.buffer), delegation=delegation)


Forward = Callable[[Float32[np.ndarray, "1 ..."]], Float32[np.ndarray, "1 T4 V"]]
"""Features (1, T, bins), or audio (1, N), of one utterance without padding."""


def import_runtime() -> None:
    """Imports what `load` needs, which says much of what is missing."""
    with quiet_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import executorch.extension.pybindings.portable_lib
        import executorch.runtime  # noqa: F401


def check_whole(path: Path) -> None:
    """Looks at a program's header without executing anything.

    Raises:
        UserError: The file is truncated or no program.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEADER.size)
    if len(head) == HEADER.size:
        kind, magic, _, program_bytes, segments_at, segment_bytes = HEADER.unpack(head)
        begins = kind.startswith(IDENTIFIER) and magic == EXTENDED
        if begins and program_bytes <= size and segments_at + segment_bytes <= size:
            return
    raise UserError(f"{path} is not an ExecuTorch program, or is truncated")


def load(path: Path, threads: int) -> tuple[Facts, Forward]:
    """Reads a program and the facts in it.

    Args:
        path: A `.pte` file.
        threads: Of the whole process, for every program in it.

    Raises:
        UserError: The file is truncated, is no program, or not one of this project.
    """
    with quiet_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _load(path, threads)


def read_facts(path: Path) -> Facts:
    """The facts in a program, whether or not its backend is on this machine.

    Raises:
        UserError: The file is truncated, is no program, or not one of this project.
    """
    with quiet_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _facts(path, _program(path))


def planned_bytes(path: Path) -> int:
    """Memory that a program plans outside its delegates, for the longest input."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    with quiet_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plans = deserialize_pte_binary(path.read_bytes()).program.execution_plan
    forward = next(plan for plan in plans if plan.name == "forward")
    return sum(forward.non_const_buffer_sizes)


def _load(path: Path, threads: int) -> tuple[Facts, Forward]:
    from executorch.extension.pybindings import portable_lib

    portable_lib._unsafe_reset_threadpool(threads)
    program = _program(path)
    facts = _facts(path, program)
    try:
        method = program.load_method("forward")
    except RuntimeError as error:
        raise UserError(f"{path} cannot run here: {error}") from error

    def forward(one: Float32[np.ndarray, "1 ..."]) -> Float32[np.ndarray, "1 T4 V"]:
        utterance = torch.from_numpy(np.ascontiguousarray(one))
        if facts.input == AUDIO_IN:
            inputs = [with_room(utterance), torch.tensor([utterance.shape[1]])]
        else:
            inputs = [utterance]
        output = _run(method, inputs)
        if not isinstance(output, torch.Tensor) or output.shape[::2] != (1, len(facts.tokens)):
            raise UserError(f"{path} is damaged: its output is no (1, T, {len(facts.tokens)})")
        return output.numpy()

    return facts, forward


def _program(path: Path) -> "RuntimeProgram":
    from executorch.runtime import Runtime, Verification

    try:
        return Runtime.get().load_program(path, verification=Verification.InternalConsistency)
    except RuntimeError as error:
        raise UserError(f"{path} is not an ExecuTorch program, or is truncated") from error


def _facts(path: Path, program: "RuntimeProgram") -> Facts:
    names = program.method_names - {"forward"}
    try:
        return Facts.parse({name: _run(program.load_method(name), []) for name in names})
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"{path} is no artefact of this project: {error}") from error


def _run(method: "Method | None", inputs: Sequence[torch.Tensor]) -> Any:
    """The only output of a method."""
    assert method is not None
    (output,) = method.execute(inputs)
    return output
