"""What goes into the environment that lowers for Ethos-U and what comes out: JSON and safetensors.

A folder holds a request; the worker adds the programs and its answer. Both sides read this module,
so it imports nothing that only one of them has.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file, save_file
from torch import Tensor

from ortho_edge.conformer.architecture import Architecture

REQUEST, TENSORS, ANSWER, OUTPUTS = (
    "request.json", "request.safetensors", "answer.json", "answer.safetensors",
)  # fmt: skip
SUPERNET, CALIBRATION, CLIPS = "supernet", "calibration", "clips"
GRAPH, TOSA = "graph", "tosa"
"""How outputs were computed: by the quantised graph in torch, by the reference model of TOSA."""

Part = Literal["network", "front_end", "module", "norm", "last_norm", "ctc_head"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One network, or one part of it alone, to lower.

    Attributes:
        name: Of the job and its files.
        kept: Components of the subnet.
        head: Index of its CTC head.
        part: `module` is the first module of the subnet with its residual, `norm` the LayerNorm of
            its first block, `last_norm` that of its last, whose scale the head has taken over.
        frames: Length of the input in feature frames.
    """

    name: str
    kept: tuple[int, ...]
    frames: int
    head: int = 0
    part: Part = "network"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What Vela says of a program.

    Attributes:
        cycles: Of one inference.
        clock_ghz: That Vela's system configuration states.
        sram_bytes: Of the tensor arena.
        flash_bytes: Encoded weights.
        system_config: Vela's description of clocks and memories, like `memory_mode`.
        vela: Its version.
    """

    cycles: int
    clock_ghz: float
    sram_bytes: int
    flash_bytes: int
    system_config: str
    memory_mode: str
    vela: str

    @property
    def milliseconds(self) -> float:
        """Latency at the stated clock."""
        return self.cycles / (1e6 * self.clock_ghz)


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """A program and what the compilers said.

    Attributes:
        file: Name of the program in the folder.
        subgraphs: Pieces that the accelerator runs.
        outside: Operations left to the CPU, with their counts.
        planned_bytes: Memory planned outside the delegate.
    """

    file: str
    subgraphs: int
    outside: Mapping[str, int]
    planned_bytes: int
    cost: Cost


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything that the worker needs.

    Attributes:
        accelerator: Vela's name of the configuration, such as `ethos-u85-256`.
        architecture: Of the supernet.
        num_heads: CTC heads of the supernet.
        jobs: To do, in this order.
        constants: Constant methods of programs of whole networks.
        supernet: Weights of the supernet.
        calibration: Feature clips (1, T, bins) that ranges are taken from, each as long as the jobs
            that it serves.
        clips: Feature clips that whole networks are executed on.
    """

    accelerator: str
    architecture: Architecture
    num_heads: int
    jobs: Sequence[Job]
    constants: Mapping[str, int | str] = field(default_factory=dict)
    supernet: Mapping[str, Tensor] = field(repr=False)
    calibration: Mapping[str, Tensor] = field(repr=False)
    clips: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    def write(self, folder: Path) -> None:
        """Writes the request into a folder."""
        tensors = {
            f"{group}.{name}": tensor.contiguous()
            for group in (SUPERNET, CALIBRATION, CLIPS)
            for name, tensor in getattr(self, group).items()
        }
        save_file(tensors, folder / TENSORS)
        content = {
            "accelerator": self.accelerator,
            "architecture": asdict(self.architecture),
            "num_heads": self.num_heads,
            "jobs": [asdict(job) for job in self.jobs],
            "constants": dict(self.constants),
        }
        (folder / REQUEST).write_text(json.dumps(content), "utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Request":
        """Reads what `write` wrote."""
        content = json.loads((folder / REQUEST).read_text("utf-8"))
        groups: dict[str, dict[str, Tensor]] = {SUPERNET: {}, CALIBRATION: {}, CLIPS: {}}
        for key, tensor in load_file(folder / TENSORS).items():
            group, name = key.split(".", 1)
            groups[group][name] = tensor
        shape = content["architecture"]
        shape["front_end_channels"] = tuple(shape["front_end_channels"])
        return cls(
            accelerator=content["accelerator"],
            architecture=Architecture(**shape),
            num_heads=content["num_heads"],
            jobs=[Job(**{**job, "kept": tuple(job["kept"])}) for job in content["jobs"]],
            constants=content["constants"],
            **groups,
        )


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the worker made.

    Attributes:
        lowered: By the name of the job.
        outputs: Log-probabilities (1, T', V) of whole networks, by `job.GRAPH.clip` and
            `job.TOSA.clip`.
    """

    lowered: Mapping[str, Lowered]
    outputs: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    def write(self, folder: Path) -> None:
        """Writes the answer into a folder."""
        save_file({name: one.contiguous() for name, one in self.outputs.items()}, folder / OUTPUTS)
        content = {name: asdict(one) for name, one in self.lowered.items()}
        (folder / ANSWER).write_text(json.dumps(content), "utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Answer":
        """Reads what `write` wrote."""
        content: dict[str, dict[str, Any]] = json.loads((folder / ANSWER).read_text("utf-8"))
        return cls(
            lowered={
                name: Lowered(**{**one, "cost": Cost(**one["cost"])})
                for name, one in content.items()
            },
            outputs=load_file(folder / OUTPUTS),
        )
