"""A model without a manifest runs in a process of its own, whose end is one clear line."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ortho_edge.cli import UserError
from ortho_edge.data.features import fbank
from ortho_export import executorch, isolated, onnx
from ortho_export.artefact import load_artefact
from ortho_export.isolated import IsolatedModel
from tests.export.tiny import Exported, bursts

pytestmark = pytest.mark.export


@pytest.mark.parametrize("name", ["model.pte", "model.onnx"])
def test_it_says_what_it_says_in_this_process(
    exported: Exported, tmp_path: Path, name: str
) -> None:
    alone = tmp_path / name
    alone.write_bytes((exported.folder / name).read_bytes())
    found, expected = load_artefact(alone), load_artefact(exported.folder / name)
    assert (found.tokens, found.subnet) == (expected.tokens, expected.subnet)
    for seconds in (0.09, 1.1):
        x = fbank(bursts(seconds))
        assert np.array_equal(found.log_probs(x), expected.log_probs(x))
    with pytest.raises(UserError, match="longer than"):
        found.log_probs(torch.zeros(3001, 80))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("os.kill(os.getpid(), 11)", r"crashes the runtime \(SIGSEGV\): it is damaged"),
        ("os.abort()", r"crashes the runtime \(SIGABRT\)"),
        ("time.sleep(60)", "takes far too long"),
        ("bytearray(2**40)", "may be damaged: MemoryError"),
        ("os._exit(0)", "ends the runtime"),
        ("raise KeyError('x')", "may be damaged: KeyError"),
    ],
)
def test_whatever_happens_to_the_process_is_one_line(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A loader that misbehaves, in place of the runtime with a file that makes it so.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, time, types\n"
        "class Loader(types.ModuleType):\n"
        "    SUFFIX = '.pte'\n"
        "    def import_runtime(self): pass\n"
        "    def load(self, path, threads):\n"
        f"        {code}\n"
        "sys.modules['ortho_export.executorch'] = sys.modules['ortho_export.onnx'] = Loader('x')\n"
    )
    monkeypatch.setattr(isolated, "LOAD_SECONDS", 2.0)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "model.pte").write_bytes(b"")
    with pytest.raises(UserError, match=message) as refused:
        IsolatedModel(tmp_path / "model.pte", 1)
    assert str(tmp_path / "model.pte") in str(refused.value)


def test_weights_in_other_files_are_refused(exported: Exported, tmp_path: Path) -> None:
    import onnx as onnx_library

    model = onnx_library.load(exported.model)
    first = next(one for one in model.graph.initializer if one.raw_data)
    first.data_location = onnx_library.TensorProto.EXTERNAL
    first.external_data.add(key="location", value="../../etc/passwd")
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="keeps weights in other files"):
        load_artefact(tmp_path / "model.onnx")


@pytest.mark.parametrize(("loader", "name"), [(executorch, "model.pte"), (onnx, "model.onnx")])
def test_a_whole_file_passes_the_look_at_it(exported: Exported, loader, name: str) -> None:
    loader.check_whole(exported.folder / name)


def test_a_damaged_manifest_vouches_for_nothing(exported: Exported, tmp_path: Path) -> None:
    alone = tmp_path / "model.onnx"
    alone.write_bytes(exported.model.read_bytes())
    (tmp_path / "manifest.json").write_text('{"schema_version": 1, "files": []}')
    with pytest.raises(UserError, match=r"manifest\.json is damaged, .*files must be an object"):
        load_artefact(alone)
