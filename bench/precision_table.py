"""What each precision costs in bytes and in words: `python -m bench.precision_table --help`."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from ortho_edge.cli import run
from ortho_edge.precision import PRECISIONS


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
    data: Path | None = None
    """Folder of the corpora; by default ORTHO_EDGE_DATA, else ../shared/data."""


def main(arguments: Arguments) -> None:
    """Prints one row per artefact."""
    import torch

    from ortho_edge.checkpoint import load_checkpoint, shipped_checkpoint
    from ortho_edge.compaction import compact
    from ortho_edge.training.corpora import DataOptions
    from ortho_edge.training.evaluation import error_rates, transcribe_cuts
    from ortho_edge.training.speech_sets import speech_set
    from ortho_export.accuracy import alone
    from ortho_export.artefact import load_artefact
    from ortho_export.fidelity import decibels, powers
    from ortho_export.host import host_runtimes

    torch.set_num_threads(1)
    checkpoint = load_checkpoint(arguments.checkpoint or shipped_checkpoint())
    cuts = speech_set(arguments.set, DataOptions(root=arguments.data)).to_eager()
    print("| size | runtime | precision | file (MB) | smaller by | SNR (dB) | same strings | WER |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.files or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
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
            for precision in PRECISIONS:
                for runtime in host_runtimes(precision):
                    suffix = ".pte" if runtime.name == "executorch" else ".onnx"
                    file = folder / f"{name}.{precision}{suffix}"
                    if not file.exists():
                        runtime.export(checkpoint, trained, folder)
                    files[runtime.key] = (runtime, file)
                    recognizer = load_artefact(file)
                    encoders[runtime.key] = kept(runtime.key, alone(recognizer.encode_batch))
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


if __name__ == "__main__":
    run(main, Arguments, prog="python -m bench.precision_table")
