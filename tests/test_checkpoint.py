"""Checkpoints come back bit for bit, and a damaged one is a clear line."""

import json
import math
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ortho_edge.checkpoint import (
    DESCRIPTION,
    FEATURES,
    SYMBOLS,
    WEIGHTS,
    Checkpoint,
    TrainedSubnet,
    load_checkpoint,
    save_checkpoint,
    shipped_checkpoint,
)
from ortho_edge.cli import UserError
from ortho_edge.components import num_params
from ortho_edge.subnet import Subnet
from ortho_edge.tokens import character_tokens
from tests.encoders import NUM_CTC_HEADS, random_batch, small_architecture, small_supernet
from tests.tolerances import tolerance


def example(front_end: str = "strided") -> Checkpoint:
    supernet = small_supernet(small_architecture(front_end), torch.float32)
    size = len(supernet.space)
    return Checkpoint(
        supernet=supernet,
        tokens=character_tokens(["ONE", "ZW\u00d6LF"], "ab"),
        subnets=(
            TrainedSubnet(
                name="s100", subnet=Subnet.full(size), head=0, target=1.0,
                metrics={"dev_wer": 0.1 + 0.2},
            ),
            TrainedSubnet(name="s030", subnet=Subnet.of(size, [1, 5, 29]), head=1, target=0.3),
        ),
        provenance={"seed": 7, "versions": {"torch": torch.__version__}},
    )  # fmt: skip


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_checkpoint(example(), tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("front_end", ["vgg", "strided", "elastic-vgg"])
def test_comes_back_bit_for_bit(tmp_path: Path, front_end: str) -> None:
    original = example(front_end)
    save_checkpoint(original, tmp_path / "checkpoint")
    loaded = load_checkpoint(tmp_path / "checkpoint")
    weights, loaded_weights = original.supernet.state_dict(), loaded.supernet.state_dict()
    assert list(weights) == list(loaded_weights)
    assert all(weights[name].equal(loaded_weights[name]) for name in weights)
    assert loaded.supernet.architecture == original.supernet.architecture
    assert not loaded.supernet.training
    assert (loaded.tokens, loaded.subnets) == (original.tokens, original.subnets)
    assert loaded.provenance == original.provenance
    features, lengths = random_batch((22, 9), dtype=torch.float32)
    gates = loaded.subnets[1].subnet.gates()[None]
    torch.testing.assert_close(
        loaded.supernet(features, lengths, gates, [1]),
        original.supernet(features, lengths, gates, [1]),
        **tolerance("exact"),
    )


def test_what_any_budget_training_drew_comes_back(saved: Path) -> None:
    checkpoint = load_checkpoint(saved)
    order = tuple(reversed(range(len(checkpoint.supernet.space))))
    save_checkpoint(replace(checkpoint, order=order, leading=(4, 6)), saved)
    loaded = load_checkpoint(saved)
    assert (loaded.order, loaded.leading) == (order, (4, 6))
    edit(saved, lambda description: description.update(leading=[4, len(order)]))
    assert "leading must hold numbers of components" in refusal(saved)
    edit(saved, lambda description: description.update(leading=[4]) or description.pop("order"))
    assert "leading must hold numbers of components" in refusal(saved)


def test_saving_twice_writes_the_same_bytes_and_replaces(saved: Path) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    (saved / "stale.txt").touch()
    save_checkpoint(load_checkpoint(saved), saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_extra_files_are_written_beside(tmp_path: Path) -> None:
    save_checkpoint(example(), tmp_path / "one", {"README.md": b"card"})
    assert {path.name for path in (tmp_path / "one").iterdir()} == {
        WEIGHTS, DESCRIPTION, SYMBOLS, "README.md",
    }  # fmt: skip
    assert (tmp_path / "one" / "README.md").read_bytes() == b"card"


def test_a_failed_save_keeps_the_old_checkpoint(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full_disk(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(example("vgg"), saved)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_subnet_is_found_by_name(saved: Path) -> None:
    checkpoint = load_checkpoint(saved)
    assert checkpoint.subnet("s030") is checkpoint.subnets[1]
    with pytest.raises(UserError, match="unknown subnet 's31'; known: s100, s030"):
        checkpoint.subnet("s31")


def refusal(path: Path) -> str:
    """The one line with which loading `path` is refused."""
    with pytest.raises(UserError) as refused:
        load_checkpoint(path)
    message = str(refused.value)
    assert message.splitlines() == [message]
    assert len(message) < 500 + len(str(path))
    assert str(path) in message
    return message


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == f"no checkpoint folder at {tmp_path / 'none'}"
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file") == f"no checkpoint folder at {tmp_path / 'file'}"


@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION, SYMBOLS])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    assert refusal(saved) == f"checkpoint {saved} is incomplete: {name} is missing"


@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION, SYMBOLS])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_file_is_damage(saved: Path, name: str, share: float) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(share * len(content))])
    assert "is damaged: " in refusal(saved)


@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION, SYMBOLS])
def test_rubbish_is_damage(saved: Path, name: str) -> None:
    (saved / name).write_bytes(b"\xff\xfe\x00rubbish" * 50)
    assert "is damaged: " in refusal(saved)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    description = json.loads((path / DESCRIPTION).read_text("utf-8"))
    change(description)
    (path / DESCRIPTION).write_text(json.dumps(description), "utf-8")


def test_another_schema_version_is_named(saved: Path) -> None:
    edit(saved, lambda description: description.update(schema_version=2))
    assert refusal(saved).endswith("has schema version 2; this version reads 1")


@pytest.mark.parametrize("entry", ["schema_version", "architecture", "subnets", "provenance"])
def test_a_missing_entry_is_named(saved: Path, entry: str) -> None:
    edit(saved, lambda description: description.pop(entry))
    assert refusal(saved).endswith(f"is damaged: {DESCRIPTION} lacks '{entry}'")


def test_a_description_that_is_no_object_is_damage(saved: Path) -> None:
    (saved / DESCRIPTION).write_text("[1, 2]")
    assert "is damaged: " in refusal(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["architecture"].update(dim=12), "size mismatch"),
        (lambda d: d["architecture"].update(num_blocks=2), "Unexpected key"),
        (lambda d: d["architecture"].update(num_blocks=4), "Missing key"),
        (lambda d: d["architecture"].update(kernel_size=4), "kernel_size must be odd, not 4"),
        (lambda d: d["architecture"].update(depth=3), "depth"),
        (lambda d: d.update(num_ctc_heads=3), "Missing key"),
        (lambda d: d["subnets"][1].update(kept=[5, 1]), "ascending"),
        (lambda d: d["subnets"][1].update(kept=[30]), "outside 0..29"),
        (lambda d: d["subnets"][1].update(head=2), "subnet s030 names CTC head 2"),
        (lambda d: d["features"].update(num_mel_bins=40), "feature settings"),
        (lambda d: d["architecture"].update(num_blocks=3.0), "num_blocks must be a whole number"),
        (lambda d: d["architecture"].update(kernel_size=-1), "kernel_size must be a whole number"),
        (lambda d: d["architecture"].update(feature_dim=0), "feature_dim must be at least 1"),
        (lambda d: d["architecture"].update(front_end_channels=[0, 2]), "front_end_channels"),
        (lambda d: d["architecture"].update(front_end=7), "architecture.front_end must be a text"),
        (lambda d: d["architecture"].pop("dim"), "lacks 'architecture.dim'"),
        (lambda d: d["subnets"].append(d["subnets"][0]), "two subnets have one name"),
        (lambda d: d["subnets"][0].update(name="a\x1b[2Jb"), "holds a control character"),
        (lambda d: d["subnets"][0].update(target=math.nan), "target must be a finite number"),
        (lambda d: d["subnets"][0].update(metrics={"dev_wer": math.inf}), "metrics.dev_wer must"),
        (lambda d: d["subnets"][0].update(kept="0"), "kept must be an array"),
        (lambda d: d["provenance"].update(row_entropy_at_freeze="low"), "row_entropy_at_freeze"),
        (lambda d: d["provenance"].update(versions=[1]), "provenance.versions must be an object"),
    ],
)
def test_what_does_not_fit_is_damage(
    saved: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit(saved, change)
    assert message in refusal(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"num_blocks": 2**70}, {"vocab_size": 10**6}, {"num_heads": 2**50}, {"dim": 2**52},
        {"ffn_dim": 3 * 2**40}, {"kernel_size": 2**50 + 1}, {"feature_dim": 2**52},
        {"front_end_channels": [3, 2**40]}, {"num_ffn_chunks": 21, "ffn_dim": 21 * 2**40},
    ],
)  # fmt: skip
def test_a_network_beyond_the_weights_beside_it_is_refused_before_it_is_made(
    saved: Path, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(*_: object) -> None:
        pytest.fail("the network was made")

    monkeypatch.setattr("ortho_edge.checkpoint.Supernet", made)
    edit(saved, lambda description: description["architecture"].update(change))
    message = refusal(saved)
    assert "describes" in message or "must be a whole number" in message


def test_heads_beyond_the_weights_are_refused(saved: Path) -> None:
    edit(saved, lambda description: description.update(num_ctc_heads=2**50))
    assert "parameters, model.safetensors holds" in refusal(saved)


@pytest.mark.parametrize("front_end", ["vgg", "strided", "elastic-vgg", "elastic-strided"])
def test_parameters_are_counted_without_a_network(front_end: str) -> None:
    architecture = small_architecture(front_end)
    counted = sum(one.numel() for one in small_supernet(architecture).parameters())
    assert num_params(architecture, NUM_CTC_HEADS) == counted


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}, "must be of F64"),
        ({"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}, "larger than the file"),
        ({"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}, "must be a whole number"),
    ],
)
def test_a_header_of_weights_is_checked(saved: Path, entry: dict[str, Any], message: str) -> None:
    header = json.dumps({"x": entry}).encode()
    (saved / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    assert message in refusal(saved)


def test_weights_of_another_architecture_are_damage(saved: Path, tmp_path: Path) -> None:
    save_checkpoint(example("vgg"), tmp_path / "other")
    (tmp_path / "other" / WEIGHTS).replace(saved / WEIGHTS)
    assert "is damaged: " in refusal(saved)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_is_damage(saved: Path, value: float) -> None:
    weights = load_file(saved / WEIGHTS)
    weights["blocks.1.mhsa.w_out"][2, 1, 3] = value
    save_file(weights, saved / WEIGHTS)
    assert refusal(saved).endswith("is damaged: a weight is not finite")


def test_a_vocabulary_of_another_size_is_damage(saved: Path) -> None:
    (saved / SYMBOLS).write_text(character_tokens(["ONE"]).lines(), "utf-8")
    assert refusal(saved).endswith("is damaged: 2 symbols for 6 outputs")


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [pickle.dump, torch.save], ids=["pickle", "torch.save"])
def test_a_pickle_is_refused_and_not_run(
    saved: Path, tmp_path: Path, write: Callable[[object, Any], None]
) -> None:
    exploded = tmp_path / "exploded"
    with (saved / WEIGHTS).open("wb") as file:
        write({"weights": Bomb(exploded)}, file)
    assert "is damaged: " in refusal(saved)
    assert not exploded.exists()


def test_the_description_states_the_features(saved: Path) -> None:
    description = json.loads((saved / DESCRIPTION).read_text("utf-8"))
    assert description["features"] == FEATURES


def test_the_shipped_checkpoint_lies_in_the_package(repository: Path) -> None:
    assert shipped_checkpoint() == repository / "ortho_edge" / "checkpoints" / "digits"
