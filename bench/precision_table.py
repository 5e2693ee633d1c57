"""What each precision costs in bytes and in words: `python -m bench.precision_table --help`."""

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from scipy.optimize import nnls

from bench.kept import export_kept
from ortho_edge.cli import run
from ortho_edge.devices.file_sizes import QUANTISED
from ortho_edge.devices.latency import file_bytes
from ortho_edge.devices.workload import Work, workload
from ortho_edge.precision import PRECISIONS, Precision


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Export subnets in every precision, and measure files, fidelity and error rates."""

    set: str = "digits/unseen"
    """RECIPE/SET, or a folder with transcripts.tsv and audio/<utterance>.flac."""
    checkpoint: Path | None = None
    """Checkpoint folder; by default the one that ships."""
    subnets: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Which subnets; all by default."""
    files: Path | None = None
    """Folder that keeps the artefacts; those that are there already are not made again."""
    calibration: str | None = None
    """Speech that fixed scales are taken from, named like the set; else the checkpoint's clip."""
    precisions: tyro.conf.UseAppendAction[tuple[Precision, ...]] = ()
    """Which precisions besides fp32; all by default."""
    data: Path | None = None
    """Folder of the corpora; by default ORTHO_EDGE_DATA, else ../shared/data."""


def main(arguments: Arguments) -> None:
    """Prints one row per artefact, then what the file of every precision takes."""
    import torch

    from ortho_edge.checkpoint import load_checkpoint, shipped_checkpoint
    from ortho_edge.compaction import compact
    from ortho_edge.training.corpora import DataOptions
    from ortho_edge.training.evaluation import error_rates, transcribe_cuts
    from ortho_edge.training.speech_sets import speech_set
    from ortho_export.accuracy import alone
    from ortho_export.artefact import load_artefact
    from ortho_export.calibration import calibration_features
    from ortho_export.facts import MAX_FRAMES, MIN_FRAMES
    from ortho_export.fidelity import decibels, powers
    from ortho_export.host import host_runtimes
    from ortho_export.sample import load_sample

    torch.set_num_threads(1)
    path = arguments.checkpoint or shipped_checkpoint()
    checkpoint = load_checkpoint(path)
    options = DataOptions(root=arguments.data)
    named = arguments.calibration
    calibration = calibration_features(
        load_sample(path),
        None if named is None else speech_set(named, options),
        checkpoint.tokens,
        MIN_FRAMES,
        MAX_FRAMES,
    )
    cuts = speech_set(arguments.set, options).to_eager()
    precisions = tuple(dict.fromkeys(("fp32", *(arguments.precisions or PRECISIONS))))
    print("| size | runtime | precision | file (MB) | smaller by | SNR (dB) | same strings | WER |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    sizes: dict[tuple[str, str], list[tuple[Sequence[Work], int]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.files or Path(temporary)
        for name in arguments.subnets or [one.name for one in checkpoint.subnets]:
            trained = checkpoint.subnet(name)
            eager = alone(compact(checkpoint.supernet, trained.subnet, trained.head))
            outputs: dict[str, list[torch.Tensor]] = {}

            def kept(key, encoder, outputs=outputs):
                """The encoder, keeping what it says."""

                def keep(features: torch.Tensor, lengths: torch.Tensor):
                    log_probs, out_lengths = encoder(features, lengths)
                    outputs.setdefault(key, []).extend(
                        one[:length]
                        for one, length in zip(log_probs, out_lengths.tolist(), strict=True)
                    )
                    return log_probs, out_lengths

                return keep

            encoders, files = {"eager": kept("eager", eager)}, {}
            for precision in precisions:
                for runtime in host_runtimes(precision, calibration):
                    file = export_kept(runtime, folder, checkpoint, trained)
                    files[runtime.key] = (runtime, file)
                    recognizer = load_artefact(file, trusted=True)
                    encoders[runtime.key] = kept(runtime.key, alone(recognizer.encode_batch))
            works = workload(checkpoint.supernet.space, trained.subnet, 1.0)
            for runtime, file in files.values():
                sizes.setdefault((runtime.name, runtime.precision), []).append(
                    (works, file.stat().st_size)
                )
            said = transcribe_cuts(encoders, cuts, checkpoint.tokens)
            for key, (runtime, file) in files.items():
                pairs = zip(outputs["eager"], outputs[key], strict=True)
                energies = [powers(one.numpy(), other.numpy()) for one, other in pairs]
                signal, noise = (sum(part) for part in zip(*energies, strict=True))
                same = [
                    one.hypothesis == other.hypothesis
                    for one, other in zip(said["eager"], said[key], strict=True)
                ]
                plain = files[runtime.name][1].stat().st_size
                size = file.stat().st_size
                print(
                    f"| {name} | {runtime.name} | {runtime.precision} | {size / 1e6:.3f} | "
                    f"{plain / size:.2f} x | {decibels(signal, noise):.1f} | "
                    f"{100 * sum(same) / len(same):.1f} % | {error_rates(said[key]).wer:.2f} |",
                    flush=True,
                )
    print()
    for (runtime, precision), found in sizes.items():
        if (runtime, precision) in QUANTISED and len(found) > 1:
            print(f"{runtime} {precision}: {graph_size(runtime, precision, found)}")


def graph_size(runtime: str, precision: str, files: Sequence[tuple[Sequence[Work], int]]) -> str:
    """What the graph takes besides the numbers, fitted to files, for `ortho_edge.devices`."""
    numbers = dataclasses.replace(QUANTISED[runtime, precision], fixed_kb=0.0, kb_per_layer=0.0)
    layers = np.array([sum(work.layers for work in works) for works, _ in files])
    sizes = np.array([size for _, size in files])
    graphs = sizes - [file_bytes(numbers, works) for works, _ in files]
    system = np.stack([np.ones(len(files)), layers], 1) * 1e3
    # Errors count relative to the whole file.
    (fixed, per_layer), _ = nnls(system / sizes[:, None], graphs / sizes)
    worst = 100 * np.abs((system @ [fixed, per_layer] - graphs) / sizes).max()
    return f"fixed_kb={fixed:.4g}, kb_per_layer={per_layer:.4g}, worst {worst:.2f} % of a file"


if __name__ == "__main__":
    run(main, Arguments, prog="python -m bench.precision_table")
