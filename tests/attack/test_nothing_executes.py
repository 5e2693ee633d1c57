"""Nothing that is read can execute: no package unpickles, evaluates or asks a shell."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ortho_edge", "export/ortho_export", "kernels/ortho_kernels")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
UNPICKLING = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
CALLS = {"eval", "exec", "torch.load", "numpy.load", "np.load", "os.system", "os.popen"}


def executing(code: str) -> Iterator[str]:
    """What could execute data."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.split(".")[0] in UNPICKLING)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in UNPICKLING:
                yield str(node.module)
        elif isinstance(node, ast.Call):
            name, options = ast.unparse(node.func), {one.arg for one in node.keywords}
            shell = any(one.arg == "shell" for one in node.keywords)
            if name in CALLS and not (name == "torch.load" and "weights_only" in options):
                yield name
            elif shell:
                yield f"{name}(shell=...)"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_executes_what_it_reads(path: Path) -> None:
    assert list(executing(path.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import load",
        "x = eval(y)",
        "torch.load(a)",
        "run(a, shell=True)",
    ],
)
def test_the_test_would_notice(code: str) -> None:
    assert list(executing(code))
