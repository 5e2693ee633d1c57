"""Simplified graphs compute what they did, told by an interpreter of the few operations needed."""

from typing import Any

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from ortho_export.xnnpack_graph import (
    FREE,
    NONE,
    PRODUCT,
    RESHAPE,
    TRANSPOSE,
    Graph,
    simplified,
)

LONGEST, LENGTH = 12, 5
"""Of the axis that is free: as the graph has it, and as it is run."""


class Written:
    """A graph under construction; tensors are named by their ids."""

    def __init__(self, *shape: int) -> None:
        self.shapes: list[tuple[int, ...]] = [shape]
        self.nodes: list[dict[str, Any]] = []
        self.outputs: list[int] = []

    def add(self, kind: str, shape: tuple[int, ...], **fields: Any) -> int:
        """Adds an operation; its output."""
        output = len(self.shapes)
        self.shapes.append(shape)
        operation = {**fields, "output_id": output, "flags": 0}
        self.nodes.append(
            {
                "xnode_union_type": kind,
                "xnode_union": operation,
                "debug_handle": len(self.nodes),
            }
        )
        return output

    def transposed(self, source: int, *perm: int) -> int:
        """Adds a transposition."""
        shape = tuple(self.shapes[source][one] for one in perm)
        return self.add(TRANSPOSE, shape, num_dims=len(perm), perm=list(perm), input_id=source)

    def reshaped(self, source: int, *new: int) -> int:
        """Adds a reshape, with `FREE` where the length is free."""
        known = int(np.prod([one for one in new if one != FREE]))
        rest = int(np.prod(self.shapes[source])) // known
        shape = tuple(rest if one == FREE else one for one in new)
        return self.add(RESHAPE, shape, num_dims=len(new), new_shape=list(new), input_id=source)

    def opaque(self, *sources: int, kind: str = "XNNAdd") -> int:
        """Adds an operation that is none of these; it sums."""
        inputs = {f"input{place}_id": one for place, one in enumerate(sources, 1)}
        return self.add(kind, self.shapes[sources[0]], **inputs, filter_id=NONE)

    def product(self, source: int, width: int) -> int:
        """Adds a layer of so many outputs."""
        shape = (*self.shapes[source][:-1], width)
        return self.add(PRODUCT, shape, input1_id=source, filter_id=NONE)

    def graph(self) -> Graph:
        """With the outputs that were appended."""
        values = [
            {
                "xvalue_union_type": "XNNTensorValue",
                "xvalue_union": {
                    "datatype": "xnn_datatype_fp32", "num_dims": len(shape), "dims": list(shape),
                    "constant_buffer_idx": 0, "external_id": 0 if name == 0 else NONE,
                    "flags": 0, "id_out": name,
                },
            }
            for name, shape in enumerate(self.shapes)
        ]  # fmt: skip
        return {
            "xnodes": self.nodes, "xvalues": values, "input_ids": [0],
            "output_ids": self.outputs, "constant_data": [{"named_key": ""}],
        }  # fmt: skip


def computed(graph: Graph, shape: tuple[int, ...], free: int | None = None) -> list[np.ndarray]:
    """Outputs of a graph, its input being `LENGTH` long where it is free."""
    shape = tuple(LENGTH if axis == free else length for axis, length in enumerate(shape))
    tensors = {0: np.arange(np.prod(shape), dtype=np.float64).reshape(shape)}
    declared = {one["xvalue_union"]["id_out"]: one["xvalue_union"] for one in graph["xvalues"]}
    for node in graph["xnodes"]:
        operation = node["xnode_union"]
        inputs = [
            tensors[name] for key, name in sorted(operation.items()) if key.startswith("input")
        ]
        if node["xnode_union_type"] == TRANSPOSE:
            found = inputs[0].transpose(operation["perm"])
            assert operation["num_dims"] == found.ndim
        elif node["xnode_union_type"] == RESHAPE:
            new = [-1 if one == FREE else one for one in operation["new_shape"]]
            found = inputs[0].reshape(new)
            assert operation["num_dims"] == found.ndim
        elif node["xnode_union_type"] == PRODUCT:
            width = declared[operation["output_id"]]["dims"][-1]
            found = inputs[0] @ np.ones((inputs[0].shape[-1], 1)) * np.arange(1, width + 1)
        else:
            found = 2 * sum(inputs, np.zeros(())) + 1
        name = operation["output_id"]
        assert declared[name]["num_dims"] == found.ndim
        assert all(a <= b for a, b in zip(found.shape, declared[name]["dims"], strict=True))
        assert name not in tensors
        tensors[name] = found
    return [tensors[name] for name in graph["output_ids"]]


def kinds(graph: Graph) -> list[str]:
    return [node["xnode_union_type"].removeprefix("XNN") for node in graph["xnodes"]]


def same(written: Written, free: int | None = None) -> Graph:
    """The simplified graph, which must compute what the graph does and leave it as it is."""
    graph = written.graph()
    before = repr(graph)
    found = simplified(graph)
    assert repr(graph) == before
    shape = written.shapes[0]
    for one, other in zip(computed(graph, shape, free), computed(found, shape, free), strict=True):
        assert one.shape == other.shape
        np.testing.assert_array_equal(one, other)
    return found


def test_what_stands_around_a_depthwise_convolution_becomes_two_reshapes() -> None:
    written = Written(LONGEST, 7)
    x = written.opaque(0)
    x = written.reshaped(written.transposed(x, 1, 0), 1, 7, FREE)
    x = written.transposed(written.reshaped(x, 1, 7, FREE, 1), 0, 2, 3, 1)
    x = written.transposed(written.opaque(x), 0, 3, 1, 2)
    x = written.reshaped(written.reshaped(x, 1, 7, FREE), 7, FREE)
    written.outputs.append(written.opaque(written.transposed(x, 1, 0)))
    assert kinds(same(written, free=0)) == [
        "Add", "StaticReshape", "Add", "StaticReshape", "Add",
    ]  # fmt: skip


def test_frames_are_pictures_wherever_layers_and_convolutions_take_them() -> None:
    written = Written(1, LONGEST, 3, 7)
    x = written.product(written.reshaped(0, FREE, 21), 7)
    y = written.reshaped(written.transposed(x, 1, 0), 1, 7, FREE, 1)
    y = written.opaque(written.transposed(y, 0, 2, 3, 1), kind="XNNDepthwiseConv2d")
    y = written.reshaped(written.transposed(y, 0, 3, 1, 2), 7, FREE)
    y = written.transposed(y, 1, 0)
    y = written.opaque(y, written.product(y, 1), x)
    written.outputs.append(written.opaque(written.product(y, 5)))
    found = same(written, free=1)
    assert kinds(found) == [
        "StaticReshape", "StaticReshape", "FullyConnected", "DepthwiseConv2d", "FullyConnected",
        "Add", "FullyConnected", "Add", "StaticReshape",
    ]  # fmt: skip


def test_what_leads_to_a_layer_is_shaped_as_its_input() -> None:
    # A number that is rounded must not be reshaped any more.
    written = Written(1, LONGEST, 3, 7)
    x = written.opaque(written.reshaped(0, FREE, 21), kind="XNNConvert")
    written.outputs.append(written.opaque(written.product(x, 5)))
    found = kinds(same(written, free=1))
    assert found[found.index("Convert") + 1] == "FullyConnected"


def test_what_no_layer_takes_stays_as_it_is() -> None:
    # Which of its lengths is free nobody knows.
    written = Written(7, LONGEST)
    written.outputs.append(written.opaque(written.opaque(0)))
    assert kinds(same(written, free=1)) == ["Add", "Add"]


def test_one_tensor_for_constants_that_are_the_same() -> None:
    written = Written(LONGEST, 7)
    layers = [written.product(0, 1) for _ in range(5)]
    written.outputs.append(written.opaque(*layers))
    graph = written.graph()
    keys = ["", "scales", "unused", "average", "average", "other", "average", "average"]
    graph["constant_data"] = [{"named_key": key} for key in keys]
    written_as = [(3, 1, 7), (4, 1, 7), (5, 1, 7), (6, 2, 7), (7, 1, 14)]
    for layer, (constant, kind, width) in zip(layers, written_as, strict=True):
        value = {
            "datatype": f"kind {kind}", "num_dims": 2, "dims": [1, width], "id_out": 100 + layer,
            "constant_buffer_idx": constant, "external_id": NONE, "flags": 0,
        }  # fmt: skip
        scales = {"scale_buffer_idx": 1, "num_scales": 1}
        union = {"tensor_value": value, "quant_params": scales}
        graph["xvalues"].append({"xvalue_union": union})
        graph["xnodes"][layers.index(layer)]["xnode_union"]["filter_id"] = 100 + layer
    found = simplified(graph)
    # The first two layers are the same now.
    assert kinds(found).count("FullyConnected") == 4
    constants = [one["xvalue_union"] for one in found["xvalues"] if "num_scales" in str(one)]
    names = [one["named_key"] for one in found["constant_data"]]
    assert sorted(names) == ["", "average", "other", "scales"]
    assert [
        (names[one["constant_buffer_idx"]], one["datatype"], one["dims"][1])
        for one in (constant["tensor_value"] for constant in constants)
    ] == [
        ("average", "kind 1", 7),
        ("other", "kind 1", 7),
        ("average", "kind 2", 7),
        ("average", "kind 1", 14),
    ]
    assert {names[one["quant_params"]["scale_buffer_idx"]] for one in constants} == {"scales"}


def test_the_order_of_channels_and_bins_costs_one_transposition() -> None:
    written = Written(1, LONGEST, 4, 3)
    x = written.transposed(written.opaque(0), 0, 3, 1, 2)
    x = written.transposed(written.reshaped(x, 3, FREE, 4), 1, 0, 2)
    written.outputs.append(written.opaque(written.reshaped(x, FREE, 12)))
    assert kinds(same(written, free=1)) == ["Add", "StaticTranspose", "StaticReshape", "Add"]


def test_what_undoes_another_leaves_nothing() -> None:
    written = Written(LONGEST, 7)
    x = written.transposed(written.transposed(0, 1, 0), 1, 0)
    written.outputs.append(written.opaque(x))
    assert kinds(same(written, free=0)) == ["Add"]


def test_a_tensor_is_moved_once_for_all_who_need_it() -> None:
    written = Written(LONGEST, 2, 7)
    moved = [written.transposed(0, 1, 0, 2) for _ in range(3)]
    written.outputs.append(written.opaque(*moved))
    found = same(written, free=0)
    assert kinds(found) == ["StaticTranspose", "Add"]
    assert len(found["xvalues"]) == 3


def test_operations_on_the_same_inputs_are_done_once() -> None:
    written = Written(LONGEST, 7)
    twice = [written.opaque(0), written.opaque(0)]
    thrice = [written.opaque(twice[0]), written.opaque(twice[1]), written.opaque(0)]
    written.outputs.append(written.opaque(*thrice))
    assert kinds(same(written, free=0)) == ["Add", "Add", "Add"]


def test_an_operation_with_other_bounds_is_another() -> None:
    written = Written(LONGEST, 7)
    written.outputs.append(written.opaque(written.opaque(0), written.opaque(0)))
    graph = written.graph()
    for node, top in zip(graph["xnodes"], (1.0, 6.0), strict=False):
        node["output_min_max"] = {"output_min": 0.0, "output_max": top}
    assert kinds(simplified(graph)) == ["Add", "Add", "Add"]


def test_an_output_keeps_its_name_and_shape() -> None:
    written = Written(LONGEST, 7)
    written.outputs.append(written.reshaped(written.opaque(0), 1, FREE, 7))
    written.outputs.append(written.transposed(written.transposed(0, 1, 0), 1, 0))
    assert same(written, free=0)["output_ids"] == written.outputs


def test_equal_lengths_do_not_tell_which_one_is_free() -> None:
    # As written both are 12 long; as run the first is 5, and this reshape is no identity.
    written = Written(LONGEST, LONGEST)
    written.outputs.append(written.opaque(written.reshaped(0, LONGEST, FREE)))
    assert kinds(same(written, free=0)) == ["StaticReshape", "Add"]


def test_numbers_of_another_kind_are_no_view() -> None:
    written = Written(LONGEST, 7)
    written.outputs.append(written.opaque(written.transposed(written.transposed(0, 1, 0), 1, 0)))
    graph = written.graph()
    graph["xvalues"][1]["xvalue_union"]["datatype"] = "xnn_datatype_qint8"
    assert kinds(simplified(graph)) == ["StaticTranspose", "StaticTranspose", "Add"]


@st.composite
def moves(draw: st.DrawFn) -> tuple[Written, int]:
    """A graph of random moves of a tensor with a free axis, and other operations between."""
    shape = draw(st.lists(st.sampled_from([1, 1, 2, 3, 4]), max_size=3))
    free = draw(st.integers(0, len(shape)))
    shape.insert(free, LONGEST)
    written, names = Written(*shape), [0]
    # Where the free axis is, by tensor.
    places = [free]
    for _ in range(draw(st.integers(1, 12))):
        source = draw(st.sampled_from(names))
        old, place = written.shapes[source], places[source]
        kind = draw(st.sampled_from(["transpose", "shape", "merge", "opaque", "product"]))
        if kind == "transpose":
            perm = draw(st.permutations(range(len(old))))
            names.append(written.transposed(source, *perm))
            places.append(perm.index(place))
        elif kind == "shape":
            # Other axes of length 1.
            new = [FREE if axis == place else one for axis, one in enumerate(old)]
            new = [one for one in new if one != 1 or draw(st.booleans())]
            for _ in range(draw(st.integers(0, 2))):
                new.insert(draw(st.integers(0, len(new))), 1)
            names.append(written.reshaped(source, *new))
            places.append(new.index(FREE))
        elif kind == "merge" and place + 1 < len(old):
            # The free axis leads, so it is what is left of all.
            new = [FREE, int(np.prod(old[place + 1 :]))]
            assume(int(np.prod(old[:place])) == 1)
            names.append(written.reshaped(source, *new))
            places.append(0)
        elif kind == "product" and place + 1 < len(old):
            layers = [
                written.product(source, draw(st.sampled_from([2, 4]))),
                written.product(source, 1),
            ]
            names += [*layers, written.opaque(source, layers[1])]
            places += 3 * [place]
        else:
            names.append(written.opaque(source))
            places.append(place)
    ends = draw(st.lists(st.sampled_from(names[1:]), min_size=1, max_size=3, unique=True))
    written.outputs += [written.opaque(one) for one in ends]
    return written, free


@given(moves())
def test_random_moves(made: tuple[Written, int]) -> None:
    written, free = made
    found = same(written, free)
    assert kinds(simplified(found)) == kinds(found)
