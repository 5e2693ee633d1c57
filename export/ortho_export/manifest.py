"""`manifest.json`: what an export made, from what, within which budget, and how it was checked."""

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from ortho_edge.cli import UserError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"

PACKAGES = ("torch", "executorch", "torchao", "onnx", "onnxscript", "onnxruntime", "numpy")


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_file(path: Path) -> dict[str, Any]:
    """Size and digest of a file, for the manifest."""
    return {"bytes": path.stat().st_size, "sha256": digest(path)}


def versions() -> dict[str, str]:
    """Versions of what takes part in an export."""
    import ortho_edge

    installed = {name: metadata.version(name) for name in PACKAGES}
    return {"ortho_edge": ortho_edge.__version__, **installed}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of an export folder; None where there is none or it is not one of ours."""
    try:
        content = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or "schema_version" not in content or "files" not in content:
        return None
    return content


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Writes the manifest of an export folder."""
    text = json.dumps({"schema_version": SCHEMA_VERSION, **content}, indent=1)
    (folder / MANIFEST).write_text(text + "\n", "utf-8")


def verify_file(path: Path) -> None:
    """Checks a file against the manifest beside it, where there is one that names it.

    Raises:
        UserError: Its digest is another.
    """
    content = read_manifest(path.parent)
    stated = (content or {}).get("files", {}).get(path.name, {}).get("sha256")
    if stated is not None and stated != digest(path):
        raise UserError(
            f"{path} is truncated or was changed: its SHA-256 is not the one in {MANIFEST}"
        )
