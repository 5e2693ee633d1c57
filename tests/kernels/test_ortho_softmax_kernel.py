"""The kernels of the soft choice against its plain torch form in float64."""

import pytest
import torch
from torch import Tensor

from ortho_kernels.ortho_softmax import op, reference
from ortho_kernels.ortho_softmax.op import ortho_softmax
from tests.kernels.harness import DEVICE, assert_agrees

REST = 0.1


@pytest.fixture(autouse=True)
def take_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTHO_KERNELS", "triton")


def problem(groups: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(groups)
    scores = torch.randn(groups, groups, generator=generator)
    costs = torch.rand(groups, generator=generator)
    return scores, costs / costs.sum() * (1 - REST)


def outputs_and_gradient(
    run, scores: Tensor, costs: Tensor, temperature: float, target: float, weights: tuple
) -> tuple[dict[str, Tensor], int]:
    """Gates, penalty, gradient of both together by these weights; and the number of rows."""
    leaf = scores.clone().requires_grad_()
    gates, num_rows, penalty = run(leaf, costs, temperature, REST, target)
    probe = torch.linspace(-1, 1, len(costs), dtype=torch.float64).to(gates)
    total = weights[0] * (gates * probe).sum() + weights[1] * penalty
    (gradient,) = torch.autograd.grad(total, [leaf])
    rest = {"gates": gates.detach(), "penalty": penalty.detach()[None]}
    return {**rest, "gradient": gradient}, int(num_rows)


@pytest.mark.parametrize(
    ("groups", "temperature", "target", "weights"),
    [
        (11, 1.0, 0.55, (1.0, 1.0)),
        (40, 0.3, 0.8, (1.0, 3.0)),
        (68, 2.0, 0.0, (1.0, 1.0)),
        (68, 0.5, 1.0, (0.5, 2.0)),
        (1, 1.0, 0.5, (1.0, 1.0)),
        (33, 0.2, 0.6, (0.0, 1.0)),
    ],
)
def test_agrees_with_the_reference(
    groups: int, temperature: float, target: float, weights: tuple[float, float]
) -> None:
    scores, costs = problem(groups)
    expected, rows = outputs_and_gradient(
        reference.ortho_softmax, scores.double(), costs.double(), temperature, target, weights
    )
    actual, num_rows = outputs_and_gradient(
        ortho_softmax, scores.to(DEVICE), costs.to(DEVICE), temperature, target, weights
    )
    assert num_rows == rows
    assert_agrees(actual, expected, torch.float32)


def test_rows_that_do_not_lead_get_no_gradient() -> None:
    scores, costs = problem(20)
    result, num_rows = outputs_and_gradient(
        ortho_softmax, scores.to(DEVICE), costs.to(DEVICE), 0.5, 0.5, (1.0, 1.0)
    )
    assert 1 < num_rows < 20
    assert result["gradient"][:num_rows].ne(0).all()
    assert result["gradient"][num_rows:].eq(0).all()


@pytest.mark.parametrize("only", ["gates", "penalty"])
def test_one_of_gates_and_penalty_may_be_unused(only: str) -> None:
    scores, costs = problem(11)

    def gradient(run, scores: Tensor, costs: Tensor) -> Tensor:
        leaf = scores.clone().requires_grad_()
        gates, _, penalty = run(leaf, costs, 0.7, REST, 0.5)
        total = (gates**2).sum() if only == "gates" else penalty
        return torch.autograd.grad(total, [leaf])[0]

    expected = gradient(reference.ortho_softmax, scores.double(), costs.double())
    actual = gradient(ortho_softmax, scores.to(DEVICE), costs.to(DEVICE))
    assert_agrees({"scores": actual}, {"scores": expected}, torch.float32)


def test_other_dtypes_take_the_reference() -> None:
    scores, costs = problem(11)
    gates = ortho_softmax(scores.double(), costs.double(), 0.7, REST, 0.5)[0]
    assert gates.dtype == torch.float64
    assert gates.equal(reference.ortho_softmax(scores.double(), costs.double(), 0.7, REST, 0.5)[0])


def test_torch_accepts_the_operator() -> None:
    scores, costs = problem(11)
    torch.library.opcheck(
        op.forward, (scores.to(DEVICE).requires_grad_(), costs.to(DEVICE), 0.7, REST, 0.5)
    )
