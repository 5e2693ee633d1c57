"""More artefacts of the same subnet: Core ML and Vulkan programs, and ONNX Runtime's own format.

Apple's Core ML and a Vulkan driver run on no machine that this project has, so their programs are
lowered, read back and counted, and never executed. A model in ORT format is executed like others.
`docs/targets.md` says for every target how far it was checked.
"""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ortho_edge.cli import UserError
from ortho_edge.compaction import DenseEncoder
from ortho_export import executorch
from ortho_export.artefact import load_artefact
from ortho_export.facts import FEATURES_IN, Facts
from ortho_export.manifest import describe_file
from ortho_export.onnx import to_onnx
from ortho_export.parity import Clips, check_parity
from ortho_export.quiet import quiet_stderr

if TYPE_CHECKING:
    from executorch.exir.backend.partitioner import Partitioner

COREML, VULKAN, ORT = "coreml", "vulkan", "ort"
TARGETS = {COREML: "model.coreml.pte", VULKAN: "model.vulkan.pte", ORT: "model.ort"}
"""The artefact of each target, from features."""
OPERATORS = "required_operators_and_types.config"
"""What a build of ONNX Runtime needs for a model in ORT format, and no more."""


def check_targets(targets: tuple[str, ...], takes: str) -> None:
    """Checks that targets can take what the artefacts take.

    Raises:
        UserError: One cannot.
    """
    for target in targets:
        if target != ORT and takes != FEATURES_IN:
            raise UserError(f"--also {target} takes features only, not --input {takes}")
        if target == COREML and find_spec("coremltools") is None:
            raise UserError(
                "--also coreml needs coremltools, which this platform has no package of"
            )


def target_file(target: str, takes: str) -> str:
    """The file of a target, such as `model.audio.ort`."""
    stem, rest = TARGETS[target].split(".", 1)
    return f"{stem}.{rest}" if takes == FEATURES_IN else f"{stem}.{takes}.{rest}"


def write_target(
    target: str, encoder: DenseEncoder, facts: Facts, folder: Path, clips: Clips
) -> dict[str, dict[str, Any]]:
    """Writes the artefact of one target and checks it as far as this machine can.

    Args:
        target: One of `TARGETS`.
        encoder: The compacted encoder.
        facts: Its constants and bounds.
        folder: Where to write.
        clips: For parity, where the artefact can be executed.

    Returns:
        Entries for the manifest, by file.

    Raises:
        ParityError: The artefact disagrees with the encoder.
    """
    path = folder / target_file(target, facts.input)
    if target == ORT:
        return _write_ort(path, encoder, facts, clips)
    program = lower_for(target, encoder, facts)
    path.write_bytes(program.content)
    if executorch.read_facts(path) != facts:
        raise AssertionError(f"{path.name} does not state the facts it was made with")
    entry = {
        "target": target,
        "precision": "fp16" if target == COREML else "fp32",
        "input": facts.input,
        "executed": False,
        "delegation": asdict(program.delegation),
    }
    return {path.name: {**describe_file(path), **entry}}


def lower_for(target: str, encoder: DenseEncoder, facts: Facts) -> executorch.Program:
    """Lowers a compacted encoder for Core ML or Vulkan; the program has the usual methods."""
    with quiet_stderr(), warnings.catch_warnings(), _silent_logging():
        warnings.simplefilter("ignore")
        partitioner = _coreml() if target == COREML else _vulkan()
        return executorch.lower(encoder, facts, partitioner=partitioner)


def _coreml() -> "Partitioner":
    """Half precision on the neural engine or the CPU, whichever Core ML chooses; iOS 17 on."""
    import coremltools
    from executorch.backends.apple.coreml.compiler import CoreMLBackend
    from executorch.backends.apple.coreml.partition import CoreMLPartitioner

    specs = CoreMLBackend.generate_compile_specs(
        compute_precision=coremltools.precision.FLOAT16,
        compute_unit=coremltools.ComputeUnit.CPU_AND_NE,
        minimum_deployment_target=coremltools.target.iOS17,
    )
    return CoreMLPartitioner(compile_specs=specs)


def _vulkan() -> "Partitioner":
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

    return VulkanPartitioner({"require_dynamic_shapes": True})


def _write_ort(
    path: Path, encoder: DenseEncoder, facts: Facts, clips: Clips
) -> dict[str, dict[str, Any]]:
    content, operators = to_ort(to_onnx(encoder, facts))
    path.write_bytes(content)
    config = path.with_suffix(f".{OPERATORS}")
    config.write_text(operators, "utf-8")
    parity = check_parity(encoder, load_artefact(path, trusted=True), clips)
    entry = {
        "runtime": "onnxruntime",
        "target": ORT,
        "precision": "fp32",
        "input": facts.input,
        "executed": True,
        "parity": asdict(parity),
    }
    return {path.name: {**describe_file(path), **entry}, config.name: describe_file(config)}


def to_ort(model: bytes) -> tuple[bytes, str]:
    """An ONNX model in ORT format, optimised for Arm, and the operators and types it needs."""
    from onnxruntime.tools.convert_onnx_models_to_ort import (
        OptimizationStyle,
        convert_onnx_models_to_ort,
    )

    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "model.onnx"
        source.write_bytes(model)
        with (
            quiet_stderr(),
            warnings.catch_warnings(),
            _silent_logging(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")  # the converter leaves its files open
            convert_onnx_models_to_ort(
                source,
                Path(name) / "ort",
                optimization_styles=[OptimizationStyle.Fixed],
                target_platform="arm",
                enable_type_reduction=True,
            )
        (made,) = Path(name).rglob("*.ort")
        (config,) = Path(name).rglob(f"*{OPERATORS}")
        lines = config.read_text("utf-8").splitlines(keepends=True)
        # Its first line names the folder of this machine.
        return made.read_bytes(), "".join(line for line in lines if not line.startswith("#"))


@contextlib.contextmanager
def _silent_logging() -> Iterator[None]:
    """Without what the converters log: every node, at the level of information."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def executed(entries: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The files among entries of the manifest that this machine can execute."""
    return tuple(name for name, stated in entries.items() if "runtime" in stated)
