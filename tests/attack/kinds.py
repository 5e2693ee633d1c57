"""Every kind of file that is read: real ones, how they are damaged, and what reads them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.attack import inputs, models, mutations, trees
from tests.attack.mutations import Mutation


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Files of one kind.

    Attributes:
        name: On the command line and in the table.
        share: Cases of every hundred.
        make: Writes real files into an empty folder.
        damage: By name of a file in it, how it is damaged.
        read: Reads what stands in the folder, one of whose files is damaged.
        contained: Whether what reads it runs in a process of its own, so that a crash is a refusal.
    """

    name: str
    share: float
    make: Callable[[Path], None]
    damage: Mapping[str, Sequence[Mutation]]
    read: Callable[[Path, str], object]
    contained: bool = False


def python_kinds() -> list[Kind]:
    """Those whose readers are cheap enough for thousands of cases."""
    text, structured = mutations.TEXT, trees.JSON
    return [
        Kind(
            name="checkpoint.json", share=16, make=models.make_checkpoint,
            damage={"checkpoint/checkpoint.json": structured}, read=models.read_checkpoint,
        ),
        Kind(
            name="safetensors", share=8, make=models.make_checkpoint,
            damage={"checkpoint/model.safetensors": trees.SAFETENSORS}, read=models.read_checkpoint,
        ),
        Kind(
            name="tokens.txt", share=6, make=models.make_checkpoint,
            damage={"checkpoint/tokens.txt": text}, read=models.read_checkpoint,
        ),
        Kind(
            name="metrics.jsonl", share=3, make=models.make_report,
            damage={"checkpoint/metrics.jsonl": trees.JSONL}, read=models.read_report,
        ),
        Kind(
            name="lexicon", share=5, make=inputs.make_lexicon,
            damage={"lexicon.txt": text, "cmudict": text}, read=inputs.read_lexicon,
        ),
        Kind(
            name="ARPA", share=11, make=inputs.make_arpa,
            damage={"lm.arpa": text, "lm.arpa.gz": mutations.TEXT_GZ}, read=inputs.read_arpa,
        ),
        Kind(
            name="training state", share=11, make=models.make_state,
            damage={"training_state.safetensors": trees.STATE}, read=models.read_state,
        ),
        Kind(
            name="prepared folder", share=6, make=inputs.make_prepared,
            damage={
                "prepared/cuts/train-clean-100.jsonl.gz": trees.JSONL_GZ,
                "prepared/cuts/noise.jsonl.gz": trees.JSONL_GZ,
                "prepared/cuts/dev-other.jsonl.gz": trees.JSONL_GZ,
                "prepared/prepared.json": structured,
                "prepared/tokens.txt": text,
                "prepared/lexicon.txt": text,
            },
            read=inputs.read_prepared,
        ),
        Kind(
            name="archive", share=4, make=inputs.make_archive,
            damage={
                inputs.ARCHIVE_TEXT: text, inputs.ARCHIVE_AUDIO: mutations.BYTES,
                inputs.TALK_TEXT: text, inputs.TALK_AUDIO: mutations.BYTES,
            },
            read=inputs.read_archive,
        ),
        Kind(
            name="transcripts.tsv", share=8, make=inputs.make_table,
            damage={"corpus/transcripts.tsv": text}, read=inputs.read_table,
        ),
        Kind(
            name="profile", share=10, make=inputs.make_profiles,
            damage=dict.fromkeys(inputs.profile_names(), trees.TOML), read=inputs.read_profile,
        ),
        Kind(
            name="audio", share=6, make=inputs.make_audio,
            damage=dict.fromkeys(inputs.AUDIO_NAMES, mutations.BYTES), read=inputs.read_audio,
        ),
    ]  # fmt: skip


def native_kinds() -> list[Kind]:
    """Those whose readers run native code on what the file holds."""
    return [
        Kind(
            name=".pte", share=3, make=models.make_artefacts, damage={"model.pte": mutations.BYTES},
            read=models.read_program, contained=True,
        ),
        Kind(
            name=".onnx", share=3, make=models.make_artefacts,
            damage={"model.onnx": mutations.BYTES}, read=models.read_model, contained=True,
        ),
        Kind(
            name=".ort", share=2, make=models.make_artefacts, damage={"model.ort": mutations.BYTES},
            read=models.read_model, contained=True,
        ),
        Kind(
            name="manifest.json", share=2, make=models.make_export,
            damage={"manifest.json": trees.JSON}, read=models.read_export,
        ),
    ]  # fmt: skip


def quick_kinds() -> list[Kind]:
    """Those that the test suite tries a few cases of: nothing is lowered for them."""
    return python_kinds()


def all_kinds() -> list[Kind]:
    """Every kind."""
    return [*python_kinds(), *native_kinds()]
