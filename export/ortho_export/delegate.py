"""XNNPACK delegates of a lowered program, rewritten: fewer operations, and constants inside.

ExecuTorch keeps every constant as a segment of the file under a name of 64 letters that stands in
the file twice; with tables and padding that is some 200 bytes for each of the hundreds of biases
and scales. A delegate may also hold its constants itself, by their offsets, which costs memory for
one copy of them while it is loaded.
"""

import importlib.resources
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ortho_export.xnnpack_graph import Graph, simplified

if TYPE_CHECKING:
    from executorch.exir import EdgeProgramManager

ALIGNMENT = 16
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
        found, data = simplified(graphs[_flatbuffer(lowered.processed_bytes)]), b""
        if inline:
            store = lowered.named_data_store_output
            assert store is not None, "XNNPACK names its constants"
            places = {key: one.buffer_index for key, one in store.pte_data.items()}
            data = _inlined(found, {key: bytes(store.buffers[places[key]]) for key in places})
            lowered._named_data_store_output = None
        lowered._processed_bytes = _written(found, data)
    if inline:
        edge._named_data_store = NamedDataStore()


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
    from executorch.exir._serialize._flatbuffer import _flatc_compile

    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "graph.json"
        text.write_text(json.dumps(graph), "ascii")
        _flatc_compile(folder, _schema(folder), str(text))
        flatbuffer = text.with_suffix(".bin").read_bytes()
    flatbuffer += bytes(-len(flatbuffer) % ALIGNMENT)
    start = -(-XNNHeader.EXPECTED_LENGTH // ALIGNMENT) * ALIGNMENT
    header = XNNHeader(
        flatbuffer_offset=start,
        flatbuffer_size=len(flatbuffer),
        constant_data_offset=start + len(flatbuffer),
        constant_data_size=len(data),
    )
    return header.to_bytes().ljust(start, b"\0") + flatbuffer + data


def _schema(folder: str) -> str:
    path = Path(folder) / SCHEMA
    path.write_bytes((importlib.resources.files(SCHEMAS) / SCHEMA).read_bytes())
    return str(path)
