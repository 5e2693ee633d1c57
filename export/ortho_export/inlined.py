"""Constants of an XNNPACK delegate inside the delegate, instead of beside it under long names.

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

if TYPE_CHECKING:
    from executorch.exir import EdgeProgramManager

ALIGNMENT = 16
SCHEMAS, SCHEMA = "executorch.backends.xnnpack.serialization", "schema.fbs"


def inline_constants(edge: "EdgeProgramManager") -> None:
    """Moves the constants of every XNNPACK delegate of `edge` into it.

    Args:
        edge: A lowered program; it is changed.
    """
    from executorch.exir._serialize._named_data_store import NamedDataStore

    graph = edge.exported_program().graph_module
    for name, _ in list(graph.named_children()):
        lowered = getattr(graph, name)
        if getattr(lowered, "backend_id", None) != "XnnpackBackend":
            continue
        store = lowered.named_data_store_output
        assert store is not None, "XNNPACK names its constants"
        constants = {
            key: bytes(store.buffers[one.buffer_index]) for key, one in store.pte_data.items()
        }
        lowered._processed_bytes = _inlined(lowered.processed_bytes, constants)
        lowered._named_data_store_output = None
    edge._named_data_store = NamedDataStore()


def _inlined(delegate: bytes, constants: dict[str, bytes]) -> bytes:
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader
    from executorch.exir._serialize._flatbuffer import _flatc_compile, _flatc_decompile

    header = XNNHeader.from_bytes(delegate[: XNNHeader.EXPECTED_LENGTH])
    assert header.constant_data_size == 0
    start = header.flatbuffer_offset
    with tempfile.TemporaryDirectory() as folder:
        schema, file = Path(folder) / SCHEMA, Path(folder) / "graph.bin"
        schema.write_bytes((importlib.resources.files(SCHEMAS) / SCHEMA).read_bytes())
        file.write_bytes(delegate[start : start + header.flatbuffer_size])
        _flatc_decompile(folder, str(schema), str(file), ["--raw-binary"])
        text = file.with_suffix(".json")
        # Bounds of activations are infinite where there are none.
        graph = json.loads(re.sub(r"(?<=: )(-?)inf", r"\1Infinity", text.read_text("ascii")))
        data, places = bytearray(), {}
        # The first entry stands for what is no constant.
        for entry in graph["constant_data"][1:]:
            key = entry.pop("named_key")
            if key not in places:
                places[key] = len(data)
                data += constants[key]
                data += bytes(-len(data) % ALIGNMENT)
            entry["offset"] = places[key]
        text.write_text(json.dumps(graph), "ascii")
        _flatc_compile(folder, str(schema), str(text))
        flatbuffer = file.read_bytes()
    flatbuffer += bytes(-len(flatbuffer) % ALIGNMENT)
    header = XNNHeader(
        flatbuffer_offset=start,
        flatbuffer_size=len(flatbuffer),
        constant_data_offset=start + len(flatbuffer),
        constant_data_size=len(data),
    )
    return header.to_bytes().ljust(start, b"\0") + flatbuffer + bytes(data)
