import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ortho_edge.checkpoint import Checkpoint, TrainedSubnet
from ortho_edge.cli import UserError
from ortho_edge.components import ComponentSpace
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.devices.catalogue import load_profile
from ortho_edge.devices.latency import Prediction
from ortho_edge.selector import Budget, Candidate, budget_for, choose, select
from ortho_edge.subnet import Subnet
from ortho_edge.supernet import Supernet
from ortho_edge.tokens import BLANK, Tokens

LIMITS = ("latency_ms", "memory_mb", "size_mb", "params", "flops")
ARCHITECTURE = Architecture(
    vocab_size=5, dim=16, num_blocks=2, num_heads=2, head_dim=8, ffn_dim=32, kernel_size=3,
    front_end="strided", front_end_channels=(4, 4),
)  # fmt: skip


def candidate(
    name: str,
    latency: Sequence[float],
    *,
    memory: float = 10.0,
    size: float = 1.0,
    params: int = 100,
    flops: float = 1e6,
    wer: float | None = 5.0,
) -> Candidate:
    return Candidate(
        trained=TrainedSubnet(
            name=name,
            subnet=Subnet(1, (0,)),
            head=0,
            target=1.0,
            metrics={} if wer is None else {"dev_wer": wer},
        ),
        params=params,
        flops=flops,
        flops_share=1.0,
        latency=tuple(
            Prediction(
                milliseconds=one,
                seconds=4.0,
                runtime=f"r{index}",
                provenance="analytic",
                source="",
            )
            for index, one in enumerate(latency)
        ),
        memory_mb=memory,
        memory_provenance="analytic",
        size_mb=size,
    )


# Few distinct values, so that ties and exact hits of a limit are common.
coarse = st.sampled_from([1.0, 2.0, 3.0, 5.0, 8.0, 13.0])
candidate_lists = st.lists(
    st.builds(
        candidate,
        name=st.text("abc", min_size=1),
        latency=st.lists(coarse, min_size=1, max_size=2),
        memory=coarse,
        size=coarse,
        params=st.integers(1, 5),
        flops=coarse,
        wer=st.one_of(st.none(), coarse, st.just(math.nan)),
    ),
    min_size=1,
    max_size=6,
)
budgets = st.builds(
    Budget,
    latency_ms=st.one_of(st.none(), coarse, st.just(math.inf)),
    memory_mb=st.one_of(st.none(), coarse),
    size_mb=st.one_of(st.none(), coarse),
    params=st.one_of(st.none(), coarse),
    flops=st.one_of(st.none(), coarse),
)


def over(one: Candidate, budget: Budget) -> list[str]:
    """The limits that a candidate breaks, worked out without the selector."""
    values = {
        "latency_ms": max(latency.milliseconds for latency in one.latency),
        "memory_mb": one.memory_mb,
        "size_mb": one.size_mb,
        "params": one.params,
        "flops": one.flops,
    }
    broken = []
    for name in LIMITS:
        limit = getattr(budget, name)
        if limit is not None and values[name] > limit:
            broken.append(name)
    return broken


def wer_of(one: Candidate) -> float:
    return one.trained.metrics.get("dev_wer", math.nan)


@settings(deadline=None)
@given(candidate_lists, budgets)
def test_the_choice_is_the_best_within_budget_by_brute_force(
    candidates: list[Candidate], budget: Budget
) -> None:
    allowed = [one for one in candidates if not over(one, budget)]
    if not allowed:
        with pytest.raises(UserError):
            choose("board", budget, candidates)
        return
    selection = choose("board", budget, candidates)
    chosen = selection.chosen
    assert not over(chosen, budget)
    if any(math.isnan(wer_of(one)) for one in candidates):
        assert chosen.flops == max(one.flops for one in allowed)
    else:
        assert wer_of(chosen) == min(map(wer_of, allowed))
        equals = [one for one in allowed if wer_of(one) == wer_of(chosen)]
        assert chosen.latency_ms == min(one.latency_ms for one in equals)
    if selection.next_up is None:
        assert selection.binding is None
    else:
        assert selection.binding is not None
        assert selection.binding.name in over(selection.next_up, budget)
        assert selection.binding.slack < 0
    assert selection.explanation()


@settings(deadline=None)
@given(candidate_lists, budgets)
def test_when_nothing_fits_the_values_named_are_enough(
    candidates: list[Candidate], budget: Budget
) -> None:
    """A user who raises each limit that the message names to the value it names gets further."""
    try:
        choose("board", budget, candidates)
    except UserError as error:
        message = str(error)
    else:
        return
    assert "'board'" in message
    reachable = {
        word: float(value)
        for word, value in re.findall(
            r"(latency|memory|file size|parameters|FLOPs) \S+(?: ms| MB)? is below the smallest "
            r"reachable, ([\d.,]+)(?: ms| MB)?(?:;|$)",
            message,
        )
    }
    words = ("latency", "memory", "file size", "parameters", "FLOPs")
    fields = dict(zip(words, LIMITS, strict=True))
    too_low = {
        word
        for word, name in fields.items()
        if all(name in over(one, budget) for one in candidates)
    }
    assert set(reachable) == too_low
    for word, value in reachable.items():
        assert any(not over(one, Budget(**{fields[word]: value})) for one in candidates), (
            f"{word} {value} was said to be reachable"
        )


def test_a_value_equal_to_its_limit_is_within() -> None:
    one = candidate("a", [3.0], memory=2.0, size=4.0, params=7)
    budget = Budget(latency_ms=3.0, memory_mb=2.0, size_mb=4.0, params=7)
    assert choose("board", budget, [one]).chosen is one


def test_every_runtime_must_hold_the_budget() -> None:
    fast, slow = candidate("fast", [1.0, 2.0], wer=9.0), candidate("slow", [1.0, 6.0], wer=1.0)
    assert choose("board", Budget(latency_ms=5.0), [fast, slow]).chosen is fast


def test_a_larger_subnet_that_is_no_better_is_not_chosen() -> None:
    small, large = candidate("small", [1.0], flops=1.0), candidate("large", [2.0], flops=2.0)
    assert choose("board", Budget(), [large, small]).chosen is small


def test_the_largest_is_chosen_where_an_error_rate_is_missing() -> None:
    small = candidate("small", [1.0], flops=1.0, wer=1.0)
    large = candidate("large", [2.0], flops=2.0, wer=None)
    assert choose("board", Budget(), [small, large]).chosen is large


def test_the_explanation_names_what_binds_and_what_the_next_size_takes() -> None:
    candidates = [
        candidate("small", [2.0], size=1.0, flops=1.0, wer=9.0),
        candidate("middle", [4.0], size=2.0, flops=2.0, wer=5.0),
        candidate("large", [8.0], size=6.0, flops=4.0, wer=3.0),
    ]
    selection = choose("board", Budget(latency_ms=7.0, size_mb=2.5), candidates)
    assert selection.trained.name == "middle"
    assert selection.next_up is candidates[2]
    # 8 is 1.14 of its limit, 6 is 2.4 of its own.
    assert selection.binding is not None
    assert selection.binding.name == "size_mb"
    lines = selection.explanation()
    assert lines[:2] == [
        "latency 4 ms of at most 7 ms, 3 ms to spare",
        "file size 2 MB of at most 2.5 MB, 0.5 MB to spare",
    ]
    assert lines[2].startswith("file size binds: the next size up, large (dev WER 3.00 %")
    assert lines[2].endswith(
        "takes latency 8 ms (1 ms too much) and file size 6 MB (3.5 MB too much)"
    )


def test_the_explanation_says_when_nothing_binds() -> None:
    selection = choose("board", Budget(latency_ms=7.0), [candidate("only", [2.0])])
    assert selection.binding is None
    assert "no limit binds" in selection.explanation()[-1]


def test_limits_that_only_fail_together_are_named_together() -> None:
    candidates = [candidate("quick", [1.0], size=9.0), candidate("compact", [9.0], size=1.0)]
    with pytest.raises(UserError, match=r"latency 2 ms and file size 2 MB together.*quick"):
        choose("board", Budget(latency_ms=2.0, size_mb=2.0), candidates)


def test_the_smallest_reachable_value_is_rounded_up() -> None:
    candidates = [candidate("a", [10 / 3], params=123_456_789)]
    with pytest.raises(UserError, match=r"reachable, 3\.334 ms; parameters .*, 123,456,789$"):
        choose("board", Budget(latency_ms=1.0, params=3.0), candidates)


def test_a_costlier_subnet_of_the_same_error_rate_is_no_next_size_up() -> None:
    small, large = candidate("small", [1.0], size=1.0), candidate("large", [0.5], size=9.0)
    selection = choose("board", Budget(size_mb=2.0), [small, large])
    assert selection.chosen is small
    assert selection.next_up is None


def checkpoint_of(subnets: tuple[TrainedSubnet, ...]) -> Checkpoint:
    symbols = (BLANK, "a", "b", "c", "d")
    return Checkpoint(supernet=Supernet(ARCHITECTURE), tokens=Tokens(symbols), subnets=subnets)


@pytest.fixture
def checkpoint() -> Checkpoint:
    space = ComponentSpace(ARCHITECTURE)
    one_chunk = Subnet.of(len(space), (0,))
    return checkpoint_of(
        (
            TrainedSubnet(
                name="s100", subnet=space.full(), head=0, target=1.0, metrics={"dev_wer": 3.0}
            ),
            TrainedSubnet(
                name="s010", subnet=one_chunk, head=0, target=0.1, metrics={"dev_wer": 6.0}
            ),
        )
    )


def test_select_prices_subnets_of_a_checkpoint(checkpoint: Checkpoint) -> None:
    profile = load_profile("pixel8")
    generous = select(profile, budget_for(profile), checkpoint)
    assert generous.trained.name == "s100"
    space = checkpoint.supernet.space
    assert generous.chosen.params == space.total_cost("params")
    assert generous.chosen.flops_share == 1.0
    assert {one.runtime for one in generous.chosen.latency} == {"executorch", "onnxruntime"}
    small = next(one for one in generous.candidates if one.trained.name == "s010")
    limit = (small.latency_ms + generous.chosen.latency_ms) / 2
    tight = select(profile, budget_for(profile, latency_ms=limit), checkpoint)
    assert tight.trained.name == "s010"
    # The slower runtime decides; alone, the faster one may afford the larger subnet.
    fastest = min(generous.chosen.latency, key=lambda one: one.milliseconds)
    alone = budget_for(profile, latency_ms=fastest.milliseconds)
    assert select(profile, alone, checkpoint, [fastest.runtime]).trained.name == "s100"
    assert select(profile, alone, checkpoint).trained.name == "s010"


def test_latency_and_memory_are_for_the_audio_of_the_budget(checkpoint: Checkpoint) -> None:
    profile = load_profile("pixel8")
    short, long = (
        select(profile, budget_for(profile, audio_seconds=seconds), checkpoint).chosen
        for seconds in (1.0, 10.0)
    )
    assert 3 < long.latency_ms / short.latency_ms < 20
    assert long.memory_mb > short.memory_mb
    assert long.size_mb == short.size_mb


def test_named_limits_replace_the_defaults_of_the_profile() -> None:
    profile = load_profile("pixel8")
    budget = budget_for(profile, latency_ms=math.inf, params=5e5)
    assert budget.latency_ms == math.inf
    assert budget.params == 5e5
    assert budget.size_mb == profile.budget.size_mb
    assert budget.audio_seconds == profile.budget.audio_seconds


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan])
@pytest.mark.parametrize("name", [*LIMITS, "audio_seconds"])
def test_a_limit_that_is_not_above_zero_is_refused(name: str, limit: float) -> None:
    changes: dict[str, Any] = {name: limit}
    with pytest.raises(UserError, match=f"{name} must be"):
        budget_for(load_profile("pixel8"), **changes)


def test_an_unknown_runtime_is_named_with_the_known_ones(checkpoint: Checkpoint) -> None:
    profile = load_profile("pixel8")
    with pytest.raises(UserError, match="'tflite'; known: executorch, onnxruntime"):
        select(profile, budget_for(profile), checkpoint, ["tflite"])


def test_a_checkpoint_without_subnets_is_refused() -> None:
    profile = load_profile("pixel8")
    with pytest.raises(UserError, match="no trained subnet"):
        select(profile, budget_for(profile), checkpoint_of(()))


def with_rates(checkpoint: Checkpoint, *rates: dict[str, float]) -> Checkpoint:
    subnets = zip(checkpoint.subnets, rates, strict=True)
    return checkpoint_of(tuple(replace(one, metrics=metrics) for one, metrics in subnets))


def test_where_all_words_are_wrong_characters_decide_and_it_is_said(checkpoint: Checkpoint) -> None:
    profile = load_profile("pixel8")
    budget = budget_for(profile)
    hopeless = with_rates(
        checkpoint, {"dev_wer": 98.9, "dev_cer": 70.0}, {"dev_wer": 97.2, "dev_cer": 95.0}
    )
    chosen = select(profile, budget, hopeless)
    assert chosen.trained.name == "s100"
    assert any("no size has a dev WER below 90 %" in line for line in chosen.explanation())
    unknown = with_rates(checkpoint, {"dev_wer": 98.9}, {"dev_wer": 97.2, "dev_cer": 95.0})
    assert select(profile, budget, unknown).trained.name == "s010"
    one_good = with_rates(
        checkpoint, {"dev_wer": 98.9, "dev_cer": 70.0}, {"dev_wer": 60.0, "dev_cer": 95.0}
    )
    chosen = select(profile, budget, one_good)
    assert chosen.trained.name == "s010"
    assert chosen.notes == ()
