"""The supernet against an encoder written out naively, and what gating must never do."""

import copy
import functools
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ortho_edge.components import MODULES, ComponentSpace, Module
from ortho_edge.conformer.architecture import Architecture, FeatureNormalization
from ortho_edge.conformer.front_end import frames_mask, normalize_utterance
from ortho_edge.subnet import Subnet, stack_gates
from ortho_edge.supernet import Regularization, Supernet
from ortho_kernels.worklist import work_list
from tests import naive
from tests.encoders import (
    ALL_FRONT_ENDS,
    ELASTIC_FRONT_ENDS,
    FRONT_ENDS,
    block_of,
    draw_subnet,
    random_batch,
    small_architecture,
    small_supernet,
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
CONV: frozenset[tuple[int, Module]] = frozenset({(1, "conv")})
"""One module that layer drop may skip."""


@functools.cache
def network(front_end: str = "strided", normalization: FeatureNormalization = "none") -> Supernet:
    return small_supernet(small_architecture(front_end, feature_normalization=normalization))


def soft_gates(num_rows: int, num_components: int, seed: int = 0) -> Tensor:
    """Gates between 0.2 and 1.2 of which about a third is closed."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_rows, num_components)
    gates = 0.2 + torch.rand(shape, generator=generator, dtype=torch.float64)
    return gates * (torch.rand(shape, generator=generator) < 0.7)


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


@pytest.mark.parametrize("front_end", ELASTIC_FRONT_ENDS)
def test_a_closed_chunk_of_the_front_end_has_no_gradient_from_that_subnet(front_end: str) -> None:
    supernet = small_supernet(small_architecture(front_end))
    space, features, lengths = supernet.space, *random_batch((22, 9))
    second, third = range(len(space))[space.module_slice(None, "front_end")]
    # Neither keeps the third chunk, and only the first keeps the second.
    subnets = [Subnet.of(len(space), [0, 3, second]), Subnet.of(len(space), [1, 4])]
    convolution = supernet.front_end.convolutions[-1]
    weights = {
        "kernel": convolution.weight, "bias": convolution.bias,
        "columns": supernet.front_end.linear.weight,
    }  # fmt: skip

    def gradients(rows: list[int]) -> dict[str, tuple[Tensor, ...]]:
        """Of each weight, by chunks; and of the gates."""
        gates = stack_gates([subnets[row] for row in rows], torch.float64).requires_grad_()
        supernet.zero_grad()
        supernet(features, lengths, gates, rows)[0].square().sum().backward()
        assert gates.grad is not None
        found: dict[str, tuple[Tensor, ...]] = {"gates": (gates.grad,)}
        for name, weight in weights.items():
            assert isinstance(weight, torch.nn.Parameter)
            assert weight.grad is not None
            found[name] = weight.grad.clone().chunk(3, int(name == "columns"))
        return found

    both, first, other = gradients([0, 1]), gradients([0]), gradients([1])
    (of_gates,) = both["gates"]
    assert of_gates[:, [second, third]].ne(0).tolist() == [[True, False], [False, False]]
    for name in weights:
        assert [one.ne(0).any().item() for one in both[name]] == [True, True, False], name
        assert other[name][1].eq(0).all(), name
        torch.testing.assert_close(both[name][1], first[name][1], **tolerance("exact"))


def test_a_gate_scales_its_chunk_of_the_front_end_once() -> None:
    supernet = network("elastic-strided")
    features, lengths = random_batch((22, 9))
    gates = torch.tensor([[0, 0], [1, 0], [0.5, 0], [2, 0], [2, 1], [0, 1]], dtype=torch.float64)
    x, frames = supernet.front_end.gated(features, lengths, gates)
    assert frames.tolist() == [6, 3]
    none, one, half, twice, both, other = x
    for actual, expected in (
        (half - none, 0.5 * (one - none)),
        (twice - none, 2 * (one - none)),
        (both - none, 2 * (one - none) + (other - none)),
    ):
        assert actual.abs().max() > 0.1
        torch.testing.assert_close(actual, expected, **tolerance("float64_reordered"))


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


def _is_either(value: Tensor, first: Tensor, second: Tensor) -> bool:
    """Whether `value` is one of the two; True for the second."""
    close = [
        torch.allclose(value, option, **tolerance("float64_reordered"))
        for option in (first, second)
    ]
    assert sorted(close) == [False, True]
    return close[1]


def test_layer_drop_skips_only_droppable_modules_and_keeps_the_expectation() -> None:
    supernet = network()
    space, batch = supernet.space, 400
    rate = 0.75  # its 1 / (1 - rate) has no rounding
    features, lengths = random_batch((9,))
    features, lengths = features.expand(batch, -1, -1), lengths.expand(batch)
    gates = torch.ones(3, len(space), dtype=torch.float64)
    gates[0] = 0  # not even live
    dropping = Regularization(layer_drop=rate, droppable=(frozenset(), frozenset(), CONV))
    torch.manual_seed(0)
    actual, _ = supernet(features, lengths, gates, [0, 0, 0], dropping)
    plain, _ = supernet(features[:1], lengths[:1], gates[1:2], [0])
    place = space.module_slice(1, "conv")
    kept_gates, dropped_gates = gates[1:2].clone(), gates[1:2].clone()
    # The conv module's gate multiplies all it adds, so a kept row is a gate of 1 / (1 - rate).
    kept_gates[:, place], dropped_gates[:, place] = 1 / (1 - rate), 0
    kept, _ = supernet(features[:1], lengths[:1], kept_gates, [0])
    dropped, _ = supernet(features[:1], lengths[:1], dropped_gates, [0])
    torch.testing.assert_close(
        actual[1], plain[0].expand_as(actual[1]), **tolerance("float64_reordered")
    )
    num_dropped = sum(_is_either(row, kept[0, 0], dropped[0, 0]) for row in actual[2])
    deviation = math.sqrt(batch * rate * (1 - rate))
    assert abs(num_dropped - rate * batch) < 5 * deviation


@pytest.mark.parametrize(
    "regularization",
    [
        Regularization(layer_drop=0.5),
        Regularization(layer_drop=0.5, droppable=(frozenset(), frozenset())),
        Regularization(layer_drop=0.0, droppable=(CONV, CONV)),
    ],
)
def test_layer_drop_without_rate_or_droppable_modules_does_nothing(
    regularization: Regularization,
) -> None:
    supernet = network()
    features, lengths = random_batch((22, 9))
    gates = soft_gates(2, len(supernet.space))
    actual, _ = supernet(features, lengths, gates, [0, 1], regularization)
    expected, _ = supernet(features, lengths, gates, [0, 1])
    torch.testing.assert_close(actual, expected, **tolerance("exact"))


@pytest.mark.parametrize(
    ("rates", "touched"),
    [
        (Regularization(ffn_dropout=0.5), {"ffn1", "ffn2"}),
        (Regularization(attention_dropout=0.5), {"mhsa"}),
        (Regularization(residual_dropout=0.5), {*MODULES}),
    ],
    ids=["ffn", "attention", "residual"],
)
def test_dropout_acts_on_its_modules_alone(rates: Regularization, touched: set[str]) -> None:
    supernet = network()
    features, lengths = random_batch((22, 9))
    for name in MODULES:
        place = supernet.space.module_slice(0, name)
        gates = Subnet.of(len(supernet.space), range(place.start, place.stop)).gates(torch.float64)
        plain, _ = supernet(features, lengths, gates[None], [0])
        random, _ = supernet(features, lengths, gates[None], [0], rates)
        assert random.equal(plain) == (name not in touched)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_probs_are_at_least_float32_and_sum_to_one(dtype: torch.dtype) -> None:
    supernet = small_supernet(small_architecture(), dtype)
    features, lengths = random_batch((22, 9), dtype=dtype)
    log_probs, _ = supernet(features, lengths, supernet.space.full().gates(dtype)[None], [0])
    assert log_probs.dtype == torch.float32
    sums = log_probs.exp().sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), **tolerance("float32_reordered"))


def test_frames_mask_counts() -> None:
    assert frames_mask(torch.tensor([0, 1, 3]), 3).tolist() == [
        [False, False, False],
        [True, False, False],
        [True, True, True],
    ]


def test_normalization_ignores_level_and_channel() -> None:
    features, lengths = random_batch((22, 9))
    moved = features + torch.linspace(-3, 3, features.shape[-1], dtype=torch.float64)
    for b, length in enumerate(lengths):
        a, b_ = (normalize_utterance(given, lengths)[b, :length] for given in (features, moved))
        torch.testing.assert_close(a, b_, **tolerance("float64_reordered"))
        torch.testing.assert_close(
            a.mean(0), torch.zeros_like(a[0]), **tolerance("float64_reordered")
        )
        torch.testing.assert_close(
            a.std(0) if length > 1 else a, features[b, :length].std(0) / 4,
            **tolerance("float64_reordered"),
        )  # fmt: skip


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


def lengths_after(num_frames: Sequence[int]) -> list[int]:
    return [math.ceil(math.ceil(frames / 2) / 2) for frames in num_frames]


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_subsamples_time_by_four(front_end: str) -> None:
    supernet = network(front_end)
    features, lengths = random_batch(range(1, 24))
    x, frames = supernet.front_end(features, lengths)
    assert frames.tolist() == lengths_after(range(1, 24))
    assert x.shape == (23, 6, 10)


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
