"""Fewer operations in the graph of an XNNPACK delegate, with the same results to the last bit.

ExecuTorch writes every transposition and reshape of a network into the delegate, and adds some of
its own around each convolution, whose images XNNPACK wants with channels last. One after the other
they mostly undo each other, but XNNPACK computes them all. It also rounds the input of every
product by itself, be it the same, and has a tensor for every constant, be it the same.

A graph is what ExecuTorch hands to `flatc`, as JSON is read: `xvalues`, the tensors, by their
`id_out`, and `xnodes`, the operations, in the order in which they run.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Graph = dict[str, Any]
Node = Mapping[str, Any]

TRANSPOSE, RESHAPE, PRODUCT = "XNNStaticTranspose", "XNNStaticReshape", "XNNFullyConnected"
ELEMENTWISE = {
    f"XNN{name}"
    for name in ("Convert", "Add", "Subtract", "Multiply", "Sigmoid", "ReciprocalSquareRoot")
}
"""Those of our networks that compute every number of a frame by itself, but for its rounding."""
NONE = 2**32 - 1
"""The id of what is no tensor."""
FREE = 0
"""What a reshape has for the length that follows from the others."""


def simplified(graph: Graph) -> Graph:
    """The graph without operations and constants that repeat or undo others.

    Args:
        graph: As ExecuTorch writes it; it is left as it is.
    """
    return _with_fewer_constants(_Rewriting(_with_pictures(graph)).result())


def _with_pictures(graph: Graph) -> Graph:
    """The graph with frames (T, W) as pictures (1, T, 1, W), as convolutions have them.

    Every operation on frames gets reshapes around it, for the rewriting to take away again.
    """
    values = {tensor_of(one)["id_out"]: one for one in graph["xvalues"]}
    frames = _frames(graph)
    nodes: list[Node] = []

    def picture(name: int) -> int:
        length, width = tensor_of(values[name])["dims"]
        new = max(values) + 1
        values[new] = _like(values[name], new, [1, length, 1, width])
        return new

    def width(name: int) -> int:
        return tensor_of(values[name])["dims"][1]

    for node in graph["xnodes"]:
        operation = dict(node["xnode_union"])
        output = operation["output_id"]
        if output not in frames or node["xnode_union_type"] not in {PRODUCT, *ELEMENTWISE}:
            nodes.append(node)
            continue
        for key in _inputs(node):
            name = operation[key]
            if name in frames:
                operation[key] = picture(name)
                nodes.append(_reshape(name, [1, FREE, 1, width(name)], operation[key]))
        operation["output_id"] = picture(output)
        nodes.append({**node, "xnode_union": operation})
        nodes.append(_reshape(operation["output_id"], [FREE, width(output)], output))
    return {**graph, "xnodes": nodes, "xvalues": list(values.values())}


def _frames(graph: Graph) -> set[int]:
    """Tensors (T, W) of which only T can be free, for they go into layers or come from them."""
    two = {
        tensor["id_out"]
        for tensor in map(tensor_of, graph["xvalues"])
        if len(tensor["dims"]) == 2 and tensor["constant_buffer_idx"] == 0
    }
    found: set[int] = set()
    # Forwards what comes from frames, and backwards what they come from.
    for node in (*graph["xnodes"], *reversed(graph["xnodes"])):
        kind, operation = node["xnode_union_type"], node["xnode_union"]
        tensors = two & {operation[key] for key in _ids(node)}
        if kind == PRODUCT or (kind in ELEMENTWISE and found & tensors):
            found |= tensors
    return found


def _with_fewer_constants(graph: Graph) -> Graph:
    """The graph with those constants that a tensor has, each once, and no notes of origins."""
    old = graph["constant_data"]
    places = {"": 0}
    new = [old[0]]

    def place(index: int) -> int:
        key = old[index]["named_key"]
        if key not in places:
            places[key] = len(new)
            new.append(old[index])
        return places[key]

    values = copy.deepcopy(graph["xvalues"])
    for one in values:
        tensor, quantisation = tensor_of(one), one["xvalue_union"].get("quant_params") or {}
        tensor["constant_buffer_idx"] = place(tensor["constant_buffer_idx"])
        if "scale_buffer_idx" in quantisation:
            quantisation["scale_buffer_idx"] = place(quantisation["scale_buffer_idx"])
    nodes = [{**node, "debug_handle": 0} for node in graph["xnodes"]]
    return {**graph, "xnodes": nodes, "xvalues": values, "constant_data": new}


@dataclass(frozen=True)
class _View:
    """A tensor that holds the numbers of another in some order.

    Attributes:
        root: The id of the other.
        axes: For every axis of this tensor that is longer than 1, the axis of the other that it is.
        free: The axis of the other whose length is known when it runs; None if no reshape told.
    """

    root: int
    axes: tuple[int, ...]
    free: int | None = None

    @property
    def is_sorted(self) -> bool:
        """Whether the numbers lie in the order of the other."""
        return list(self.axes) == sorted(self.axes)


class _Rewriting:
    """Goes through the operations once and writes those that are needed."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.values = {tensor_of(one)["id_out"]: one for one in graph["xvalues"]}
        self.nodes: list[Node] = []
        self.constants = _first_of_each(graph)
        """The tensor that stands for one with the same constant."""
        self.views: dict[int, _View] = {}
        """Of tensors that are not computed, or not yet."""
        self.ordered: dict[tuple[int, tuple[int, ...]], int] = {}
        """Transposed tensors, by root and axes."""
        self.known: dict[str, int] = {}
        """What every operation that was written gives."""

    def result(self) -> Graph:
        """The new graph."""
        for node in self.graph["xnodes"]:
            view = self._view(node)
            if view is None:
                self._write(node)
            else:
                self.views[node["xnode_union"]["output_id"]] = view
        used = {*self.graph["input_ids"], *self.graph["output_ids"]}
        for node in self.nodes:
            used |= {node["xnode_union"][key] for key in _ids(node)}
        values = [one for name, one in self.values.items() if name in used]
        return {**self.graph, "xnodes": self.nodes, "xvalues": values}

    def _shape(self, name: int) -> tuple[int, ...]:
        return tuple(tensor_of(self.values[name])["dims"])

    def _view(self, node: Node) -> _View | None:
        """The output of a transposition or reshape as a view; None where it is none."""
        operation = node["xnode_union"]
        if node["xnode_union_type"] not in (TRANSPOSE, RESHAPE):
            return None
        source, target = operation["input_id"], operation["output_id"]
        if target in self.graph["output_ids"]:
            return None
        if _kind(self.values[source]) != _kind(self.values[target]):
            return None
        long = _long(self._shape(source))
        view = self.views.get(source) or _View(source, tuple(long))
        if node["xnode_union_type"] == RESHAPE:
            return self._reshaped(view, operation)
        axes = [view.axes[long.index(axis)] for axis in operation["perm"] if axis in long]
        return _View(view.root, tuple(axes), view.free)

    def _reshaped(self, view: _View, operation: Node) -> _View | None:
        """The view if a reshape only adds and takes away axes of length 1."""
        shape, target = self._shape(view.root), self._shape(operation["output_id"])
        long = _long(target)
        if [shape[axis] for axis in view.axes] != [target[axis] for axis in long]:
            return None
        if FREE not in operation["new_shape"]:
            return view
        place = operation["new_shape"].index(FREE)
        # Lengths are the largest possible ones: where two are the same, they do not tell which is
        # which.
        if [target[axis] for axis in long].count(target[place]) != 1:
            return None
        return _View(view.root, view.axes, view.axes[long.index(place)])

    def _write(self, node: Node) -> None:
        """Adds an operation on what is computed."""
        operation = dict(node["xnode_union"])
        for key in _inputs(node):
            operation[key] = self.constants.get(operation[key], operation[key])
            view = self.views.get(operation[key])
            if view is None:
                continue
            if node["xnode_union_type"] == RESHAPE:
                # It does not matter how they were shaped before.
                operation[key] = self._ordered(view)
            else:
                operation[key] = self._computed(operation[key], view)
        self._add({**node, "xnode_union": operation})

    def _computed(self, name: int, view: _View) -> int:
        """The tensor that a view stands for, by as few operations as there are."""
        shape, root = self._shape(name), self._shape(view.root)
        if view.free is None and len(shape) == len(root) and shape != root:
            # A reshape would have to know which length is free.
            return self._transposed(view, name)
        source = self._ordered(view, name)
        if self._shape(source) == shape:
            return source
        lengths = list(shape)
        if view.free is not None:
            lengths[_long(shape)[view.axes.index(view.free)]] = FREE
        return self._add(_reshape(source, lengths, name))

    def _ordered(self, view: _View, name: int | None = None) -> int:
        """A tensor of any shape with the numbers in the order of a view, best as `name` is."""
        if view.is_sorted:
            return view.root
        key = view.root, view.axes
        if key not in self.ordered:
            shape = self._shape(view.root)
            if name is None or len(self._shape(name)) != len(shape):
                perm = [*_short(shape), *view.axes]
                name = self._like(view.root, [shape[axis] for axis in perm])
            self._transposed(view, name)
        return self.ordered[key]

    def _transposed(self, view: _View, name: int) -> int:
        """The tensor `name`, which has as many axes as the root of its view."""
        long, short = iter(view.axes), iter(_short(self._shape(view.root)))
        perm = [next(short if length == 1 else long) for length in self._shape(name)]
        found = self._add(_transposition(view.root, perm, name))
        self.ordered.setdefault((view.root, view.axes), found)
        return found

    def _like(self, name: int, shape: Sequence[int]) -> int:
        """A new tensor of another shape."""
        new = max(self.values) + 1
        self.values[new] = _like(self.values[name], new, shape)
        return new

    def _add(self, node: Node) -> int:
        """Adds an operation unless it is there already; what it gives."""
        operation = node["xnode_union"]
        target = operation["output_id"]
        kind, shape = _kind(self.values[target]), self._shape(target)
        does = {key: operation[key] for key in operation if key != "output_id"}
        bounds = node.get("output_min_max")
        key = json.dumps([node["xnode_union_type"], does, bounds, kind, shape], sort_keys=True)
        if key in self.known and target not in self.graph["output_ids"]:
            there = self.known[key]
            self.views[target] = _View(there, tuple(_long(shape)))
            return there
        self.known[key] = target
        self.views.pop(target, None)
        self.nodes.append(node)
        return target


def _first_of_each(graph: Graph) -> dict[int, int]:
    """For every tensor with a constant the first one that is the same."""
    found: dict[int, int] = {}
    first: dict[str, int] = {}
    keys = [one["named_key"] for one in graph["constant_data"]]
    for one in graph["xvalues"]:
        tensor, name = tensor_of(one), tensor_of(one)["id_out"]
        if tensor["constant_buffer_idx"]:
            quantisation = dict(one["xvalue_union"].get("quant_params") or {})
            scales = quantisation.pop("scale_buffer_idx", 0)
            content = keys[tensor["constant_buffer_idx"]], keys[scales]
            what = [content, tensor["datatype"], tensor["dims"], tensor["flags"], quantisation]
            found[name] = first.setdefault(json.dumps(what, sort_keys=True), name)
    return found


def _like(value: Node, name: int, shape: Sequence[int]) -> dict[str, Any]:
    """A tensor of another name and shape."""
    found = copy.deepcopy(dict(value))
    tensor_of(found).update(
        num_dims=len(shape), dims=list(shape), constant_buffer_idx=0,
        external_id=NONE, flags=0, id_out=name,
    )  # fmt: skip
    return found


def _transposition(source: int, perm: Sequence[int], target: int) -> Node:
    return _moving(TRANSPOSE, source, target, num_dims=len(perm), perm=list(perm))


def _reshape(source: int, shape: Sequence[int], target: int) -> Node:
    return _moving(RESHAPE, source, target, num_dims=len(shape), new_shape=list(shape))


def _moving(kind: str, source: int, target: int, **how: Any) -> Node:
    operation = {**how, "input_id": source, "output_id": target, "flags": 0}
    return {"xnode_union_type": kind, "xnode_union": operation}


def tensor_of(value: Node) -> dict[str, Any]:
    """What plain and quantised tensors have in common."""
    union = value["xvalue_union"]
    return union.get("tensor_value", union)


def _kind(value: Node) -> list[Any]:
    """What kind of numbers a tensor holds."""
    union = value["xvalue_union"]
    return [tensor_of(value)["datatype"], union.get("quant_params_type"), union.get("quant_params")]


def _ids(node: Node) -> list[str]:
    """The fields that name tensors."""
    return [key for key in node["xnode_union"] if key.endswith("_id")]


def _inputs(node: Node) -> list[str]:
    return [key for key in _ids(node) if not key.startswith("output")]


def _long(shape: Sequence[int]) -> list[int]:
    return [axis for axis, length in enumerate(shape) if length != 1]


def _short(shape: Sequence[int]) -> list[int]:
    return [axis for axis, length in enumerate(shape) if length == 1]
