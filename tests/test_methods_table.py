"""The table of methods: which runs stand in one row, and what they took."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from bench.methods_table import (
    differences,
    evaluated,
    groups,
    picture,
    rows,
    table,
    update_minutes,
)
from ortho_edge.checkpoint import Checkpoint, TrainedSubnet
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.reporting.runs import Run, Scores
from ortho_edge.subnet import Subnet
from ortho_edge.supernet import Supernet
from ortho_edge.tokens import character_tokens
from ortho_edge.training.evaluation import Transcript, error_rates

TOKENS = character_tokens(["ONE", "TWO"])
SUPERNET = Supernet(
    Architecture(
        vocab_size=len(TOKENS), dim=16, num_blocks=1, num_heads=2, head_dim=8, ffn_dim=32,
        kernel_size=3, front_end="strided", front_end_channels=(2, 4),
    ),
    1,
)  # fmt: skip


def run(name: str, sizes: Mapping[str, tuple[int, str]], seconds: float = 0.5) -> Run:
    """A run whose sizes keep so many components and hear this for ONE."""
    subnets = tuple(
        TrainedSubnet(name=size, subnet=Subnet.of(11, range(kept)), head=0, target=1.0)
        for size, (kept, _) in sizes.items()
    )
    scores = {}
    for size, (_, heard) in sizes.items():
        texts = [Transcript(str(number), "a", "ONE", heard) for number in range(4)]
        scores[size] = Scores(rates=error_rates(texts), groups={}, transcripts=texts)
    return Run(
        name=name,
        checkpoint=Checkpoint(
            supernet=SUPERNET,
            tokens=TOKENS,
            subnets=subnets,
            provenance={"training": {"num_steps": 240, "method": "alone", "seed": 1}},
        ),
        curves={"seconds": ([0.0, 10.0], [seconds, seconds])},
        scores={"set": scores},
    )


RUNS = [
    run("ortho-s1", {"s100": (11, "ONE"), "s050": (5, "ONE")}),
    run("full-s1", {"s100": (11, "TWO")}),
    run("alone-050-s1", {"s050": (4, "TWO")}, seconds=1.0),
    run("ortho-s2", {"s100": (11, "ONE"), "s050": (5, "ONE")}),
]


def test_sizes_trained_alone_and_the_full_network_make_one_row() -> None:
    found = {row.name: row for row in rows(RUNS)}
    assert list(found) == ["ortho-s1", "alone-s1", "ortho-s2"]
    assert list(found["alone-s1"].entries) == ["s100", "s050"], "the largest first"
    assert found["alone-s1"].entries["s100"].run.name == "full-s1"


def test_the_time_of_a_row_is_that_of_all_its_runs() -> None:
    assert update_minutes(RUNS[0]) == pytest.approx(2.0)
    assert [row.minutes for row in rows(RUNS)] == pytest.approx([2.0, 6.0, 2.0])


def test_an_update_that_was_interrupted_takes_no_time() -> None:
    paused = replace(RUNS[0], curves={"seconds": ([0.0, 1.0, 2.0], [0.5, 1800.0, 0.5])})
    assert update_minutes(paused) == pytest.approx(2.0)


def test_rows_are_compared_with_the_reference_of_their_seed() -> None:
    lines = differences(rows(RUNS), "set", "alone").splitlines()
    assert len({line.count("|") for line in lines}) == 1, "WER and CER stand side by side"
    assert [line.split(" (")[0] for line in lines[2:]] == [
        "| ortho-s1 | s100 | -100.0",
        "| ortho-s1 | s050 | -100.0",
    ]


def test_the_table_has_a_cell_for_every_size() -> None:
    lines = table(rows(RUNS), "set").splitlines()
    assert lines[2].startswith("| ortho-s1 | 0.0 / 0.0 (100 %) | 0.0 / 0.0 (")
    assert "100.0 / " in lines[3]
    assert len({line.count("|") for line in lines}) == 1


def test_groups_of_speakers_have_tables_of_their_own() -> None:
    scores = RUNS[0].scores["set"]["s100"]
    sizes = {
        size: replace(one, groups={"adults": scores.rates})
        for size, one in RUNS[1].scores["set"].items()
    }
    found = rows([RUNS[0], replace(RUNS[0], name="other-s1", scores={"set": sizes})])
    assert groups(found, "set") == []
    assert groups(found[1:], "set") == ["adults"]
    entry = found[1].entries["s100"]
    assert (entry.rates("set").wer, entry.rates("set", "adults").wer) == (100, 0)


def test_what_evaluate_wrote_goes_to_the_record_without_its_transcripts(tmp_path: Path) -> None:
    results = {"s100 + LM": {"wer": 50.0, "lm_weight": 1.0, "transcripts": [{"cut_id": "a"}]}}
    path = tmp_path / "lm.json"
    path.write_text(json.dumps({"model": "run/checkpoint", "set": "set", "results": results}))
    assert evaluated([path]) == [
        {
            "model": "run/checkpoint",
            "set": "set",
            "size": "s100 + LM",
            "wer": 50.0,
            "lm_weight": 1.0,
        }
    ]


def test_the_picture_has_a_line_per_row() -> None:
    _, names = picture(rows(RUNS), "set").axes[0].get_legend_handles_labels()
    assert names == ["ortho-s1", "alone-s1", "ortho-s2"]
