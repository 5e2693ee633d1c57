"""Pictures show the numbers they are made from."""

from dataclasses import replace

import numpy as np

from ortho_edge.checkpoint import TrainedSubnet
from ortho_edge.components import ComponentSpace
from ortho_edge.conformer.architecture import Architecture
from ortho_edge.plots import error_rates_against_flops, kept_units, selection_map, to_png
from ortho_edge.subnet import Subnet
from ortho_edge.training.evaluation import ErrorRates

SPACE = ComponentSpace(
    Architecture(
        vocab_size=5, dim=16, num_blocks=2, num_heads=2, head_dim=8, ffn_dim=32, kernel_size=3,
        front_end="strided", front_end_channels=(2, 4),
    )
)  # fmt: skip
FULL = TrainedSubnet(name="s100", subnet=SPACE.full(), head=0, target=1.0)
# Block 0: chunks 1 and 2 of the first FFN; block 1: the convolution and one head.
SMALL = TrainedSubnet(name="s030", subnet=Subnet.of(len(SPACE), [1, 2, 15, 17]), head=1, target=0.3)


def rates(wer: float) -> ErrorRates:
    return ErrorRates(
        wer=wer, wer_interval=(wer - 2, wer + 3), cer=1.0, cer_interval=(0.5, 2.0), words=10,
        utterances=5, speakers=1, resampled="utterances",
    )  # fmt: skip


def test_kept_units_are_counted_per_block_and_module() -> None:
    np.testing.assert_array_equal(kept_units(SPACE, FULL), [[4, 1, 2, 4]] * 2)
    np.testing.assert_array_equal(kept_units(SPACE, SMALL), [[2, 0, 0, 0], [0, 1, 1, 0]])


def test_the_map_writes_every_count() -> None:
    figure = selection_map(SPACE, [FULL, SMALL])
    texts = [text.get_text() for text in figure.axes[1].texts]
    assert texts == ["2/4", "0/1", "0/2", "0/4", "0/4", "1/1", "1/2", "0/4"]
    assert to_png(figure).startswith(b"\x89PNG")


def test_the_map_shows_an_elastic_front_end_above_the_blocks() -> None:
    space = ComponentSpace(replace(SPACE.architecture, front_end_chunks=4))
    kept = [1, 2, 15, 17, len(space) - 1]
    small = replace(SMALL, subnet=Subnet.of(len(space), kept))
    np.testing.assert_array_equal(kept_units(space, small), kept_units(SPACE, SMALL))
    panel = selection_map(space, [replace(FULL, subnet=space.full()), small]).axes[1]
    *counts, front_end = panel.texts
    assert len(counts) == 8
    assert (front_end.get_text(), front_end.get_position()[1]) == ("front end 2/4", -1)
    assert panel.get_ylim() == (1.5, -1.5)


def test_points_stand_at_their_cost_and_error_rate() -> None:
    figure = error_rates_against_flops(
        {"s100": rates(5.0), "s030": rates(9.0)}, {"s100": 1.0, "s030": 0.29}, "digits"
    )
    line = figure.axes[0].lines[0]
    points = np.asarray(line.get_xydata(), dtype=np.float64)
    np.testing.assert_allclose(points, [[29.0, 9.0], [100.0, 5.0]])
