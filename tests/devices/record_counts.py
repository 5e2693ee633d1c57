"""Counts again what `counts.json` holds: `python -m tests.devices.record_counts FOLDER`.

Needed whenever the fp32 or int8 program of a subnet changes. Programs and counts of every network
are kept in the folder, so that what was interrupted goes on. A quarter of an hour on a quiet
machine. The tables of the core that ship are fitted to them anew; `make profiles` then takes them
over.
"""

import dataclasses
import json
import re
import sys
import tempfile
from datetime import date
from pathlib import Path

import torch

from ortho_edge.atomic import write_atomically
from ortho_edge.checkpoint import Checkpoint, TrainedSubnet, load_checkpoint, shipped_checkpoint
from ortho_edge.devices.catalogue import profile_text, read_profile
from ortho_edge.devices.probes import probes
from ortho_edge.devices.shipped import cores_folder
from ortho_edge.precision import Precision
from ortho_edge.progress import track
from ortho_export.arm.counts import counter, noise
from ortho_export.arm.machines import emulator
from ortho_export.arm.toolchain import load_bundle
from ortho_export.host import export_program
from tests.devices.recorded import RECORDED, random_subnets, recorded_profile, recorded_sizes

CORE, DATE = "cortex-a76", r"\d{4}-\d{2}-\d{2}"
PLACE = Path(__file__).with_name("counts.json")


def networks() -> dict[str, tuple[Checkpoint, TrainedSubnet]]:
    """Probes, trained sizes and random subnets, by name."""
    checkpoint = load_checkpoint(shipped_checkpoint())
    found = {one.trained.name: (one.checkpoint, one.trained) for one in probes(checkpoint, 0)}
    space = checkpoint.supernet.space
    for name, subnet in (recorded_sizes(space) | random_subnets(space)).items():
        trained = dataclasses.replace(checkpoint.subnets[0], name=name, subnet=subnet)
        found[name] = checkpoint, trained
    return found


def record(folder: Path) -> dict[Precision, dict[str, dict[str, int]]]:
    """Instructions by precision, network and seconds of audio, for what is recorded now."""
    folder.mkdir(parents=True, exist_ok=True)
    made = networks()
    counts: dict[Precision, dict[str, dict[str, int]]] = {one: {} for one in RECORDED}
    wanted: list[tuple[Precision, str]] = [
        (one, name) for one in RECORDED for name in RECORDED[one]
    ]
    with emulator(CORE) as machine:
        count = counter(machine, load_bundle())
        for precision, name in track(wanted, "counting", unit="networks"):
            known = folder / f"{name}.{precision}.json"
            if not known.exists():
                program = folder / f"{name}.{precision}.pte"
                if not program.exists():
                    checkpoint, trained = made[name]
                    trained = dataclasses.replace(trained, name=name)
                    export_program(checkpoint, trained, folder, precision)
                lengths = RECORDED[precision][name]
                found = count(program, [noise(float(one)) for one in lengths])
                known.write_text(json.dumps(dict(zip(lengths, found, strict=True))), "ascii")
            counts[precision][name] = json.loads(known.read_text("ascii"))
    return counts


def fit(checkpoint: Checkpoint) -> None:
    """Writes the counted tables that ship, from `counts.json`."""
    place = cores_folder() / f"{CORE}.toml"
    profile = read_profile(place)
    tables = profile.runtimes["executorch"]
    speed = tables["fp32"].assumed_speed
    assert speed is not None
    with tempfile.TemporaryDirectory() as folder:
        fitted = recorded_profile(checkpoint, Path(folder), speed).runtimes["executorch"]
    costs = {
        precision: dataclasses.replace(
            tables[precision],
            modules=again.modules,
            scale=again.scale,
            us_per_boundary=again.us_per_boundary,
            error_percent=again.error_percent,
            worst_error_percent=again.worst_error_percent,
            rows_at_once=again.rows_at_once,
            source=re.sub(DATE, f"{date.today()}", tables[precision].source),
        )
        for precision, again in fitted.items()
    }
    runtimes = {"executorch": costs}
    write_atomically(place, profile_text(dataclasses.replace(profile, runtimes=runtimes)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    counts = record(Path(sys.argv[1]))
    PLACE.write_text(json.dumps(counts, indent=1) + "\n", "ascii")
    RECORDED.update(counts)
    fit(load_checkpoint(shipped_checkpoint()))
