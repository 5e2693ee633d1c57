"""Differences of error rates against separate rates, overlaps against sets counted by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortho_edge.checkpoint import Checkpoint, TrainedSubnet
from ortho_edge.components import ComponentSpace
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.reporting.comparison import overlaps, paired_difference
from ortho_edge.reporting.runs import Run
from ortho_edge.subnet import Subnet
from ortho_edge.supernet import Supernet
from ortho_edge.tokens import character_tokens
from ortho_edge.training.evaluation import Transcript, character_errors, error_rates

WORDS = st.lists(st.sampled_from(["ONE", "TWO", "THREE"]), max_size=5).map(" ".join)
TOKENS = character_tokens(["ONE", "TWO"])
ARCHITECTURE = Architecture(
    vocab_size=len(TOKENS), dim=16, num_blocks=1, num_heads=2, head_dim=8, ffn_dim=32,
    kernel_size=3, front_end="strided", front_end_channels=(2, 4),
)  # fmt: skip
COMPONENTS = len(ComponentSpace(ARCHITECTURE))
assert COMPONENTS == 11


def run(name: str, **kept: list[int]) -> Run:
    sizes = [
        TrainedSubnet(name=size, subnet=Subnet.of(COMPONENTS, some), head=0, target=0.5)
        for size, some in kept.items()
    ]
    supernet = Supernet(ARCHITECTURE, 1)
    full = TrainedSubnet(name="s100", subnet=supernet.space.full(), head=0, target=1.0)
    checkpoint = Checkpoint(supernet=supernet, tokens=TOKENS, subnets=(full, *sizes))
    return Run(name=name, checkpoint=checkpoint, curves={})


@given(st.lists(st.tuples(WORDS.filter(bool), WORDS, WORDS), min_size=1, max_size=6))
def test_the_difference_is_that_of_the_two_rates(rows: list[tuple[str, str, str]]) -> None:
    ours = [Transcript(str(i), "a", text, one) for i, (text, one, _) in enumerate(rows)]
    theirs = [Transcript(str(i), "a", text, other) for i, (text, _, other) in enumerate(rows)]
    found = paired_difference(ours, theirs[::-1])
    assert found.points == pytest.approx(error_rates(ours).wer - error_rates(theirs).wer)
    of_characters = paired_difference(ours, theirs, count=character_errors).points
    assert of_characters == pytest.approx(error_rates(ours).cer - error_rates(theirs).cer)
    assert found.interval[0] <= found.points + 1e-9
    assert found.points - 1e-9 <= found.interval[1]


def test_pairs_leave_out_what_is_hard_for_both() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(400) < 0.3
    ours = [Transcript(str(i), "a", "ONE", "TWO" if bad else "ONE") for i, bad in enumerate(hard)]
    # The same mistakes but for one.
    theirs = [*ours[:-1], Transcript("399", "a", "ONE", "ONE" if hard[-1] else "TWO")]
    low, high = paired_difference(ours, theirs).interval
    alone = error_rates(ours).wer_interval
    assert high - low < 0.2 * (alone[1] - alone[0])


def test_other_utterances_cannot_be_compared() -> None:
    ours = [Transcript("1", "a", "ONE", "ONE")]
    for theirs in (
        [],
        [Transcript("2", "a", "ONE", "ONE")],
        [Transcript("1", "a", "TWO", "ONE")],
        [*ours, Transcript("2", "a", "ONE", "ONE")],
    ):
        with pytest.raises(ValueError, match="same utterances"):
            paired_difference(ours, theirs)


def test_overlap_is_counted_over_pairs() -> None:
    found = overlaps(
        [run("a", s050=[0, 1, 2, 3]), run("b", s050=[0, 1, 2, 4]), run("c", s050=[0, 5, 6, 7])]
    )
    assert [one.size for one in found] == ["s050"], "the full network is alike anyway"
    # Of the three pairs one shares 3 of 5 components, two share 1 of 7.
    assert found[0].components == pytest.approx((3 / 5 + 1 / 7 + 1 / 7) / 3)
    assert (found[0].in_all, found[0].kept) == (1, (4, 4, 4))


def test_units_of_a_module_may_stand_in_for_each_other() -> None:
    # Chunks 0 and 1 of the first FFN against chunks 2 and 3; the convolution is component 4.
    found = overlaps([run("a", s050=[0, 1]), run("b", s050=[2, 3, 4])])
    assert found[0].components == 0
    assert found[0].modules == pytest.approx(2 / 3)


def test_chunks_of_the_front_end_are_a_module_of_their_own() -> None:
    runs = [run("a", s050=[0, 4]), run("b", s050=[0, 4])]
    architecture = replace(ARCHITECTURE, front_end_chunks=4)
    # Both keep a chunk of the FFN and the convolution; of the front end another one or two.
    runs = [
        replace(
            one,
            checkpoint=replace(
                one.checkpoint,
                supernet=Supernet(architecture, 1),
                subnets=(
                    replace(one.checkpoint.subnets[0], subnet=Subnet.full(COMPONENTS + 3)),
                    replace(
                        one.checkpoint.subnets[1],
                        subnet=Subnet.of(COMPONENTS + 3, [0, 4, *chunks]),
                    ),
                ),
            ),
        )
        for one, chunks in zip(runs, ([COMPONENTS], [COMPONENTS + 1, COMPONENTS + 2]), strict=True)
    ]
    (found,) = overlaps(runs)
    assert found.components == pytest.approx(2 / 5)
    assert found.modules == pytest.approx(3 / 4)


def test_chance_is_what_random_subnets_overlap() -> None:
    # Both keep 10 of 11: they share 10 of 10, or 9 of 11 with a chance of 10 in 11.
    kept = list(range(10))
    found = overlaps([run("a", s050=kept), run("b", s050=kept)])
    assert (found[0].components, found[0].modules) == (1, 1)
    assert found[0].components_by_chance == pytest.approx(1 / 11 + 10 / 11 * 9 / 11, abs=0.02)
    assert found[0].components_by_chance < found[0].modules_by_chance < 1


def test_sizes_with_other_names_are_compared_by_rank() -> None:
    found = overlaps([run("a", s050=[0, 1], s030=[0]), run("b", pixel=[0, 2], watch=[0])])
    assert [(one.size, one.components) for one in found] == [
        ("s050 / pixel", pytest.approx(1 / 3)),
        ("s030 / watch", 1.0),
    ]


def test_runs_of_unlike_numbers_of_sizes_are_compared_by_name() -> None:
    found = overlaps([run("a", s050=[0, 1], s030=[0]), run("b", s030=[0, 2])])
    assert [(one.size, one.components) for one in found] == [("s030", 0.5)]


def test_one_run_has_nothing_to_be_alike() -> None:
    assert overlaps([run("a", s050=[0])]) == []
