"""Instruction counts that were recorded once, and the profile that is fitted to them.

Of every probe of the shipped checkpoint's architecture, of trained sizes and of random subnets:
ExecuTorch 1.5.1 on an emulated cortex-a76, by `ortho_export.arm.counts`, 2026-11-26, in fp32 and
in int8.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ortho_edge.checkpoint import Checkpoint, TrainedSubnet
from ortho_edge.components import ComponentSpace
from ortho_edge.devices.counted import count_device
from ortho_edge.devices.profile import AssumedSpeed, DeviceProfile
from ortho_edge.devices.profiler import Runtime
from ortho_edge.precision import Precision
from ortho_edge.subnet import Subnet

RECORDED: dict[Precision, dict[str, dict[str, int]]] = json.loads(
    Path(__file__).with_name("counts.json").read_text("utf-8")
)
"""Instructions by precision, network and seconds of audio."""
SIZES: dict[str, list[int]] = json.loads(Path(__file__).with_name("sizes.json").read_text("utf-8"))
"""Components of trained sizes whose programs were counted and weighed: those that shipped then.
Costs depend on what is kept alone, so another training changes none of the records."""
RANDOM_SHARES = {"extra-0": 0.25, "extra-1": 0.5, "extra-2": 0.8}
"""Share of the components that the random subnets keep; no profile is fitted to them."""


def recorded_sizes(space: ComponentSpace) -> dict[str, Subnet]:
    """The trained sizes that were counted."""
    return {name: Subnet.of(len(space), kept) for name, kept in SIZES.items()}


def random_subnets(space: ComponentSpace) -> dict[str, Subnet]:
    """Those that were counted."""
    generator = np.random.default_rng(99)
    return {
        name: Subnet.of(
            len(space),
            generator.choice(len(space), round(share * len(space)), replace=False).tolist(),
        )
        for name, share in RANDOM_SHARES.items()
    }


def recorded_profile(checkpoint: Checkpoint, folder: Path, speed: AssumedSpeed) -> DeviceProfile:
    """What the profiler makes of the recorded counts."""
    recorded: dict[Path, dict[str, int]] = {}

    def export(
        precision: Precision, checkpoint: Checkpoint, trained: TrainedSubnet, folder: Path
    ) -> Path:
        file = folder / f"{trained.name}.{precision}"
        file.write_bytes(b"a program")
        recorded[file] = RECORDED[precision][trained.name]
        return file

    def count(file: Path, lengths: Sequence[float]) -> list[int]:
        return [recorded[file][f"{seconds:g}"] for seconds in lengths]

    runtimes = [
        Runtime(
            name="executorch",
            version="1.5.1",
            export=partial(export, precision),
            load=lambda file: print,
            precision=precision,
        )
        for precision in RECORDED
    ]
    return count_device(
        checkpoint,
        runtimes,
        folder,
        count,
        core="cortex-a76",
        counted_by="QEMU 1",
        speed=speed,
        peak_memory=lambda load, file, warm_up, seconds: 10.0 + seconds,
    )
