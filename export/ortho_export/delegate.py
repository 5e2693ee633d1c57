"""XNNPACK delegates of a lowered program, rewritten: fewer operations, and constants inside.

ExecuTorch keeps every constant as a segment of the file under a name of 64 letters that stands in
the file twice; with tables and padding that is some 200 bytes for each of the hundreds of biases
and scales. A delegate may also hold its constants itself, by their offsets, which costs memory for
one copy of them while it is loaded.
"""

import copy
import importlib.resources
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ortho_export.flatbuffer import Schema, flatbuffer
from ortho_export.xnnpack_graph import NONE, Graph, simplified, tensor_of

if TYPE_CHECKING:
    from executorch.exir import EdgeProgramManager

ALIGNMENT = 16
CONVOLUTIONS = {"XNNConv2d", "XNNDepthwiseConv2d"}
FP32, FP16 = 1, 2
"""Kinds of numbers, as XNNPACK's schema counts them."""
SCHEMAS, SCHEMA = "executorch.backends.xnnpack.serialization", "schema.fbs"


@contextmanager
def kept_graphs() -> Iterator[Mapping[bytes, Graph]]:
    """The graphs of delegates that are written meanwhile, by their flatbuffers.

    Reading a flatbuffer back as JSON rounds every number to six decimals, of which the floor of
    features, 1.2e-7, leaves nothing.
    """
    from executorch.backends.xnnpack.serialization import xnnpack_graph_serialize as serialization

    write, graphs = serialization.convert_to_flatbuffer, {}

    def written(graph: Any) -> bytes:
        flatbuffer = write(graph)
        text = json.dumps(graph, cls=serialization._DataclassEncoder)
        graphs[flatbuffer] = json.loads(text)
        return flatbuffer

    serialization.convert_to_flatbuffer = written
    try:
        yield graphs
    finally:
        serialization.convert_to_flatbuffer = write


def rewrite_delegates(
    edge: "EdgeProgramManager", graphs: Mapping[bytes, Graph], *, inline: bool
) -> None:
    """Simplifies the graph of every XNNPACK delegate.

    Args:
        edge: A lowered program; it is changed.
        graphs: Those of its delegates, by their flatbuffers.
        inline: Move the constants into the delegates too.
    """
    from executorch.exir._serialize._named_data_store import NamedDataStore

    graph = edge.exported_program().graph_module
    for name, _ in list(graph.named_children()):
        lowered = getattr(graph, name)
        if getattr(lowered, "backend_id", None) != "XnnpackBackend":
            continue
        found, data = graphs[_flatbuffer(lowered.processed_bytes)], b""
        if inline:
            store = lowered.named_data_store_output
            assert store is not None, "XNNPACK names its constants"
            places = {key: one.buffer_index for key, one in store.pte_data.items()}
            constants = {key: bytes(store.buffers[places[key]]) for key in places}
            found = simplified(_with_halves(found, constants))
            data = _inlined(found, constants)
            lowered._named_data_store_output = None
        else:
            found = simplified(found)
        lowered._processed_bytes = _written(found, data)
    if inline:
        edge._named_data_store = NamedDataStore()


def _with_halves(graph: Graph, constants: dict[str, bytes]) -> Graph:
    """The graph with convolutions in fp32 that keep their weights and biases in fp16.

    XNNPACK widens them when a program is loaded and computes in fp32. The new constants are added
    to `constants`.
    """
    values = {tensor_of(one)["id_out"]: one for one in graph["xvalues"]}
    entries, nodes, halves = list(graph["constant_data"]), [], {}

    def half(name: int) -> int:
        if name in halves or name not in values:
            return halves.get(name, name)
        found = copy.deepcopy(values[name])
        tensor = tensor_of(found)
        source = entries[tensor["constant_buffer_idx"]]["named_key"]
        wide, key = np.frombuffer(constants[source], np.float32), f"half of {source}"
        constants[key] = wide.astype(np.float16).tobytes()
        entries.append({"offset": NONE, "size": 2 * len(wide), "named_key": key})
        new = halves[name] = max(values) + 1
        tensor.update(datatype=FP16, constant_buffer_idx=len(entries) - 1, id_out=new)
        values[new] = found
        return new

    for node in graph["xnodes"]:
        operation = dict(node["xnode_union"])
        weight = values.get(operation.get("filter_id", NONE))
        is_convolution = node["xnode_union_type"] in CONVOLUTIONS
        if weight is not None and is_convolution and tensor_of(weight)["datatype"] == FP32:
            for key in ("filter_id", "bias_id"):
                operation[key] = half(operation[key])
        nodes.append({**node, "xnode_union": operation})
    return {
        **graph, "xnodes": nodes, "xvalues": list(values.values()), "constant_data": entries,
    }  # fmt: skip


def _inlined(graph: Graph, constants: dict[str, bytes]) -> bytes:
    """All constants of a graph, which is changed to have them by their places, once each."""
    data, places = bytearray(), {}
    # The first entry stands for what is no constant.
    for entry in graph["constant_data"][1:]:
        content = constants[entry.pop("named_key")]
        if content not in places:
            places[content] = len(data)
            data += content
            data += bytes(-len(data) % ALIGNMENT)
        entry["offset"] = places[content]
    return bytes(data)


def _flatbuffer(delegate: bytes) -> bytes:
    """The graph's part of a delegate that names its constants."""
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader

    header = XNNHeader.from_bytes(delegate[: XNNHeader.EXPECTED_LENGTH])
    assert header.constant_data_size == 0
    return delegate[header.flatbuffer_offset :][: header.flatbuffer_size]


def _written(graph: Graph, data: bytes) -> bytes:
    """A delegate of a graph and the constants that it has by their places."""
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader

    schema = Schema((importlib.resources.files(SCHEMAS) / SCHEMA).read_text("utf-8"))
    content = flatbuffer(schema, graph)
    content += bytes(-len(content) % ALIGNMENT)
    start = -(-XNNHeader.EXPECTED_LENGTH // ALIGNMENT) * ALIGNMENT
    header = XNNHeader(
        flatbuffer_offset=start,
        flatbuffer_size=len(content),
        constant_data_offset=start + len(content),
        constant_data_size=len(data),
    )
    return header.to_bytes().ljust(start, b"\0") + content + data
