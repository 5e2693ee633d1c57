"""Selection for several devices: no budget is exceeded, and what cannot be reached is named."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from ortho_edge.checkpoint import Checkpoint, TrainedSubnet
from ortho_edge.cli import UserError
from ortho_edge.components import ComponentSpace
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.devices.catalogue import load_profile
from ortho_edge.devices.latency import predict_footprint, predict_latency
from ortho_edge.devices.profile import Budget, DeviceProfile
from ortho_edge.fleet import Demand, Source, _unit, select_for_all
from ortho_edge.subnet import Subnet
from ortho_edge.supernet import Supernet
from ortho_edge.tokens import BLANK, Tokens

SPACE = ComponentSpace(
    Architecture(
        vocab_size=5, dim=16, num_blocks=2, num_heads=2, head_dim=8, ffn_dim=32, kernel_size=3,
        front_end="strided", front_end_channels=(4, 4),
    )
)  # fmt: skip
PHONE, BOARD = load_profile("pixel8"), load_profile("raspberrypi5")
SECONDS = Budget().audio_seconds
LIMITS = ("latency_ms", "memory_mb", "size_mb", "params", "flops")
WORDS = dict(zip(LIMITS, ("latency", "memory", "file size", "parameters", "FLOPs"), strict=True))


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    order = np.random.default_rng(0).permutation(len(SPACE)).tolist()
    sizes = {"s100": len(SPACE), "s060": 12, "s030": 5}
    torch.manual_seed(0)
    return Checkpoint(
        supernet=Supernet(SPACE.architecture, 3),
        tokens=Tokens((BLANK, "a", "b", "c", "d")),
        subnets=tuple(
            TrainedSubnet(
                name=name, subnet=Subnet.of(len(SPACE), order[:size]), head=head,
                target=size / len(SPACE), metrics={"dev_wer": 3.0 + 2 * head},
            )
            for head, (name, size) in enumerate(sizes.items())
        ),
    )  # fmt: skip


def values(profile: DeviceProfile, subnet: Subnet, seconds: float) -> dict[str, float]:
    """What a subnet costs, by the predictions themselves."""
    prints = [predict_footprint(profile, SPACE, subnet, seconds, one) for one in profile.runtimes]
    latency = [predict_latency(profile, SPACE, subnet, seconds, one) for one in profile.runtimes]
    return {
        "latency_ms": max(one.milliseconds for one in latency),
        "memory_mb": max(one.memory_mb for one in prints),
        "size_mb": max(one.size_mb for one in prints),
        "params": SPACE.cost(subnet, "params"),
        "flops": SPACE.flops(subnet, seconds),
    }


def over(demand: Demand, subnet: Subnet) -> list[str]:
    costs = values(demand.profile, subnet, demand.budget.audio_seconds)
    return [
        name
        for name in LIMITS
        if (limit := getattr(demand.budget, name)) is not None and costs[name] > limit
    ]


def random_demands(rng: np.random.Generator) -> list[Demand]:
    """One or two devices with any number of limits, from hopeless to generous, some met exactly."""
    demands = []
    for profile in (PHONE, BOARD)[: rng.integers(1, 3)]:
        seconds = float(rng.choice([0.5, 4.0]))
        low = values(profile, Subnet.of(len(SPACE), ()), seconds)
        some = Subnet.of(len(SPACE), rng.choice(len(SPACE), 9, replace=False).tolist())
        exact, high = values(profile, some, seconds), values(profile, SPACE.full(), seconds)
        drawn: dict[str, float] = {"audio_seconds": seconds}
        for name in LIMITS:
            if rng.random() < 0.5:
                share = rng.uniform(-0.1, 1.1)
                between = low[name] + share * (high[name] - low[name])
                drawn[name] = exact[name] if rng.random() < 0.3 else between
        demands.append(Demand(profile=profile, budget=Budget(**drawn)))
    return demands


@pytest.mark.parametrize("number", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_of_random_budgets_none_is_exceeded(number: int, checkpoint: Checkpoint) -> None:
    rng = np.random.default_rng(3)
    chosen = refused = composed = 0
    for _ in range(number):
        demands = random_demands(rng)
        sources: list[Source] = ["trained", "any"]
        for source in sources:
            try:
                selections = select_for_all(demands, checkpoint, source)
            except UserError as error:
                refused += 1
                check_refusal(demands, checkpoint, source, str(error))
                continue
            chosen += 1
            (subnet,) = {one.trained.subnet for one in selections}
            composed += not selections[0].is_trained
            for demand, one in zip(demands, selections, strict=True):
                assert over(demand, subnet) == []
                assert one.device == demand.profile.name
                assert all("\n" not in line for line in one.explanation())
    assert min(chosen, refused, composed) > number / 50, "the budgets were too easy or too hard"


def check_refusal(
    demands: list[Demand], checkpoint: Checkpoint, source: Source, message: str
) -> None:
    """Nothing fits indeed, and every value that is named as the smallest can be reached."""
    assert "\n" not in message
    if source == "trained":
        for one in checkpoint.subnets:
            assert any(over(demand, one.subnet) for demand in demands), message
    named = re.findall(
        r"(latency|memory|file size|parameters|FLOPs) \S+(?: ms| MB)? is below the smallest "
        r"reachable, ([\d.,]+)(?: ms| MB)?(?:;|$)",
        message,
    )
    if not named:
        assert "together" in message
        return
    device = re.search(r"on '(\w+)'", message)
    assert device is not None
    demand = next(one for one in demands if one.profile.name == device[1])
    for word, value in named:
        (name,) = [name for name, known in WORDS.items() if known == word]
        limit = {name: float(value.replace(",", ""))}
        alone = replace(demand.budget, **dict.fromkeys(LIMITS) | limit)
        select_for_all([replace(demand, budget=alone)], checkpoint, source)


def test_one_subnet_for_all_is_the_best_that_every_device_affords(checkpoint: Checkpoint) -> None:
    middle = checkpoint.subnet("s060").subnet
    tight = Demand(
        profile=BOARD, budget=Budget(latency_ms=values(BOARD, middle, SECONDS)["latency_ms"])
    )
    generous = Demand(profile=PHONE, budget=Budget())
    alone = select_for_all([generous], checkpoint)[0]
    assert alone.trained.name == "s100"
    phone, board = select_for_all([generous, tight], checkpoint)
    assert phone.trained.name == board.trained.name == "s060"
    # The phone could hold more; only the board's explanation names a limit.
    assert phone.binding is None
    assert phone.next_size() == "no limit of pixel8 binds: s100 fits here"
    assert board.binding is not None
    assert board.binding.name == "latency_ms"


def test_a_composed_subnet_fills_what_the_trained_sizes_leave_free(checkpoint: Checkpoint) -> None:
    small, large = (values(PHONE, checkpoint.subnet(name).subnet, 4.0) for name in ("s030", "s060"))
    limit = 0.4 * small["params"] + 0.6 * large["params"]
    demand = Demand(profile=PHONE, budget=Budget(params=limit))
    (trained,) = select_for_all([demand], checkpoint)
    (composed,) = select_for_all([demand], checkpoint, "any")
    assert trained.trained.name == "s030"
    assert small["params"] < composed.chosen.params <= limit
    assert not composed.is_trained
    assert composed.chosen.error_rate is None
    assert composed.trained.head in {1, 2}
    notes = "\n".join(composed.notes)
    assert "its error rate is unknown" in notes
    assert "python -m ortho_edge.evaluate" in notes
    assert "the best trained size that fits, s030 (dev WER 7.00 %)" in notes
    assert composed.next_up is not None
    assert composed.next_up.params > limit
    assert composed.binding is not None
    assert re.search(r"with one more \w+.* in block \d, takes parameters", composed.next_size())


def test_an_elastic_front_end_is_composed_and_named(checkpoint: Checkpoint) -> None:
    space = ComponentSpace(replace(SPACE.architecture, front_end_chunks=4))
    first = space.module_slice(None, "front_end").start
    # A size without optional chunks and one with all of them, and the full network.
    kept = [space.full().kept, (0, 3, 5, *range(first, len(space))), (0, 3)]
    elastic = replace(
        checkpoint,
        supernet=Supernet(space.architecture, 3),
        subnets=tuple(
            replace(one, subnet=Subnet.of(len(space), some))
            for one, some in zip(checkpoint.subnets, kept, strict=True)
        ),
    )
    costs = [space.cost(one.subnet, "params") for one in elastic.subnets]
    chunk = space.component_costs("params")[first]
    seen = set()
    for limit in np.linspace(costs[2], costs[1], 12).tolist():
        demand = Demand(profile=PHONE, budget=Budget(params=limit))
        (found,) = select_for_all([demand], elastic, "any")
        assert space.cost(found.trained.subnet, "params") == found.chosen.params <= limit
        seen.add(len(space.front_end_chunks(found.trained.subnet)))
        assert limit - found.chosen.params < chunk + 400
    assert len(seen) > 2
    assert _unit(space, first) == "chunk of the front end"
    assert _unit(space, 0) == "chunk of the first FFN in block 0"


def test_between_sizes_that_were_trained_for_any_budget_the_largest_of_them_is_taken(
    checkpoint: Checkpoint,
) -> None:
    order = tuple(np.random.default_rng(0).permutation(len(SPACE)).tolist())
    drawn = replace(checkpoint, order=order, leading=tuple(range(6, len(SPACE))))
    for number, limits in enumerate(np.random.default_rng(1).uniform(0.3, 1, (20, 2)).tolist()):
        size, latency = limits if number % 2 else (1.0, limits[1])
        full = values(PHONE, SPACE.full(), 4.0)
        budget = Budget(latency_ms=latency * full["latency_ms"], size_mb=size * full["size_mb"])
        demand = Demand(profile=PHONE, budget=budget)
        parts = [Subnet.of(len(SPACE), order[:length]) for length in range(5, len(SPACE) + 1)]
        expected = [one for one in parts if not over(demand, one)]
        if not expected:
            continue
        (selection,) = select_for_all([demand], drawn, "any")
        assert selection.trained.subnet == expected[-1]
        if not selection.is_trained:
            assert "is trained between the sizes: its error rate is" in selection.notes[0]
    # Below the smallest size nothing was trained, and the composed one says so.
    tight = 0.9 * values(PHONE, checkpoint.subnet("s030").subnet, 4.0)["params"]
    (selection,) = select_for_all(
        [Demand(profile=PHONE, budget=Budget(params=tight))], drawn, "any"
    )
    assert "not a trained size" in selection.notes[0]


def test_composing_a_trained_size_yields_that_size(checkpoint: Checkpoint) -> None:
    (selection,) = select_for_all([Demand(profile=PHONE, budget=Budget())], checkpoint, "any")
    assert selection.trained is checkpoint.subnet("s100")
    assert selection.is_trained
    assert selection.notes == ()


def test_a_subnet_below_every_trained_size_comes_with_a_warning(checkpoint: Checkpoint) -> None:
    limit = 0.9 * values(PHONE, checkpoint.subnet("s030").subnet, 4.0)["params"]
    demand = Demand(profile=PHONE, budget=Budget(params=limit))
    (selection,) = select_for_all([demand], checkpoint, "any")
    assert "it is smaller than every trained size: expect many errors" in selection.notes
    assert "no trained size fits" in selection.notes


def test_budgets_that_exclude_each_other_are_named(checkpoint: Checkpoint) -> None:
    # A convolution takes less time than two modules of one chunk each, but more parameters.
    quick, compact = Subnet.of(len(SPACE), [4]), Subnet.of(len(SPACE), [0, 7])
    trained = tuple(
        TrainedSubnet(name=name, subnet=subnet, head=0, target=0.5)
        for name, subnet in (("quick", quick), ("compact", compact))
    )
    demands = [
        Demand(
            profile=PHONE, budget=Budget(latency_ms=values(PHONE, quick, SECONDS)["latency_ms"])
        ),
        Demand(profile=BOARD, budget=Budget(params=values(BOARD, compact, SECONDS)["params"])),
    ]
    bare = replace(checkpoint, subnets=trained)
    assert [select_for_all([one], bare)[0].trained.name for one in demands] == ["quick", "compact"]
    with pytest.raises(UserError, match="fits the budgets of 'pixel8', 'raspberrypi5' together"):
        select_for_all(demands, bare)


@pytest.mark.parametrize("source", ["trained", "any"])
def test_a_checkpoint_without_subnets_is_refused(checkpoint: Checkpoint, source) -> None:
    with pytest.raises(UserError, match="no trained subnet"):
        select_for_all(
            [Demand(profile=PHONE, budget=Budget())], replace(checkpoint, subnets=()), source
        )
