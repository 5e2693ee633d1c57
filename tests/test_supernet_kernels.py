"""The supernet through the Triton kernels, in the interpreter, against plain torch."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ortho_edge.conformer.architecture import Architecture
from ortho_edge.subnet import Subnet, stack_gates
from ortho_edge.supernet import Regularization, Supernet
from ortho_edge.training.losses import ctc_losses, subnet_weights
from ortho_kernels import dispatch
from ortho_kernels.worklist import SubnetPlan, refill
from tests.tolerances import tolerance

ARCHITECTURE = Architecture(
    vocab_size=5, dim=24, num_blocks=1, num_heads=2, head_dim=16, ffn_dim=32, num_ffn_chunks=2,
    kernel_size=5, feature_dim=8, front_end="strided", front_end_channels=(4, 4),
)  # fmt: skip
LENGTHS = (37, 52)


@pytest.fixture
def supernet() -> Supernet:
    torch.manual_seed(0)
    return Supernet(ARCHITECTURE, 2)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, "triton")


def subnets(supernet: Supernet) -> list[Subnet]:
    """Everything, every other component, and nothing."""
    size = len(supernet.space)
    return [Subnet.full(size), Subnet.of(size, range(0, size, 2)), Subnet(size, ())]


def loss(
    supernet, gates: Tensor, plan: SubnetPlan | None = None, rates: Regularization | None = None
) -> Tensor:
    """The training loss of one batch."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(len(LENGTHS), max(LENGTHS), 8, generator=generator)
    tokens = torch.randint(1, 5, (7,), generator=generator)
    log_probs, lengths = supernet(
        features, torch.tensor(LENGTHS), gates, [0, 1, 1][: len(gates)],
        rates or Regularization(), plan,
    )  # fmt: skip
    losses = ctc_losses(log_probs, lengths, tokens, torch.tensor([4, 3]))
    return (subnet_weights(losses, "focal") * losses).sum()


def loss_and_gradients(supernet: Supernet, gates: Tensor) -> dict[str, Tensor]:
    supernet.zero_grad(set_to_none=True)
    gates = gates.clone().requires_grad_()
    total = loss(supernet, gates)
    total.backward()
    assert gates.grad is not None
    found = {name: one.grad for name, one in supernet.named_parameters() if one.grad is not None}
    return {"loss": total.detach(), "gates": gates.grad, **found}


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_losses_and_gradients_are_those_of_plain_torch(
    supernet: Supernet, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates = stack_gates(subnets(supernet))
    if kind == "soft":
        gates = gates[:2] * torch.linspace(0.3, 1.2, len(supernet.space))
    monkeypatch.setenv(dispatch.VARIABLE, "reference")
    expected = loss_and_gradients(supernet, gates)
    monkeypatch.setenv(dispatch.VARIABLE, "triton")
    assert dispatch.backend("gated_ffn", torch.device("cpu")) == "triton"
    actual = loss_and_gradients(supernet, gates)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        scale = value.abs().max().clamp(min=1e-6)
        torch.testing.assert_close(
            actual[name] / scale, value / scale, **tolerance("float32_reordered"), msg=name
        )


@pytest.mark.skipif(
    hasattr(Supernet.forward, "__wrapped__"),
    reason="the compiler cannot look through run-time checks",
)
@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("front_end_chunks", [1, 2])
def test_a_compiled_step_takes_other_masks_without_compiling_again(front_end_chunks: int) -> None:
    torch.manual_seed(0)
    supernet = Supernet(replace(ARCHITECTURE, front_end_chunks=front_end_chunks), 2)
    all_subnets = subnets(supernet)
    compiles = 0

    def count(graph: torch.fx.GraphModule, inputs: Sequence[Tensor]):
        nonlocal compiles
        compiles += 1
        return graph.forward

    compiled = torch.compile(supernet, backend=count, fullgraph=True)
    plan = supernet.plan(all_subnets[:2], "cpu", full_capacity=True)
    first = compiles
    for chosen in ([0, 1], [1, 2], [2, 0]):
        chosen_subnets = [all_subnets[index] for index in chosen]
        plan = refill(
            plan, [work.open_units for work in supernet.plan(chosen_subnets, "cpu").modules]
        )
        gates = stack_gates(chosen_subnets)
        with torch.no_grad():
            actual = loss(compiled, gates, plan)
            expected = loss(supernet, gates)
        torch.testing.assert_close(actual, expected, **tolerance("float32_reordered"))
        first = first or compiles
    assert compiles == first


@pytest.mark.usefixtures("kernels")
def test_dropout_and_layer_drop_run_through_the_kernels(supernet: Supernet) -> None:
    gates = stack_gates(subnets(supernet)[:2])
    rates = Regularization(
        ffn_dropout=0.3, residual_dropout=0.3, layer_drop=0.5,
        droppable=(frozenset({(0, "conv"), (0, "mhsa")}), frozenset()),
    )  # fmt: skip
    losses, gradients = [], []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        total = loss(supernet, gates, rates=rates)
        losses.append(total.detach())
        weights = [
            one for name, one in supernet.named_parameters() if "w_out" in name or "w2" in name
        ]
        gradients.append(torch.cat([one.flatten() for one in torch.autograd.grad(total, weights)]))
    torch.testing.assert_close(losses[0], losses[1], **tolerance("exact"))
    torch.testing.assert_close(gradients[0], gradients[1], **tolerance("exact"))
    assert losses[0] != losses[2]
    assert gradients[0].isfinite().all()
    assert gradients[0].abs().sum() > 0
