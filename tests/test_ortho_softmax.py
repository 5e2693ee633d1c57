"""OrthoSoftmax against its formulas written out, and decoding against brute force."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ortho_edge.components import ComponentSpace, Granularity
from ortho_edge.costs import criterion_costs
from ortho_edge.devices.catalogue import load_profile
from ortho_edge.devices.costs import latency_costs
from ortho_edge.ortho_softmax import (
    SelectionProblem,
    Target,
    assign_columns,
    count_collisions,
    decode,
    initial_scores,
    row_entropy,
    row_probabilities,
    rows_for_target,
    select_softly,
)
from ortho_edge.subnet import Subnet
from ortho_kernels.ortho_softmax.reference import orthogonality_penalty
from tests.encoders import small_architecture
from tests.tolerances import tolerance

SPACE = ComponentSpace(small_architecture("strided"))
PROBLEMS: dict[Granularity, SelectionProblem] = {
    "component": SelectionProblem(SPACE, "component"),
    "layer": SelectionProblem(SPACE, "layer"),
}
PROFILE = load_profile("pixel8")
COSTS = {
    "params": criterion_costs(SPACE, "params"),
    "flops": criterion_costs(SPACE, "flops"),
    "latency": latency_costs(PROFILE, SPACE, 4.0),
}
problems = pytest.mark.parametrize(
    ("criterion", "granularity"), list(itertools.product(COSTS, PROBLEMS))
)


def target(criterion: str, share: float) -> Target:
    costs = COSTS[criterion]
    return Target(name=f"{criterion} {share}", costs=costs, limit=share * costs.total)


seeds = st.integers(0, 2**32 - 1)


def random_scores(size: int, seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(size, size, generator=generator, dtype=torch.float64)


def naive_softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(score / temperature) for score in row]
    return [power / sum(powers) for power in powers]


def naive_penalty(rows: list[list[float]]) -> float:
    total = 0.0
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            gram = sum(p * q for p, q in zip(a, b, strict=True))
            if i < j:
                total += gram**2
            if i == j:
                total += (gram - 1) ** 2
    return math.sqrt(total)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_rows_are_annealed_softmaxes(temperature: float) -> None:
    scores = random_scores(7, 0)
    expected = torch.tensor(
        [naive_softmax(row, temperature) for row in scores.tolist()], dtype=torch.float64
    )
    actual = row_probabilities(scores, temperature)
    torch.testing.assert_close(actual, expected, **tolerance("float64_reordered"))


@pytest.mark.parametrize("num_rows", [1, 2, 5, 7])
def test_the_penalty_is_the_papers(num_rows: int) -> None:
    rows = row_probabilities(random_scores(7, 1), 0.5)[:num_rows]
    penalty = orthogonality_penalty(rows).item()
    expected = naive_penalty(rows.tolist())
    torch.testing.assert_close(penalty, expected, **tolerance("float64_reordered"))


def test_the_gradients_of_gates_and_penalty_are_right() -> None:
    scores = random_scores(6, 2).requires_grad_()
    costs = torch.full((6,), 0.15, dtype=torch.float64)

    def outputs(given: Tensor) -> tuple[Tensor, Tensor]:
        soft = select_softly(given, 0.7, costs, 0.1, 0.55)
        assert soft.num_rows == 3
        return soft.gates, soft.penalty

    assert torch.autograd.gradcheck(outputs, (scores,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_penalty_vanishes_with_a_finite_gradient_at_orthogonality(dtype: torch.dtype) -> None:
    scores = (1000 * torch.eye(5, dtype=dtype)[[3, 0, 4]]).requires_grad_()
    rows = row_probabilities(scores, 0.1)
    assert rows.equal(torch.eye(5, dtype=dtype)[[3, 0, 4]])
    penalty = orthogonality_penalty(rows)
    penalty.backward()
    assert penalty.item() < 1e-5
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


def test_descending_the_penalty_reaches_distinct_choices_without_nan() -> None:
    scores = initial_scores(6, seed=0).requires_grad_()
    optimizer = torch.optim.Adam([scores], lr=0.05)
    steps = 400
    for step in range(steps):
        # Far below the temperature at which training ends, so that the rows become one-hot exactly.
        rows = row_probabilities(scores, max(1 - step / 200, 0.01))[:4]
        penalty = orthogonality_penalty(rows)
        optimizer.zero_grad()
        penalty.backward()
        optimizer.step()
        assert scores.isfinite().all(), step
    rows = row_probabilities(scores.detach(), 0.01)[:4]
    assert count_collisions(rows) == 0
    assert row_entropy(rows) < 0.01
    assert orthogonality_penalty(rows) < 0.01


def test_initial_scores_are_small_seeded_and_distinct() -> None:
    scores = initial_scores(30, seed=4)
    assert scores.equal(initial_scores(30, seed=4))
    assert not scores.equal(initial_scores(30, seed=5))
    assert scores.abs().max() < 0.1
    assert len({tuple(row) for row in scores.tolist()}) == 30


@given(seeds, st.integers(1, 9), st.floats(0, 1.2), st.floats(0, 0.5))
@settings(deadline=None)
def test_rows_for_target_is_the_nearest_cumulated_cost(
    seed: int, size: int, target: float, rest: float
) -> None:
    probabilities = row_probabilities(random_scores(size, seed), 0.5)
    costs = torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    costs = costs / costs.sum() * (1 - rest)
    chosen = rows_for_target(probabilities, costs, rest, target)
    gaps = []
    cumulated = rest
    for row in probabilities.tolist():
        cumulated += sum(p * c for p, c in zip(row, costs.tolist(), strict=True))
        gaps.append(abs(cumulated - target))
    assert 1 <= chosen <= size
    assert gaps[chosen - 1] <= min(gaps) + 1e-12  # rounding decides between equals


def test_soft_gates_sum_the_leading_rows() -> None:
    scores = random_scores(5, 3)
    soft = select_softly(scores, 1.0, torch.full((5,), 0.2, dtype=torch.float64), 0.0, 0.42)
    rows = [naive_softmax(row, 1.0) for row in scores.tolist()][:2]
    assert soft.num_rows == 2
    sums = [sum(column) for column in zip(*rows, strict=True)]
    torch.testing.assert_close(
        (soft.gates.tolist(), soft.penalty.item()), (sums, naive_penalty(rows)),
        **tolerance("float64_reordered"),
    )  # fmt: skip


@problems
def test_shares_add_up_to_the_whole(criterion: str, granularity: Granularity) -> None:
    problem = PROBLEMS[granularity]
    model = COSTS[criterion]
    costs = problem.group_costs(model)
    assert costs.dtype == torch.float64
    total = costs.sum().item() + model.rest() / model.total
    torch.testing.assert_close(total, 1.0, **tolerance("float64_reordered"))
    for cost, group in zip(costs.tolist(), problem.groups, strict=True):
        own = model.component_costs()[list(group)].sum() / model.total
        torch.testing.assert_close(cost, own, **tolerance("exact"))


@pytest.mark.parametrize("granularity", PROBLEMS)
def test_component_gates_repeat_their_groups(granularity: Granularity) -> None:
    problem = PROBLEMS[granularity]
    gates = torch.rand(len(problem.groups))
    spread = problem.component_gates(gates)
    assert spread.shape == (len(SPACE),)
    for gate, group in zip(gates, problem.groups, strict=True):
        assert all(spread[index] == gate for index in group)


def test_row_entropy_falls_from_one_to_zero_with_the_temperature() -> None:
    uniform = row_probabilities(torch.zeros(6, 6, dtype=torch.float64), 1.0)
    torch.testing.assert_close(row_entropy(uniform), 1.0, **tolerance("float64_reordered"))
    assert row_entropy(torch.eye(6)) == 0
    assert row_entropy(torch.ones(1, 1)) == 0
    scores = random_scores(6, 0)
    entropies = [row_entropy(row_probabilities(scores, t)) for t in (2.0, 1.0, 0.3, 0.1, 0.01)]
    assert entropies == sorted(entropies, reverse=True)
    rows = row_probabilities(scores, 0.7).tolist()
    expected = -sum(p * math.log(p) for row in rows for p in row) / 6 / math.log(6)
    torch.testing.assert_close(
        row_entropy(row_probabilities(scores, 0.7)), expected, **tolerance("float64_reordered")
    )


@pytest.mark.parametrize(
    ("columns", "collisions"),
    [([0, 1, 2, 3], 0), ([0, 0, 2, 3], 1), ([1, 2, 1, 2], 2), ([3, 3, 3, 3], 3), ([2], 0)],
)
def test_collisions_are_counted(columns: list[int], collisions: int) -> None:
    assert count_collisions(torch.eye(4)[columns]) == collisions


@given(seeds, st.integers(1, 5), st.data())
@settings(deadline=None)
def test_assignment_is_the_best_of_all(seed: int, size: int, data: st.DataObject) -> None:
    num_rows = data.draw(st.integers(1, size))
    probabilities = row_probabilities(random_scores(size, seed, 3.0), 1.0).numpy()
    columns = assign_columns(probabilities, num_rows)
    assert sorted(columns) == list(range(size))

    def likelihood(choice: tuple[int, ...], first: int) -> float:
        return sum(math.log(probabilities[first + i, j]) for i, j in enumerate(choice))

    leading = max(itertools.permutations(range(size), num_rows), key=lambda c: likelihood(c, 0))
    assert tuple(columns[:num_rows]) == leading
    left = [column for column in range(size) if column not in leading]
    others = max(itertools.permutations(left), key=lambda c: likelihood(c, num_rows))
    assert tuple(columns[num_rows:]) == others


def test_assignment_of_colliding_rows_is_distinct() -> None:
    # Both rows prefer column 1; the second can go elsewhere at less loss.
    probabilities = np.array([[0.01, 0.98, 0.01], [0.1, 0.5, 0.4], [0.3, 0.4, 0.3]])
    assert assign_columns(probabilities, 2) == [1, 2, 0]


def test_assignment_survives_probabilities_of_zero() -> None:
    probabilities = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert sorted(assign_columns(probabilities, 3)) == [0, 1, 2]


@problems
@given(
    seed=seeds,
    temperature=st.sampled_from([0.01, 0.2, 2.0]),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=4),
)
@settings(max_examples=25, deadline=None)
def test_decoded_subnets_nest_within_their_targets(
    criterion: str,
    granularity: Granularity,
    seed: int,
    temperature: float,
    shares: list[float],
) -> None:
    problem = PROBLEMS[granularity]
    model = COSTS[criterion]
    smallest = model.smallest / model.total
    targets = [
        target(criterion, share)
        for share in sorted(smallest + share * (1 - smallest) + 1e-12 for share in shares)
    ]
    scores = random_scores(len(problem.groups), seed)
    decoded = decode(problem, scores, temperature, targets)
    for one, subnet in zip(targets, decoded, strict=True):
        assert model.cost(subnet) <= one.limit
        for group in problem.groups:
            assert len({index in subnet for index in group}) == 1, "a group is kept as one"
            grown = Subnet.of(len(SPACE), (*subnet.kept, *group))
            if grown != subnet:
                assert model.cost(grown) > one.limit, "the budget is used"
    assert all(a <= b for a, b in itertools.pairwise(decoded))


@problems
def test_decoding_follows_decided_rows(criterion: str, granularity: Granularity) -> None:
    problem = PROBLEMS[granularity]
    order = np.random.default_rng(0).permutation(len(problem.groups)).tolist()
    scores = torch.eye(len(order))[order]
    limit = target(criterion, 0.7)
    (subnet,) = decode(problem, scores, 0.02, [limit])
    kept: set[int] = set()
    for column in order:  # whatever still fits, in the order of the slots
        grown = kept | set(problem.groups[column])
        if limit.costs.cost(Subnet.of(len(SPACE), grown)) <= limit.limit:
            kept = grown
    assert subnet == Subnet.of(len(SPACE), kept)
    first = problem.groups[order[0]]
    assert set(first) <= kept
    assert len(subnet.kept) > 2


def test_targets_may_come_in_any_order() -> None:
    problem = PROBLEMS["component"]
    scores = random_scores(len(problem.groups), 0)
    shares, sorted_shares = [0.7, 1.0, 0.5, 0.7], [0.5, 0.7, 1.0]
    decoded, ascending = (
        decode(problem, scores, 0.1, [target("flops", one) for one in some])
        for some in (shares, sorted_shares)
    )
    of_share = dict(zip(sorted_shares, ascending, strict=True))
    assert decoded == [of_share[one] for one in shares]
    assert len(set(decoded)) == 3


@problems
def test_the_whole_budget_decodes_to_the_full_network(
    criterion: str, granularity: Granularity
) -> None:
    problem = PROBLEMS[granularity]
    scores = initial_scores(len(problem.groups), seed=0)
    assert decode(problem, scores, 0.1, [target(criterion, 1.0)]) == [SPACE.full()]


@problems
def test_a_target_below_the_smallest_is_refused(criterion: str, granularity: Granularity) -> None:
    problem = PROBLEMS[granularity]
    model = COSTS[criterion]
    scores = initial_scores(len(problem.groups), seed=0)
    exact = Target(name="smallest", costs=model, limit=model.smallest)
    (nothing,) = decode(problem, scores, 1.0, [exact])
    assert model.cost(nothing) == model.smallest
    share = model.smallest / model.total
    with pytest.raises(ValueError, match=f"of {model.name} is below {share:.3f}"):
        decode(problem, scores, 1.0, [target(criterion, 0.95), target(criterion, 0.999 * share)])


@given(seed=seeds, shares=st.lists(st.floats(0, 1), min_size=2, max_size=4), data=st.data())
@settings(max_examples=25, deadline=None)
def test_targets_of_different_costs_nest_and_each_holds(
    seed: int, shares: list[float], data: st.DataObject
) -> None:
    """As for several devices: their costs order subnets differently."""
    targets = []
    for share in shares:
        criterion = data.draw(st.sampled_from(list(COSTS)))
        smallest = COSTS[criterion].smallest / COSTS[criterion].total
        targets.append(target(criterion, smallest + share * (1 - smallest) + 1e-12))
    problem = PROBLEMS["component"]
    decoded = decode(problem, random_scores(len(problem.groups), seed), 0.2, targets)
    for one, subnet in zip(targets, decoded, strict=True):
        assert one.costs.cost(subnet) <= one.limit
    by_share = sorted(zip(targets, decoded, strict=True), key=lambda pair: pair[0].share)
    assert all(a <= b for (_, a), (_, b) in itertools.pairwise(by_share))
