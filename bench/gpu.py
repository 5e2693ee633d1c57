"""Measures the kernels on a GPU: `python bench/gpu.py`, some eight minutes, no network.

In this order: the roofs of the machine; every kernel against float64 in float32, tf32, float16 and
bfloat16; one training step of a 12-block, 512-wide supernet; times of the operations against the
strongest plain torch at the same masks. A kernel that is not correct gets no times. Writes
`bench/results/<gpu>.json` and prints a short table last.

    python bench/gpu.py             measure
    python bench/gpu.py --tune      first look for the best launch configurations, and ship them
    python bench/gpu.py --adopt     make kernels that reach their target the default on this GPU
    python bench/gpu.py --floors    only print what an H200's roofs allow; needs no GPU
    python bench/gpu.py --rehearse  tiny sizes in Triton's interpreter: anywhere, without meaning
"""

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
# Works from a bare checkout, where only torch, triton and numpy are installed.
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "kernels")]

SECONDS = 480


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=REPOSITORY / "bench" / "results")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="stop measuring after this")
    parser.add_argument("--tune", action="store_true", help="tune launch configurations first")
    parser.add_argument("--adopt", action="store_true", help="write what is the default here")
    parser.add_argument("--floors", action="store_true", help="print the floors of an H200")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes in the interpreter")
    return parser.parse_args()


def main() -> int:
    """Measures and writes; 1 when a kernel is not correct, 2 when there is no GPU."""
    options = arguments()
    if options.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported, so before anything
    import torch

    from bench.on_gpu import operations, report, tuning
    from bench.on_gpu.timing import H200

    if options.floors:
        print(report.floors_table(H200))
        return 0
    if not options.rehearse and not torch.cuda.is_available():
        print("no GPU here; --rehearse runs everything in Triton's interpreter", file=sys.stderr)
        return 2
    device = torch.device("cpu" if options.rehearse else "cuda")
    results = measure(device, options)
    if options.adopt and not options.rehearse:
        print(f"written: {tuning.adopt(device, operations.speedups(results.timings))}")
    print(report.table(results))
    if options.rehearse:
        print("A rehearsal on the CPU: no time above means anything, and nothing was written.")
    return 1 if results.wrong else 0


def measure(device, options: argparse.Namespace):
    """Everything, in the order of importance; written after every part, for a run may be killed."""
    from bench.on_gpu import correctness, operations, report, step, tuning
    from bench.on_gpu.timing import measure_roofs

    started = time.monotonic()
    rehearsing = options.rehearse

    def note(text: str) -> None:
        print(f"[{time.monotonic() - started:4.0f} s] {text}", flush=True)

    def save() -> None:
        if not rehearsing:
            note(f"written: {report.write(results, options.out)}")

    note(report.machine_name(device))
    if options.tune:
        tuning.tune(device, note, rehearsal=rehearsing)
    results = report.Results(device, measure_roofs(device))
    note("correctness")
    precisions, sizes = correctness.PRECISIONS, correctness.SIZES
    timed_sizes = list(operations.sizes())
    architecture, batch, frames = step.FULL_SIZE, 32, 1600
    if rehearsing:  # the interpreter has no tf32 and returns garbage for bfloat16
        precisions = {name: precisions[name] for name in ("float32", "float16")}
        sizes = {name: rehearsal(size) for name, size in sizes.items() if "ragged" in name}
        timed_sizes = [rehearsal(timed_sizes[0])]
        architecture = replace(architecture, num_blocks=1, dim=64, num_heads=1, ffn_dim=64)
        batch, frames = 2, 40
    results.checks += correctness.check_all(device, sizes, precisions)
    for check in results.checks:
        if not check.passed:
            note(f"WRONG {check}")
    save()
    sandwich = step.Sandwich(architecture, batch, frames, device)
    for way in step.ways():
        note(f"step, {way.name}")
        if way.kernels == "triton" and results.wrong:
            why = f"{', '.join(sorted(results.wrong))} not correct"
        elif rehearsing and (way.compiled or not way.stacked):
            why = "not rehearsed"
        elif time.monotonic() > started + 0.6 * options.seconds:
            why = "out of time"
        else:
            results.steps.append(step.time_step(sandwich, way))
            continue
        results.skipped.append(f"step, {way.name}: {why}")
    del sandwich
    save()
    for number, size in enumerate(timed_sizes):
        timings, skipped = operations.time_size(
            device, size, results.wrong, results.roofs, started + options.seconds, note,
            autotune=number == 0, rehearsal=rehearsing,
        )  # fmt: skip
        results.timings += timings
        results.skipped += skipped
        save()
    return results


def rehearsal(size):
    """A size that the interpreter manages in a second."""
    return replace(size, subnets=min(size.subnets, 2), batch=2, frames=9, dim=64)


if __name__ == "__main__":
    sys.exit(main())
