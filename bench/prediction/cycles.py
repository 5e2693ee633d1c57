"""Vela's cycles of whole subnets beside what the tables of an Ethos-U's profile add up to."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from bench.prediction.measuring import LENGTHS
from bench.prediction.rows import Row
from ortho_edge.checkpoint import Checkpoint, TrainedSubnet
from ortho_edge.cli import UserError
from ortho_edge.components import FRAMES_PER_SECOND
from ortho_edge.devices.latency import predict_footprint, predict_latency
from ortho_edge.devices.profile import AssumedSpeed, DeviceProfile
from ortho_export.ethos_u.environment import lower_all
from ortho_export.ethos_u.pipeline import PRECISION
from ortho_export.ethos_u.profiling import costed
from ortho_export.ethos_u.protocol import Cost, Job
from ortho_export.results import ETHOS_U
from ortho_export.sample import load_sample

Compile = Callable[[TrainedSubnet, float], Cost]
"""Vela's figures of a whole subnet for so many seconds of audio."""


def compiler(profile: DeviceProfile, checkpoint: Checkpoint, path: Path) -> Compile:
    """Lowers whole subnets for the accelerator of a profile.

    Args:
        profile: Of an Ethos-U.
        checkpoint: Whose subnets.
        path: Its folder, with the clip that ranges are taken from.

    Raises:
        UserError: The profile is of another device.
    """
    if ETHOS_U not in profile.runtimes:
        raise UserError(f"device {profile.name!r} is no Ethos-U: Vela has no cycles for it")
    sample = load_sample(path)

    def found(subnet: TrainedSubnet, seconds: float) -> Cost:
        frames = round(seconds * FRAMES_PER_SECOND)
        job = Job(name=subnet.name, kept=subnet.subnet.kept, frames=frames)
        with tempfile.TemporaryDirectory() as folder:
            request = costed(profile.name, checkpoint, sample, [job])
            return lower_all(request, Path(folder)).lowered[job.name].cost

    return found


def cycle_rows(
    checkpoint: Checkpoint,
    profile: DeviceProfile,
    subnets: Sequence[TrainedSubnet],
    found: Compile,
    kept: Path,
) -> Iterator[Row]:
    """Cycles and arena of every subnet, each at one of `LENGTHS` in turn.

    Args:
        checkpoint: Whose subnets.
        profile: Of an Ethos-U.
        subnets: Held out.
        found: Compiles one.
        kept: What was compiled before stands in this file and is not compiled again.
    """
    space = checkpoint.supernet.space
    known = json.loads(kept.read_text("utf-8")) if kept.is_file() else {}
    for index, subnet in enumerate(tqdm(subnets, desc="compiling", unit="network")):
        seconds = LENGTHS[index % len(LENGTHS)]
        key = f"{subnet.name} {seconds:g}"
        if key not in known:
            cost = found(subnet, seconds)
            known[key] = (cost.cycles, cost.sram_bytes)
            kept.write_text(json.dumps(known), "utf-8")
        cycles, sram_bytes = known[key]
        prediction = predict_latency(profile, space, subnet.subnet, seconds, ETHOS_U, PRECISION)
        assert isinstance(prediction.assumed_speed, AssumedSpeed)
        footprint = predict_footprint(profile, space, subnet.subnet, seconds, ETHOS_U, PRECISION)
        for quantity, predicted, measured in (
            (
                "cycles, M",
                prediction.milliseconds / prediction.assumed_speed.milliseconds(1e6),
                cycles / 1e6,
            ),
            ("arena, kB", 1e3 * footprint.memory_mb, sram_bytes / 1e3),
        ):
            yield Row(
                subnet=subnet.name,
                share=len(subnet.subnet.kept) / len(space),
                runtime=profile.name,
                precision=PRECISION,
                quantity=quantity,
                seconds=seconds,
                predicted=predicted,
                measured=measured,
            )
