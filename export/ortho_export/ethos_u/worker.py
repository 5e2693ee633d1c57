"""Lowers networks for Ethos-U; runs in the environment that holds Arm's compilers.

`python -m ortho_export.ethos_u.worker FOLDER` reads the request in the folder and adds programs and
an answer. It prints the name of every job as it is done and nothing else; what the compilers print
goes to standard error.
"""

import csv
import importlib
import os
import sys
import tempfile
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ortho_edge.compaction import compact
from ortho_edge.subnet import Subnet
from ortho_edge.supernet import Supernet
from ortho_export.ethos_u.protocol import (
    GRAPH,
    TOSA,
    Answer,
    Cost,
    Job,
    Lowered,
    Request,
)
from ortho_export.ethos_u.static import ON_THE_CPU, StaticEncoder
from ortho_export.flat import FlatEncoder, FlatNorm, FlatScale

KIB = 1024
TOSA_FILE, SUMMARY = "out.tosa", "output/*summary*.csv"
"""The graph that the backend hands to Vela, and Vela's figures."""


def main(folder: Path) -> None:
    """Does every job of the request in `folder`."""
    request = Request.read(folder)
    supernet = Supernet(request.architecture, request.num_heads)
    supernet.load_state_dict(dict(request.supernet))
    supernet.eval()
    # Only the names of jobs reach standard output, whatever compilers print there.
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    lowered, outputs = {}, {}
    for job in request.jobs:
        with tempfile.TemporaryDirectory() as left:
            lowered[job.name], found = _do(job, request, supernet, folder, Path(left))
        outputs |= found
        Answer(lowered=lowered, outputs=outputs).write(folder)
        print(job.name, file=told, flush=True)


@torch.no_grad()
def _do(
    job: Job, request: Request, supernet: Supernet, folder: Path, left: Path
) -> tuple[Lowered, dict[str, Tensor]]:
    encoder = StaticEncoder(
        FlatEncoder(compact(supernet, Subnet(len(supernet.space), job.kept), job.head))
    )
    clips = [one for one in request.calibration.values() if one.shape[1] == job.frames]
    whole = job.part == "network"
    part, inputs = (encoder, clips) if whole else _part(encoder, job.part, clips)
    graph, specs = _quantised(part, inputs, request.accelerator, left)
    constants = request.constants if whole else {}
    lowered, quantisation = _lower(graph, inputs[0], specs, constants, folder / f"{job.name}.pte")
    outputs = {}
    if whole and request.clips:
        tosa = (left / TOSA_FILE).read_bytes()
        for name, clip in request.clips.items():
            outputs[f"{job.name}.{GRAPH}.{name}"] = graph(clip)
            outputs[f"{job.name}.{TOSA}.{name}"] = _by_tosa(tosa, encoder, clip, quantisation)
    cost = _cost(left)
    return Lowered(file=f"{job.name}.pte", cost=cost, **lowered), outputs


def _part(encoder: StaticEncoder, part: str, clips: list[Tensor]) -> tuple[nn.Module, list[Tensor]]:
    """A part of the encoder alone, and what reaches it of the clips."""
    acoustic = encoder.acoustic
    inputs = [encoder.normalization(one) for one in clips]
    if part == "front_end":
        return acoustic.front_end, inputs
    inputs = [acoustic.front_end(one) for one in inputs]
    first = acoustic.steps[0]
    if part == "module":
        assert not isinstance(first, FlatNorm), "the subnet has no module in its first block"
        return first, inputs
    norms = nn.Sequential(*(one for one in acoustic.steps if isinstance(one, FlatNorm | FlatScale)))
    if part == "norm":
        return norms[:2], inputs
    if part == "last_norm":
        return norms[-1:], inputs
    assert part == "ctc_head"
    return acoustic.ctc_head, [acoustic.steps(one) for one in inputs]


def _quantised(
    module: nn.Module, inputs: list[Tensor], accelerator: str, left: Path
) -> tuple[torch.fx.GraphModule, Any]:
    """The module as a graph with every range fixed, 8 bits per channel, and the target."""
    from executorch.backends.arm.ethosu import EthosUCompileSpec
    from executorch.backends.arm.quantizer import (
        EthosUQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    specs = EthosUCompileSpec(target=accelerator)
    specs.dump_intermediate_artifacts_to(str(left))
    quantizer = EthosUQuantizer(specs)
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True))
    if isinstance(module, StaticEncoder):
        # A graph inside a module would lose the marks that the partitioner looks for, so the whole
        # is one graph, whose ends stay as they are.
        quantizer.set_io(None)
        for name in ON_THE_CPU:
            quantizer.set_module_name(name, None)
    # Guards would stay in the graph as calls that later passes do not know.
    graph = torch.export.export(module, (inputs[0],)).module(check_guards=False)
    prepared = prepare_pt2e(graph, quantizer)
    for one in inputs:
        prepared(one)
    return convert_pt2e(prepared), specs


def _lower(
    graph: torch.fx.GraphModule,
    example: Tensor,
    specs: Any,
    constants: Mapping[str, int | str],
    file: Path,
) -> tuple[dict[str, Any], tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Writes the program; what became of it, and how its delegate's two ends are quantised."""
    from executorch.backends.arm.ethosu import EthosUPartitioner
    from executorch.devtools.backend_debug import get_delegation_info
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    edge = to_edge_transform_and_lower(
        torch.export.export(graph, (example,)),
        partitioner=[EthosUPartitioner(specs)],
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
        constant_methods=dict(constants),
    )
    lowered = edge.exported_program().graph_module
    info, ends = get_delegation_info(lowered), _ends(lowered)
    program = edge.to_executorch()
    file.write_bytes(bytes(program.buffer))
    forward = next(
        plan for plan in program.executorch_program.execution_plan if plan.name == "forward"
    )
    outside = {
        name: counts.non_delegated
        for name, counts in sorted(info.delegation_by_operator.items())
        if counts.non_delegated
    }
    entry = {
        "subgraphs": info.num_delegated_subgraphs,
        "outside": outside,
        "planned_bytes": sum(forward.non_const_buffer_sizes),
    }
    return entry, ends


def _ends(graph: torch.fx.GraphModule) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Scale, zero point, range and type of what the first delegate takes and gives."""
    delegates = [
        node for node in graph.graph.nodes if "executorch_call_delegate" in str(node.target)
    ]
    if not delegates:
        raise RuntimeError("the accelerator takes nothing of the network")
    delegate = delegates[0]
    taken, (given, *_) = delegate.args[1], delegate.users
    back, *_ = given.users
    assert "quantize_per_tensor" in str(taken.target), taken.format_node()
    assert "dequantize_per_tensor" in str(back.target), back.format_node()
    return tuple(taken.args[1:]), tuple(back.args[1:])


def _by_tosa(
    tosa: bytes,
    encoder: StaticEncoder,
    clip: Tensor,
    quantisation: tuple[tuple[Any, ...], tuple[Any, ...]],
) -> Tensor:
    """Log-probabilities as TOSA's reference model computes what Vela compiles."""
    # Installed where this runs and nowhere else.
    reference = importlib.import_module("tosa_reference_model")
    operations = torch.ops.quantized_decomposed
    x = operations.quantize_per_tensor(encoder.normalization(clip), *quantisation[0])
    found, status = reference.run(
        tosa, [x.numpy()], verbosity="LOW", initialize_variable_tensor_from_numpy=True,
        debug_mode=None,
    )  # fmt: skip
    if status != reference.GraphStatus.TOSA_VALID:
        raise RuntimeError(f"TOSA's reference model says {status}")
    logits = operations.dequantize_per_tensor(torch.from_numpy(found[0]), *quantisation[1])
    return encoder.log_softmax(logits.view(1, -1, logits.shape[-1]))


def _cost(left: Path) -> Cost:
    (path,) = left.glob(SUMMARY)
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    flash = float(row["on_chip_flash_memory_used"]) + float(row["off_chip_flash_memory_used"])
    return Cost(
        cycles=int(float(row["cycles_total"])),
        clock_ghz=float(row["core_clock"]) / 1e9,
        sram_bytes=round(float(row["sram_memory_used"]) * KIB),
        flash_bytes=round(flash * KIB),
        system_config=row["system_config"],
        memory_mode=row["memory_mode"],
        vela=version("ethos-u-vela"),
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(Path(sys.argv[1]))
