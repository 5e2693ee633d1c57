"""Which subnets an update trains."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ortho_edge.checkpoint import TrainedSubnet
from ortho_edge.components import ComponentSpace
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.costs import criterion_costs
from ortho_edge.ortho_softmax import SelectionProblem, Target, initial_scores
from ortho_edge.subnet import Subnet
from ortho_edge.training.subnet_sampling import (
    any_budget_step,
    droppable_modules,
    sandwich_step,
    soft_step,
)

SPACE = ComponentSpace(
    Architecture(
        vocab_size=5, dim=16, num_blocks=2, num_heads=2, head_dim=8, ffn_dim=32, kernel_size=3,
        front_end="strided", front_end_channels=(2, 4),
    )
)  # fmt: skip


def test_sandwich_holds_full_smallest_and_every_middle_in_turn() -> None:
    subnets = [Subnet.of(len(SPACE), range(size)) for size in (15, 10, 4)]
    seen = set()
    for step in range(50):
        rng = np.random.default_rng(step)
        chosen = sandwich_step(SPACE.full(), subnets, rng, torch.device("cpu"))
        assert chosen.heads[0] == 0
        assert chosen.heads[2] == 3
        torch.testing.assert_close(chosen.gates[0], torch.ones(len(SPACE)))
        torch.testing.assert_close(chosen.gates[1], subnets[chosen.heads[1] - 1].gates())
        torch.testing.assert_close(chosen.gates[2], subnets[2].gates())
        assert chosen.computed == (SPACE.full(), subnets[chosen.heads[1] - 1], subnets[2])
        seen.add(chosen.heads[1])
    assert seen == {1, 2}


def test_sandwich_of_one_size_repeats_nothing() -> None:
    chosen = sandwich_step(
        SPACE.full(), [Subnet(len(SPACE), (0,))], np.random.default_rng(0), torch.device("cpu")
    )
    assert chosen.heads == (0, 1)


def test_any_budget_draws_its_middle_subnet_by_the_share_of_the_flops() -> None:
    smallest, *middle = (
        TrainedSubnet(name="", subnet=Subnet.of(len(SPACE), range(size)), head=head, target=share)
        for size, head, share in ((4, 3, 0.3), (6, 3, 0.4), (9, 2, 0.5), (15, 1, 0.9))
    )
    drawn = []
    for step in range(600):
        chosen = any_budget_step(
            SPACE.full(), smallest, middle, np.random.default_rng(step), torch.device("cpu")
        )
        full, between, last = chosen.computed
        assert (full, last) == (SPACE.full(), smallest.subnet)
        (one,) = [one for one in middle if one.subnet == between]
        assert chosen.heads == (0, one.head, 3)
        assert chosen.names == ("full", "between", "target3")
        torch.testing.assert_close(chosen.gates[1], between.gates())
        drawn.append(one.target)
    # Each is the largest within its shares: 0.4 to 0.5, to 0.9, to 1 of the 0.6 in all.
    for share, expected in ((0.4, 1 / 6), (0.5, 4 / 6), (0.9, 1 / 6)):
        assert abs(drawn.count(share) / 600 - expected) < 4 * (0.25 / 600) ** 0.5


@pytest.mark.parametrize("granularity", ["component", "layer"])
def test_soft_step_reaches_every_target_and_sends_gradients_to_the_scores(granularity) -> None:
    problem = SelectionProblem(SPACE, granularity)
    scores = initial_scores(len(problem.groups), 0).requires_grad_()
    costs = criterion_costs(SPACE, "flops")
    targets = [Target(name="", costs=costs, limit=share * costs.total) for share in (0.8, 0.5)]
    steps = [
        soft_step(problem, scores, 0.5, targets, np.random.default_rng(step)) for step in range(30)
    ]
    for one in steps:
        assert one.gates.shape == (2, len(SPACE))
        torch.testing.assert_close(one.gates[0], torch.ones(len(SPACE)))
        assert one.computed == (SPACE.full(), SPACE.full())
    assert {one.heads for one in steps} == {(0, 1), (0, 2)}
    (steps[-1].gates[1] * torch.randn(len(SPACE))).sum().backward()
    assert scores.grad is not None
    assert bool(scores.grad.abs().sum() > 0)


def test_droppable_are_the_modules_without_any_kept_unit() -> None:
    # Block 0 keeps one chunk of the first FFN and the convolution, block 1 nothing.
    smallest = Subnet.of(len(SPACE), [1, SPACE.module_slice(0, "conv").start])
    expected = {(0, "mhsa"), (0, "ffn2")} | {(1, name) for name in ("ffn1", "conv", "mhsa", "ffn2")}
    assert droppable_modules(SPACE, smallest) == expected
    elastic = ComponentSpace(replace(SPACE.architecture, front_end_chunks=2))
    without = Subnet(len(elastic), smallest.kept)
    assert droppable_modules(elastic, without) == expected, "the front end is never dropped"
