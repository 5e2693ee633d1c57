"""Counts again what `counts.json` holds: `python -m tests.devices.record_counts FOLDER`.

Needed whenever the fp32 program of a subnet changes. Programs and counts of every network are kept
in the folder, so that what was interrupted goes on. Minutes on a quiet machine.
"""

import dataclasses
import json
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from ortho_edge.checkpoint import Checkpoint, TrainedSubnet, load_checkpoint, shipped_checkpoint
from ortho_edge.devices.probes import probes
from ortho_export.arm.counts import counter, noise
from ortho_export.arm.machines import emulator
from ortho_export.arm.toolchain import load_bundle
from ortho_export.host import export_program
from tests.devices.recorded import RECORDED, random_subnets

CORE = "cortex-a76"
PLACE = Path(__file__).with_name("counts.json")


def networks() -> dict[str, tuple[Checkpoint, TrainedSubnet]]:
    """Probes, trained sizes and random subnets, by name."""
    checkpoint = load_checkpoint(shipped_checkpoint())
    found = {one.trained.name: (one.checkpoint, one.trained) for one in probes(checkpoint, 0)}
    found |= {one.name: (checkpoint, one) for one in checkpoint.subnets}
    for name, subnet in random_subnets(checkpoint.supernet.space).items():
        trained = dataclasses.replace(checkpoint.subnets[0], name=name, subnet=subnet)
        found[name] = checkpoint, trained
    return found


def record(folder: Path) -> dict[str, dict[str, int]]:
    """Instructions by network and seconds of audio, for the lengths that are recorded now."""
    folder.mkdir(parents=True, exist_ok=True)
    made = networks()
    counts = {}
    with emulator(CORE) as machine:
        count = counter(machine, load_bundle())
        for name, lengths in tqdm(RECORDED.items(), unit="network"):
            known = folder / f"{name}.json"
            if not known.exists():
                program = folder / f"{name}.fp32.pte"
                if not program.exists():
                    checkpoint, trained = made[name]
                    export_program(checkpoint, dataclasses.replace(trained, name=name), folder)
                found = count(program, [noise(float(one)) for one in lengths])
                known.write_text(json.dumps(dict(zip(lengths, found, strict=True))), "ascii")
            counts[name] = json.loads(known.read_text("ascii"))
    return counts


if __name__ == "__main__":
    torch.set_num_threads(1)
    PLACE.write_text(json.dumps(record(Path(sys.argv[1])), indent=1) + "\n", "ascii")
