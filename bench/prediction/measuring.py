"""Predictions beside measurements: files and memory, instruction counts, latencies of this host."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tqdm import tqdm

from bench.prediction.rows import Row
from bench.prediction.subnets import Artefacts
from ortho_edge.checkpoint import TrainedSubnet
from ortho_edge.devices.footprint import WARM_UP_PROBE
from ortho_edge.devices.latency import predict_footprint, predict_latency
from ortho_edge.devices.measurements import Key, Measurements, Runtime
from ortho_edge.devices.memory import peak_memories_mb
from ortho_edge.devices.profile import AssumedSpeed, DeviceProfile
from ortho_edge.devices.profiler import host_profile, observe_host, timed_calls
from ortho_edge.devices.timing import Timing

LENGTHS = (1.0, 4.0, 10.0)
LONGEST = max(LENGTHS)


def static_rows(artefacts: Artefacts, profile: DeviceProfile, every: int) -> Iterator[Row]:
    """File size and planned memory of all subnets, peak memory of every `every`-th."""
    for runtime in artefacts.runtimes:
        for subnet in artefacts.subnets:
            yield _footprint_row(artefacts, profile, runtime, subnet, "file size, MB", None)
            if runtime.planned_bytes is not None:
                yield _footprint_row(
                    artefacts, profile, runtime, subnet, "planned memory, MB", None
                )
        yield from _peak_rows(artefacts, profile, runtime, every)


def _peak_rows(
    artefacts: Artefacts, profile: DeviceProfile, runtime: Runtime, every: int
) -> Iterator[Row]:
    points = [(one, seconds) for one in artefacts.subnets[::every] for seconds in LENGTHS]
    warm_up = artefacts.probe_file(runtime, WARM_UP_PROBE)
    peaks = peak_memories_mb(
        runtime.load, warm_up, [(artefacts.file(runtime, one), seconds) for one, seconds in points]
    )
    for (subnet, seconds), peak in zip(points, peaks, strict=True):
        yield _footprint_row(
            artefacts, profile, runtime, subnet, "peak memory, MB", seconds, measured=peak
        )


def _footprint_row(
    artefacts: Artefacts,
    profile: DeviceProfile,
    runtime: Runtime,
    subnet: TrainedSubnet,
    quantity: str,
    seconds: float | None,
    measured: float | None = None,
) -> Row:
    space = artefacts.checkpoint.supernet.space
    footprint = predict_footprint(
        profile, space, subnet.subnet, seconds or LONGEST, runtime.name, runtime.precision
    )
    file = artefacts.file(runtime, subnet)
    if quantity == "file size, MB":
        predicted, measured = footprint.size_mb, file.stat().st_size / 1e6
    elif quantity == "planned memory, MB":
        assert runtime.planned_bytes is not None
        predicted, measured = footprint.planned_mb, runtime.planned_bytes(file) / 1e6
    else:
        predicted = footprint.memory_mb
    assert measured is not None
    return _row(artefacts, runtime, subnet, quantity, seconds, predicted, measured)


def _row(
    artefacts: Artefacts,
    runtime: Runtime,
    subnet: TrainedSubnet,
    quantity: str,
    seconds: float | None,
    predicted: float,
    measured: float,
    timing: Timing | None = None,
) -> Row:
    return Row(
        subnet=subnet.name,
        share=len(subnet.subnet.kept) / len(artefacts.checkpoint.supernet.space),
        runtime=runtime.name,
        precision=runtime.precision,
        quantity=quantity,
        seconds=seconds,
        predicted=predicted,
        measured=measured,
        halves_percent=None if timing is None else timing.spread_percent,
        p50=None if timing is None else timing.median_milliseconds,
    )


Count = Callable[[Path, tuple[float, ...]], list[int]]


def count_all(artefacts: Artefacts, count: Count, kept: Path) -> dict[str, list[int]]:
    """Instructions of every ExecuTorch program at `LENGTHS`; what was counted before is kept."""
    (runtime,) = artefacts.runtimes
    found: dict[str, list[int]] = json.loads(kept.read_text("utf-8")) if kept.is_file() else {}
    for subnet in tqdm(artefacts.subnets, desc="counting", unit="network"):
        if subnet.name not in found:
            found[subnet.name] = count(artefacts.file(runtime, subnet), LENGTHS)
            kept.write_text(json.dumps(found), "utf-8")
    return found


def count_rows(
    artefacts: Artefacts, profile: DeviceProfile, counts: Mapping[str, list[int]]
) -> Iterator[Row]:
    """Counted instructions beside those that a counted profile predicts."""
    (runtime,) = artefacts.runtimes
    for subnet in artefacts.subnets:
        for seconds, counted in zip(LENGTHS, counts[subnet.name], strict=True):
            prediction = predict_latency(
                profile, artefacts.checkpoint.supernet.space, subnet.subnet, seconds, runtime.name
            )
            assert isinstance(prediction.assumed_speed, AssumedSpeed)
            predicted = prediction.milliseconds / prediction.assumed_speed.milliseconds(1e6)
            yield _row(
                artefacts, runtime, subnet, "instructions, M", seconds, predicted, counted / 1e6
            )


def profile_host(artefacts: Artefacts, seconds: float) -> tuple[DeviceProfile, Measurements]:
    """A profile of this host as `python -m ortho_edge.profile` makes it, from kept artefacts.

    The held-out subnets take turns with the probes: on a machine that is shared, speed drifts by
    more from one minute to the next than a prediction is off. No profile is fitted to them.
    """
    with tempfile.TemporaryDirectory() as folder:
        measured = observe_host(
            artefacts.checkpoint, artefacts.runtimes, Path(folder), timing_seconds=seconds,
            beside=_held_out_calls(artefacts),
        )  # fmt: skip
        return host_profile(measured, artefacts.runtimes), measured


def _held_out_calls(artefacts: Artefacts) -> dict[Key, Callable[[], object]]:
    return {
        (runtime.key, subnet.name, length): call
        for runtime in artefacts.runtimes
        for subnet in artefacts.subnets
        for length, call in timed_calls(
            runtime.load(artefacts.file(runtime, subnet)), LENGTHS
        ).items()
    }


def latency_rows(
    artefacts: Artefacts, profile: DeviceProfile, timings: Mapping[Key, Timing]
) -> Iterator[Row]:
    """Latencies beside those predicted."""
    for runtime in artefacts.runtimes:
        for subnet in artefacts.subnets:
            for seconds in LENGTHS:
                key = (runtime.key, subnet.name, seconds)
                prediction = predict_latency(
                    profile, artefacts.checkpoint.supernet.space, subnet.subnet, seconds,
                    runtime.name, runtime.precision,
                )  # fmt: skip
                yield _row(
                    artefacts, runtime, subnet, "latency, ms", seconds, prediction.milliseconds,
                    timings[key].milliseconds, timings[key],
                )  # fmt: skip
