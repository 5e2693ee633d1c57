"""Our encoder beside public ones of its size: `python -m bench.peers --help`."""

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

from ortho_edge.cli import UserError, run

SCHEMA_VERSION = 1
PACKAGES = ("torch", "transformers", "executorch", "onnxruntime", "onnx", "numpy")
EAGER, COMPILED = "torch eager", "torch.compile"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Build encoders, time all of them in turns, and show a table; or show one made before."""

    files: Path | None = None
    """Folder of artefacts, built where it lacks any; timing starts when it is complete."""
    build_only: bool = False
    """Do not time; artefacts and memory do not mind a busy machine."""
    seconds: float = 90.0
    """At most so long per length of audio."""
    json: Path | None = None
    """Where results go; without --files, which results to show."""
    plot: Path | None = None
    """Image of latency against FLOPs."""


def main(arguments: Arguments) -> None:
    """Builds, times and shows, as far as asked."""
    from bench.peers_table import plot, table

    if arguments.files is None:
        if arguments.json is None:
            raise UserError("name a folder of artefacts with --files, or results with --json")
        results = _read(arguments.json)
    else:
        results = _measure(arguments)
        if results is None:
            return
    print("\n".join(table(results["results"])))
    if arguments.plot is not None:
        plot(results["results"], arguments.plot)


def _read(path: Path) -> dict:
    try:
        results = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} holds no results of this bench: {error}") from error
    if results.get("schema_version") != SCHEMA_VERSION:
        raise UserError(f"{path} is not of schema version {SCHEMA_VERSION}")
    return results


def _measure(arguments: Arguments) -> dict | None:
    import torch

    from bench.peer_files import build_all
    from ortho_edge.atomic import write_atomically

    assert arguments.files is not None
    torch.set_num_threads(1)
    built = build_all(arguments.files)
    for one in built:
        if one.failed:
            print(f"not exported: {one.file}: {one.failed}")
    if arguments.build_only:
        return None
    rows = _time(arguments.files, built, arguments.seconds)
    results = {"schema_version": SCHEMA_VERSION, **_circumstances(), "results": rows}
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(arguments.json, json.dumps(results, indent=1) + "\n")
    return results


def _circumstances() -> dict:
    from ortho_edge.devices.host import host_hardware

    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    hardware = host_hardware()
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip() or None,
        "host": {"processor": hardware.soc.value, "cores": hardware.cores[0].count},
        "versions": {name: version(name) for name in PACKAGES},
        "clock": "CPU time of one pinned thread, all encoders in turns",
    }


def _time(folder: Path, built: Sequence, limit_seconds: float) -> list[dict]:
    """One result per artefact and length, and per eager encoder and length."""
    from bench.peer_files import SECONDS, runner
    from ortho_edge.devices.timing import pinned, time_in_turns

    rows = []
    for seconds in SECONDS:
        known: dict[str, dict] = {}
        calls: dict[str, Callable[[], object]] = {}
        for one in built:
            if one.failed or seconds not in one.lengths:
                continue
            key = f"{one.group}/{one.name}/{one.input}/{one.runtime}"
            known[key] = _facts(one, seconds)
            calls[key] = runner(folder / one.file, one, seconds)
            eager = key.replace(one.runtime, EAGER)
            if eager not in calls:
                for name, call in _in_torch(one, seconds).items():
                    known[eager.replace(EAGER, name)] = {
                        **known[key], "runtime": name, "memory_mb": None
                    }  # fmt: skip
                    calls[eager.replace(EAGER, name)] = call
        with pinned():
            timings = time_in_turns(calls, limit_seconds=limit_seconds, label=f"{seconds:g} s")
        for key, timing in timings.items():
            rows.append({
                **known[key],
                "min_ms": timing.milliseconds,
                "p50_ms": timing.median_milliseconds,
                "spread_percent": timing.spread_percent,
                "rtf": timing.milliseconds / 1000 / seconds,
            })  # fmt: skip
    return rows


def _facts(one, seconds: float) -> dict:
    length = f"{seconds:g}"
    return {
        "group": one.group, "name": one.name, "input": one.input, "runtime": one.runtime,
        "seconds": seconds, "params": one.params, "mflops": one.flops[length] / 1e6,
        "frames": one.frames[length], "size_mb": one.size_mb, "delegates": one.delegates,
        "memory_mb": one.memory_mb.get(length),
    }  # fmt: skip


def _in_torch(one, seconds: float) -> Mapping[str, Callable[[], object]]:
    """The encoder in eager mode, and ours compiled for any length too."""
    import torch

    from bench.peer_encoders import example, ours, peers
    from bench.peer_files import OURS, Ours
    from ortho_export.audio import AudioModel

    x = example(one.input, seconds)
    if one.name == OURS:
        encoder = ours(one.group)
        module = Ours(AudioModel(encoder) if one.input == "audio" else encoder)
        modules = {EAGER: module, COMPILED: torch.compile(module, dynamic=True)}
    else:
        peer = next(p for p in peers() if (p.name, p.group) == (one.name, one.group))
        modules = {EAGER: peer.make(peer.length(seconds))}

    def call(module) -> None:
        with torch.no_grad():
            module(x)

    return {name: partial(call, module) for name, module in modules.items()}


if __name__ == "__main__":
    run(main, Arguments, prog="python -m bench.peers")
