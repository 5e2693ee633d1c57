"""Who may import whom, and what an import or a `--help` may cost."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = {
    "ortho_edge": REPOSITORY / "ortho_edge",
    "ortho_kernels": REPOSITORY / "kernels" / "ortho_kernels",
    "ortho_export": REPOSITORY / "export" / "ortho_export",
}
COMMANDS = (
    "train",
    "evaluate",
    "prepare",
    "report",
    "profile",
    "select",
    "export",
    "transcribe",
    "synthesize",
)
COMMAND_FILES = [
    path for name in COMMANDS if (path := PACKAGES["ortho_edge"] / f"{name}.py").exists()
]
MODULES = sorted(path for root in PACKAGES.values() for path in root.rglob("*.py"))
# What each package may import besides the standard library and itself; None is anything declared.
ALLOWED: dict[str, set[str] | None] = {
    "ortho_kernels": {"torch", "triton", "jaxtyping"},
    "ortho_edge": None,
    "ortho_export": None,
}
HEAVY = ("triton", "executorch", "onnx", "onnxruntime", "onnxscript", "coremltools")
# Distribution names that differ from what is imported.
IMPORT_NAMES = {"sherpa-onnx": "sherpa_onnx", "kaldi-native-fbank": "kaldi_native_fbank"}


def imports(nodes: list[ast.stmt], *, deep: bool) -> Iterator[str]:
    """Absolute names imported by `nodes`; not inside functions unless `deep`."""
    for node in nodes:
        for child in ast.walk(node) if deep else shallow(node):
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.level == 0 and child.module:
                yield child.module


def shallow(node: ast.AST) -> Iterator[ast.AST]:
    """`node` and what runs when its module is imported: bodies of functions are left out."""
    yield node
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from shallow(child)


def imported(path: Path, *, deep: bool = True) -> set[str]:
    return set(imports(ast.parse(path.read_text("utf-8")).body, deep=deep))


def package_of(path: Path) -> str:
    return next(name for name, root in PACKAGES.items() if path.is_relative_to(root))


def relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    roots = [str(root.parent) for root in PACKAGES.values()]
    prelude = f"import sys; sys.path[:0] = {roots!r}; "
    return subprocess.run(
        [sys.executable, "-c", prelude + code], capture_output=True, text=True, check=False
    )


def declared_imports() -> set[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    requirements = project["dependencies"] + extras["gpu"] + extras["decoding"]
    names = {re.split(r"[^A-Za-z0-9_-]", requirement)[0] for requirement in requirements}
    return {IMPORT_NAMES.get(name, name) for name in names}


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_imports_only_what_its_layer_may(path: Path) -> None:
    package = package_of(path)
    top_level = {name.split(".")[0] for name in imported(path)} - {package}
    foreign = {name for name in top_level if name not in sys.stdlib_module_names}
    if (allowed := ALLOWED[package]) is not None:
        assert foreign <= allowed
    own = {"ortho_edge": {"ortho_kernels"}, "ortho_export": {"ortho_kernels", "ortho_edge"}}
    if path in COMMAND_FILES:
        assert "ortho_export" not in {name.split(".")[0] for name in imported(path, deep=False)}
        foreign -= {"ortho_export"}
    assert foreign <= declared_imports() | own.get(package, set())


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_has_no_postponed_annotations_and_unpickles_nothing(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert not {"__future__", "pickle", "dill", "joblib"} & imported(path)
    attributes = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert "torch.load" not in attributes
    allow_pickle = [
        k for k in ast.walk(tree) if isinstance(k, ast.keyword) and k.arg == "allow_pickle"
    ]
    assert not allow_pickle


@pytest.mark.parametrize("folder", ["kernels", "export"])
def test_a_source_folder_is_no_package(folder: str) -> None:
    # `kernels` is the import name of another distribution; an __init__.py here would shadow it.
    assert not (REPOSITORY / folder / "__init__.py").exists()


def test_importing_the_packages_is_lean() -> None:
    names = [name for name, root in PACKAGES.items() if (root / "__init__.py").exists()]
    result = run_python(
        f"import {', '.join(names)}; "
        f"print(sorted(set({HEAVY!r}) & set(sys.modules))); "
        "torch = sys.modules.get('torch'); "
        "print(torch is not None and torch.cuda.is_initialized())"
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == ["[]", "False"], "only the two lines of this test"


@pytest.mark.parametrize("path", COMMAND_FILES, ids=lambda path: path.stem)
def test_help_of_a_command_is_lean(path: Path) -> None:
    result = run_python(
        "import atexit, runpy; "
        f"atexit.register(lambda: print(sorted(set({('torch', *HEAVY)!r}) & set(sys.modules)))); "
        f"sys.argv = ['ortho_edge.{path.stem}', '--help']; "
        f"runpy.run_module('ortho_edge.{path.stem}', run_name='__main__')"
    )
    assert result.returncode == 0, result.stderr
    assert f"usage: python -m ortho_edge.{path.stem}" in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"
