"""The supernet against an encoder written out naively, and what gating must never do."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ortho_edge.components import MODULES, ComponentSpace, Module
from ortho_edge.conformer.architecture import Architecture, FeatureNormalization
from ortho_edge.subnet import Subnet, stack_gates
from ortho_edge.supernet import Supernet
from ortho_kernels.worklist import work_list
from tests import naive
from tests.encoders import (
    ALL_FRONT_ENDS,
    block_of,
    draw_subnet,
    network,
    random_batch,
    small_architecture,
    small_supernet,
    soft_gates,
    whole_and_empty,
)
from tests.tolerances import tolerance

TEDLIUM2 = Architecture(vocab_size=80, dim=384, num_blocks=12, num_heads=6, ffn_dim=1536)
LIBRISPEECH = Architecture(vocab_size=80, dim=512, num_blocks=12, num_heads=8, ffn_dim=2048)

SLABS = {
    "ffn1": ("w1", "b1", "w2"),
    "conv": (),
    "mhsa": ("w_qkv", "b_qkv", "w_out"),
    "ffn2": ("w1", "b1", "w2"),
}
"""The weights that hold one slab per unit."""


def naive_front_end(
    weights: dict[str, Tensor], architecture: Architecture, features: Tensor, gates: Tensor
) -> Tensor:
    """(T', D) of one utterance (T, bins) without padding, normalisation included beforehand.

    Gates (chunks - 1,) scale the channels of all chunks of the last convolution but the first.
    """
    x = features[None]  # (channels, T, bins)
    kind = architecture.front_end
    stride = 2 if kind == "strided" else 1
    for index in range(len(architecture.front_end_channels)):
        kernel = weights[f"front_end.convolutions.{index}.weight"]
        bias = weights[f"front_end.convolutions.{index}.bias"]
        padded = torch.zeros(x.shape[0], x.shape[1] + 2, x.shape[2] + 2, dtype=x.dtype)
        padded[:, 1:-1, 1:-1] = x
        rows = [
            [
                torch.einsum("cij,ocij->o", padded[:, t : t + 3, f : f + 3], kernel) + bias
                for f in range(0, x.shape[2], stride)
            ]
            for t in range(0, x.shape[1], stride)
        ]
        x = torch.stack([torch.stack(row, 1) for row in rows], 1).clamp(min=0)
        if kind == "vgg" and index % 2:
            x = torch.stack([x[:, t : t + 2].amax(1) for t in range(0, x.shape[1], 2)], 1)
    width = len(x) // (1 + len(gates))
    x = torch.stack([x[c] * (gates[c // width - 1] if c >= width else 1) for c in range(len(x))])
    flat = torch.stack([x[:, t].flatten() for t in range(x.shape[1])])
    return flat @ weights["front_end.linear.weight"].T + weights["front_end.linear.bias"]


def naive_log_probs(supernet: Supernet, utterance: Tensor, gates: Tensor, head: int) -> Tensor:
    """(T', V) of one utterance (T, bins) under gates (N,)."""
    architecture = supernet.architecture
    weights = {name: tensor.detach() for name, tensor in supernet.state_dict().items()}
    if architecture.feature_normalization == "utterance":
        utterance = (utterance - utterance.mean(0)) / 4
    optional = gates[len(gates) - (architecture.front_end_chunks - 1) :]
    x = naive_front_end(weights, architecture, utterance, optional)[None, None]
    length = [x.shape[2]]
    place = 0
    for block in range(architecture.num_blocks):
        for module, units in (("ffn1", 3), ("conv", 1), ("mhsa", 3), ("ffn2", 3)):
            own = gates[None, place : place + units]
            place += units
            if not own.any():
                continue
            w = {
                name.removeprefix(f"blocks.{block}.{module}."): tensor
                for name, tensor in weights.items()
                if name.startswith(f"blocks.{block}.{module}.")
            }
            y = naive.layer_norm(x, w["norm.weight"], w["norm.bias"])
            if module == "conv":
                x = x + naive.conv(
                    y, w["w_in"], w["b_in"], w["w_depthwise"], w["b_depthwise"],
                    w["inner_norm.weight"], w["inner_norm.bias"], w["w_out"], w["b_out"], own,
                    length,
                )  # fmt: skip
            elif module == "mhsa":
                x = x + naive.attention(
                    y, w["w_qkv"], w["b_qkv"], w["w_out"], w["b_out"], own, length
                )
            else:
                x = x + naive.ffn(y, w["w1"], w["b1"], w["w2"], w["b2"], own) / 2
        norm = f"blocks.{block}.norm."
        x = naive.layer_norm(x, weights[f"{norm}weight"], weights[f"{norm}bias"])
    logits = x[0, 0] @ weights[f"ctc_heads.{head}.weight"].T + weights[f"ctc_heads.{head}.bias"]
    return logits - torch.log(torch.exp(logits).sum(-1, keepdim=True))


@pytest.mark.parametrize("normalization", ["none", "utterance"])
@pytest.mark.parametrize("front_end", ALL_FRONT_ENDS)
def test_agrees_with_the_naive_encoder(front_end: str, normalization: FeatureNormalization) -> None:
    supernet = network(front_end, normalization)
    features, lengths = random_batch((22, 9, 1))
    gates = soft_gates(3, len(supernet.space))
    gates[2] = 0
    actual, frames = supernet(features, lengths, gates, [1, 0, 1])
    for s, head in enumerate([1, 0, 1]):
        for b, length in enumerate(lengths):
            expected = naive_log_probs(supernet, features[b, :length], gates[s], head)
            assert frames[b] == len(expected)
            torch.testing.assert_close(
                actual[s, b, : frames[b]], expected, **tolerance("float64_reordered")
            )


@pytest.mark.parametrize("normalization", ["none", "utterance"])
@pytest.mark.parametrize("front_end", ALL_FRONT_ENDS)
def test_an_utterance_alone_equals_itself_in_a_batch(
    front_end: str, normalization: FeatureNormalization
) -> None:
    supernet = network(front_end, normalization)
    features, lengths = random_batch(range(1, 14))
    gates = soft_gates(2, len(supernet.space))
    together, frames = supernet(features, lengths, gates, [0, 1])
    for b, length in enumerate(lengths):
        alone, alone_frames = supernet(
            features[b : b + 1, :length], lengths[b : b + 1], gates, [0, 1]
        )
        assert alone_frames.tolist() == [frames[b]] == [alone.shape[2]]
        torch.testing.assert_close(
            together[:, b, : frames[b]], alone[:, 0], **tolerance("float64_reordered")
        )


@pytest.mark.parametrize("front_end", ["strided", "elastic-strided"])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_stacked_subnets_equal_separate_calls(data: st.DataObject, front_end: str) -> None:
    supernet = network(front_end)
    count = data.draw(st.integers(1, 3))
    chosen = [draw_subnet(data, supernet.space) for _ in range(count)]
    chosen += whole_and_empty(supernet.space)
    heads = [index % 2 for index in range(len(chosen))]
    features, lengths = random_batch((22, 9))
    gates = stack_gates(chosen, torch.float64)
    stacked, _ = supernet(features, lengths, gates, heads)
    for s, head in enumerate(heads):
        single, _ = supernet(features, lengths, gates[s : s + 1], [head])
        torch.testing.assert_close(stacked[s], single[0], **tolerance("exact"))


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_dropped_components_are_skipped_not_multiplied_by_zero(data: st.DataObject) -> None:
    supernet = copy.deepcopy(network())
    subnet = draw_subnet(data, supernet.space)
    features, lengths = random_batch((22, 9))
    gates = subnet.gates(torch.float64)[None]
    clean, _ = supernet(features, lengths, gates, [0])
    with torch.no_grad():
        for one in supernet.space.modules(subnet):
            closed = sorted(set(range(supernet.space.num_units(one.module))) - set(one.units))
            assert one.block is not None
            module = getattr(supernet.blocks[one.block], one.module)
            for name, parameter in module.named_parameters():
                if not one.units:
                    parameter.fill_(math.nan)
                elif name in SLABS[one.module]:
                    parameter[closed] = math.nan
        supernet.ctc_heads[1].weight.fill_(math.nan)  # pyright: ignore
    broken, _ = supernet(features, lengths, gates, [0])
    torch.testing.assert_close(broken, clean, **tolerance("exact"))


@pytest.mark.parametrize("front_end", ALL_FRONT_ENDS)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_runs_the_flops_that_the_component_space_counts(
    data: st.DataObject, front_end: str
) -> None:
    supernet = network(front_end)
    chosen = [draw_subnet(data, supernet.space) for _ in range(2)]
    features, lengths = random_batch((400,))
    counter = FlopCounterMode(display=False)
    # The counter has no formula for the fused CPU attention.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        supernet(features, lengths, stack_gates(chosen, torch.float64), [0, 1])
    space = supernet.space
    head = 2.0 * 100 * space.architecture.dim * space.architecture.vocab_size
    chunks = set(range(len(space))[space.module_slice(None, "front_end")])

    def front_end_of(subnet: Subnet) -> float:
        alone = Subnet.of(len(space), chunks & set(subnet.kept))
        return space.cost(alone, "flops") - head

    behind = sum(space.cost(subnet, "flops") - front_end_of(subnet) for subnet in chosen)
    # It runs once for both, whole.
    assert counter.get_total_flops() == behind + front_end_of(space.full())


def test_gating_leaves_nothing_behind() -> None:
    supernet = network()
    features, lengths = random_batch((22, 9))
    full, empty = (s.gates(torch.float64)[None] for s in reversed(whole_and_empty(supernet.space)))
    first, _ = supernet(features, lengths, full, [0])
    supernet(features, lengths, empty, [1])
    again, _ = supernet(features, lengths, full, [0])
    torch.testing.assert_close(again, first, **tolerance("exact"))


@pytest.mark.parametrize("front_end", ["strided", "elastic-strided"])
def test_gradients_reach_every_parameter_of_the_full_network(front_end: str) -> None:
    supernet = small_supernet(small_architecture(front_end))
    features, lengths = random_batch((22, 9))
    gates = torch.ones(2, len(supernet.space), dtype=torch.float64, requires_grad=True)
    log_probs, frames = supernet(features, lengths, gates, [0, 1])
    targets = torch.tensor([[1, 2, 2], [3, 1, 0]])
    torch.nn.functional.ctc_loss(
        log_probs.flatten(0, 1).transpose(0, 1), targets.repeat(2, 1),
        frames.repeat(2), torch.tensor([3, 2, 3, 2]),
    ).backward()  # fmt: skip
    for name, parameter in supernet.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if name.endswith("w_qkv"):
            # A bias of the keys shifts a frame's scores alike; everything else moves the output.
            assert parameter.grad.abs().amax(-1).gt(0).all(), name
        elif name.endswith("b_qkv"):
            assert parameter.grad[:, [0, 2]].ne(0).all(), name
        elif "convolutions" not in name:  # a ReLU may be dead
            assert parameter.grad.ne(0).any(), name
    assert gates.grad is not None
    assert gates.grad.ne(0).all()


def test_gradients_of_dropped_components_are_exactly_zero() -> None:
    supernet = small_supernet(small_architecture())
    features, lengths = random_batch((22, 9))
    # One block whole, two chunks and a head of another, nothing of the third.
    subnet = Subnet.of(len(supernet.space), [*range(10), 10, 12, 15])
    gates = subnet.gates(torch.float64)[None].requires_grad_()
    supernet(features, lengths, gates, [0])[0].square().sum().backward()
    assert gates.grad is not None
    assert gates.grad[0].ne(0).tolist() == [index in subnet for index in range(30)]
    second, third = block_of(supernet, 1), block_of(supernet, 2)
    for weight, touched in (
        (second.ffn1.w1, [True, False, True]),
        (second.mhsa.w_out, [False, True, False]),
    ):
        assert weight.grad is not None
        assert weight.grad.flatten(1).ne(0).any(1).tolist() == touched
    for module in (second.conv, second.ffn2, *(getattr(third, name) for name in MODULES)):
        for parameter in module.parameters():
            assert parameter.grad is None or parameter.grad.eq(0).all()


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_gate_scales_its_component_once(module: Module, factor: float) -> None:
    supernet = network()
    space = supernet.space
    branch = getattr(supernet.blocks[0], module).branch
    features, lengths = random_batch((22, 9))
    x, lengths = supernet.front_end(features, lengths)
    units = space.num_units(module)

    def contribution(gate: float) -> Tensor:
        """What unit 0 adds beside the others' constant gates: a difference, so biases cancel."""
        gates = torch.full((1, units), 0.7, dtype=torch.float64)
        base = gates.clone()
        gates[0, 0] += gate
        return _branch(gates) - _branch(base)

    def _branch(gates: Tensor) -> Tensor:
        return branch(x[None], gates, work_list([range(units)], units), lengths, 0.0)

    torch.testing.assert_close(
        contribution(factor), factor * contribution(1.0), **tolerance("float64_reordered")
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_probs_are_at_least_float32_and_sum_to_one(dtype: torch.dtype) -> None:
    supernet = small_supernet(small_architecture(), dtype)
    features, lengths = random_batch((22, 9), dtype=dtype)
    log_probs, _ = supernet(features, lengths, supernet.space.full().gates(dtype)[None], [0])
    assert log_probs.dtype == torch.float32
    sums = log_probs.exp().sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), **tolerance("float32_reordered"))


@pytest.mark.parametrize(
    ("architecture", "millions"),
    [(TEDLIUM2, 42.129806), (LIBRISPEECH, 75.0)],
    ids=["tedlium2", "librispeech"],
)
def test_has_the_papers_number_of_parameters(architecture: Architecture, millions: float) -> None:
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in Supernet(architecture).parameters())
    assert count == ComponentSpace(architecture).total_cost("params")
    assert abs(count / 1e6 - millions) < 0.015 * millions


@pytest.mark.parametrize("full_capacity", [False, True])
def test_a_plan_of_the_host_gives_what_asking_the_gates_gives(full_capacity: bool) -> None:
    supernet = network()
    space = supernet.space
    subnets = [space.full(), Subnet.of(len(space), range(0, len(space), 2)), Subnet(len(space), ())]
    features, lengths = random_batch((22, 9))
    gates = stack_gates(subnets, torch.float64)
    plan = supernet.plan(subnets, "cpu", full_capacity=full_capacity)
    actual, _ = supernet(features, lengths, gates, [0, 1, 1], plan=plan)
    expected, _ = supernet(features, lengths, gates, [0, 1, 1])
    torch.testing.assert_close(actual, expected, **tolerance("float64_reordered"))


def test_a_gate_of_zero_that_is_computed_all_the_same_changes_nothing() -> None:
    supernet = network()
    space = supernet.space
    features, lengths = random_batch((22, 9))
    gates = torch.linspace(0.3, 1.2, 2 * len(space), dtype=torch.float64).view(2, -1)
    gates[1, space.module_slice(0, "ffn1").start] = 0
    gates[0, space.module_slice(1, "mhsa").start] = 0
    computed = supernet.plan([space.full(), space.full()], "cpu")
    actual, _ = supernet(features, lengths, gates, [0, 1], plan=computed)
    expected, _ = supernet(features, lengths, gates, [0, 1])
    torch.testing.assert_close(actual, expected, **tolerance("float64_reordered"))
