"""An artefact states what a client needs, and a client notices what does not fit."""

from pathlib import Path

import pytest

from ortho_edge.checkpoint import DESCRIPTION, SYMBOLS, WEIGHTS
from ortho_edge.tokens import character_tokens
from ortho_export.facts import Facts, checkpoint_digest

FACTS = Facts(
    subnet="s030", tokens=character_tokens(["ONE"], "AB'"), checkpoint_digest="0" * 64,
    min_frames=9, max_frames=500,
)  # fmt: skip


def test_facts_survive_as_text() -> None:
    stated = {name: str(value) for name, value in FACTS.constants().items()}
    assert Facts.parse(stated) == FACTS


def test_the_contract_of_sherpa_onnx() -> None:
    constants = FACTS.constants()
    assert constants["model_type"] == "zipformer2_ctc"
    assert constants["vocab_size"] == 6
    assert constants["subsampling_factor"] == 4


@pytest.mark.parametrize("name", FACTS.constants())
def test_a_missing_fact_is_named(name: str) -> None:
    stated = FACTS.constants()
    del stated[name]
    with pytest.raises(ValueError, match=name):
        Facts.parse(stated)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_type", "wenet_ctc"),
        ("vocab_size", 7),
        ("sample_rate", 8000),
        ("feature_dim", 40),
        ("min_frames", "nine"),
        ("tokens", "<blk> 1\n"),
        ("features", "{"),
        ("features", '{"sample_rate": 16000, "num_mel_bins": 80}'),
    ],
)
def test_a_fact_that_contradicts_the_others_is_named(name: str, value: str | int) -> None:
    with pytest.raises(
        ValueError, match=r"model_type|vocab|rate|dim|nine|tokens|property|features"
    ):
        Facts.parse(FACTS.constants() | {name: value})


def test_the_digest_tells_checkpoints_apart(tmp_path: Path) -> None:
    digests = set()
    for changed in (None, WEIGHTS, DESCRIPTION, SYMBOLS):
        for name in (WEIGHTS, DESCRIPTION, SYMBOLS):
            (tmp_path / name).write_bytes(b"other" if name == changed else b"same")
        digests.add(checkpoint_digest(tmp_path))
    assert len(digests) == 4
