"""Dropout and layer drop in the supernet: what they touch, and what they must leave alone."""

import math

import pytest
import torch
from torch import Tensor

from ortho_edge.components import MODULES, Module
from ortho_edge.subnet import Subnet
from ortho_edge.supernet import Regularization
from tests.encoders import network, random_batch, soft_gates
from tests.tolerances import tolerance

CONV: frozenset[tuple[int, Module]] = frozenset({(1, "conv")})
"""One module that layer drop may skip."""


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
