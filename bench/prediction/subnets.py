"""The held-out subnets: random ones of every size, and their artefacts in a folder that is kept.

Every second subnet keeps each kind of module to a random share of its own, so that what a budget
shapes (few heads, many convolutions) is among them.
"""

import hashlib
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from bench.kept import export_kept, kept_file
from ortho_edge.checkpoint import Checkpoint, TrainedSubnet, load_checkpoint, shipped_checkpoint
from ortho_edge.components import ComponentSpace
from ortho_edge.devices.probes import probes
from ortho_edge.devices.profiler import Runtime
from ortho_edge.precision import Precision
from ortho_edge.subnet import Subnet
from ortho_export.facts import checkpoint_digest
from ortho_export.host import host_runtimes

NUM_SUBNETS = 64
SMALLEST_SHARE, LARGEST_SHARE = 0.1, 0.97
SEED = 20261125
"""Not that of the profiler's probes."""
KEPT = Path(__file__).resolve().parent.parent / "cache"
WRITERS = (
    "audio", "batched", "delegate", "executorch", "facts", "flat", "flatbuffer",
    "integer_convolution", "onnx", "quantized_model", "quantized_program", "xnnpack_graph",
)  # fmt: skip
"""Modules of `ortho_export` that decide what is in an artefact."""


def held_out_subnets(space: ComponentSpace) -> tuple[TrainedSubnet, ...]:
    """`NUM_SUBNETS` subnets of evenly spread numbers of components.

    Neighbours differ in size, so that any leading part of them holds all sizes.
    """
    generator = np.random.default_rng(SEED)
    shares = np.linspace(SMALLEST_SHARE, LARGEST_SHARE, NUM_SUBNETS)
    subnets = []
    for index, share in enumerate(shares):
        weights = np.ones(len(space))
        if index % 2:
            kinds = space.kinds
            of_kind = dict(zip(kinds, generator.uniform(0.1, 1.0, len(kinds)), strict=True))
            weights = np.array([of_kind[one.module] for one in space.components])
        kept = generator.choice(
            len(space), round(share * len(space)), replace=False, p=weights / weights.sum()
        )
        subnet = Subnet.of(len(space), np.asarray(kept).tolist())
        subnets.append(TrainedSubnet(name=f"r{index:02d}", subnet=subnet, head=0, target=share))
    return tuple(subnets[index] for index in _spread(NUM_SUBNETS))


def _spread(count: int) -> list[int]:
    """All indices by their reversed bits: halves of the range, then quarters, and so on."""
    bits = (count - 1).bit_length()
    turned = (int(f"{index:0{bits}b}"[::-1], 2) for index in range(1 << bits))
    return [index for index in turned if index < count]


def default_folder() -> Path:
    """Where artefacts are kept; the name holds what decides their bytes."""
    versions = "-".join(version(name) for name in ("executorch", "onnxruntime", "torch"))
    code = hashlib.sha256()
    for name in WRITERS:
        code.update(resources.files("ortho_export").joinpath(f"{name}.py").read_bytes())
    digests = f"{checkpoint_digest(shipped_checkpoint())[:12]}-{code.hexdigest()[:12]}"
    return KEPT / f"{versions}-{digests}"


@dataclass(frozen=True, kw_only=True)
class Artefacts:
    """The shipped checkpoint's held-out subnets, and where their artefacts are kept.

    Attributes:
        subnets: Those of which every artefact is there.
        runtimes: At every precision asked for; their `export` keeps what it makes.
    """

    checkpoint: Checkpoint
    folder: Path
    subnets: tuple[TrainedSubnet, ...]
    runtimes: tuple[Runtime, ...]

    def file(self, runtime: Runtime, subnet: TrainedSubnet) -> Path:
        """The artefact of a subnet."""
        return kept_file(self.folder, runtime, subnet.name)

    def probe_file(self, runtime: Runtime, name: str) -> Path:
        """The artefact of one of the profiler's probes, made where it is missing."""
        made = probes(self.checkpoint, seed=0, for_times=True)
        probe = next(one for one in made if one.trained.name == name)
        return runtime.export(probe.checkpoint, probe.trained, self.folder)


def built(folder: Path, precisions: Sequence[Precision], names: Sequence[str] = ()) -> Artefacts:
    """The artefacts that are there, of all runtimes or of those named."""
    checkpoint = load_checkpoint(shipped_checkpoint())
    runtimes = tuple(
        replace(one, export=partial(_export_kept, one, folder))
        for precision in precisions
        for one in host_runtimes(precision)
        if not names or one.name in names
    )
    there = tuple(
        one
        for one in held_out_subnets(checkpoint.supernet.space)
        if all(kept_file(folder, runtime, one.name).is_file() for runtime in runtimes)
    )
    return Artefacts(checkpoint=checkpoint, folder=folder, subnets=there, runtimes=runtimes)


def _export_kept(
    runtime: Runtime, kept: Path, checkpoint: Checkpoint, subnet: TrainedSubnet, _: Path
) -> Path:
    """What `Runtime.export` is replaced by: the folder that is asked for is not where it goes."""
    return export_kept(runtime, kept, checkpoint, subnet)


def build(folder: Path, precisions: Sequence[Precision], workers: int) -> None:
    """Writes the artefacts of held-out subnets and of the profiler's probes that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = built(folder, precisions)
    checkpoint = asked.checkpoint
    networks = [(checkpoint, one) for one in held_out_subnets(checkpoint.supernet.space)]
    networks += [
        (one.checkpoint, one.trained) for one in probes(checkpoint, seed=0, for_times=True)
    ]
    jobs = [
        (runtime, *network)
        for network in networks
        for runtime in asked.runtimes
        if not kept_file(folder, runtime, network[1].name).is_file()
    ]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, torch.set_num_threads, (1,)) as pool:
        futures = [
            pool.submit(runtime.export, supernet, subnet, folder)
            for runtime, supernet, subnet in jobs
        ]
        for done in tqdm(as_completed(futures), total=len(jobs), unit="artefact"):
            done.result()
