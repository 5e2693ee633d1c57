"""XNNPACK delegates of a lowered program, rewritten: fewer operations, and constants inside.

ExecuTorch keeps every constant as a segment of the file under a name of 64 letters that stands in
the file twice; with tables and padding that is some 200 bytes for each of the hundreds of biases
and scales. A delegate may also hold its constants itself, by their offsets, which costs memory for
one copy of them while it is loaded.
"""

import importlib.resources
import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ortho_export.xnnpack_graph import Graph, simplified

if TYPE_CHECKING:
    from executorch.exir import EdgeProgramManager

ALIGNMENT = 16
SCHEMAS, SCHEMA = "executorch.backends.xnnpack.serialization", "schema.fbs"


def rewrite_delegates(edge: "EdgeProgramManager", *, inline: bool) -> None:
    """Simplifies the graph of every XNNPACK delegate.

    Args:
        edge: A lowered program; it is changed.
        inline: Move the constants into the delegates too.
    """
    from executorch.exir._serialize._named_data_store import NamedDataStore

    graph = edge.exported_program().graph_module
    for name, _ in list(graph.named_children()):
        lowered = getattr(graph, name)
        if getattr(lowered, "backend_id", None) != "XnnpackBackend":
            continue
        found, data = simplified(_read(lowered.processed_bytes)), b""
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


def _read(delegate: bytes) -> Graph:
    """The graph of a delegate that names its constants."""
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    header = XNNHeader.from_bytes(delegate[: XNNHeader.EXPECTED_LENGTH])
    assert header.constant_data_size == 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "graph.bin"
        file.write_bytes(delegate[header.flatbuffer_offset :][: header.flatbuffer_size])
        _flatc_decompile(folder, _schema(folder), str(file), ["--raw-binary"])
        text = file.with_suffix(".json").read_text("ascii")
    # Bounds of activations are infinite where there are none.
    return json.loads(re.sub(r"(?<=: )(-?)inf", r"\1Infinity", text))


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
