"""`manifest.json`: what an export made, from what, within which budget, and how it was checked."""

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from ortho_edge.cli import UserError
from ortho_edge.json_files import read_json, shown, table, text, whole

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
        return checked_manifest(folder / MANIFEST)
    except (OSError, ValueError):
        return None


def checked_manifest(path: Path) -> dict[str, Any]:
    """The content of a manifest, in the types that whoever reads it relies on.

    Raises:
        OSError: It cannot be read.
        ValueError: It is damaged; the message names the entry.
    """
    content = table(read_json(path), path.name)
    for name in ("schema_version", "files"):
        if name not in content:
            raise ValueError(f"{path.name} lacks {name!r}")
    whole(content["schema_version"], "schema_version")
    for name, stated in table(content["files"], "files").items():
        text(name, "files", 255)
        entry = table(stated, f"files.{name}")
        whole(entry.get("bytes"), f"files.{name}.bytes")
        if not isinstance(entry.get("sha256"), str):
            raise ValueError(f"files.{name}.sha256 is no digest: {shown(entry.get('sha256'))}")
    return content


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Writes the manifest of an export folder."""
    lines = json.dumps({"schema_version": SCHEMA_VERSION, **content}, indent=1)
    (folder / MANIFEST).write_text(lines + "\n", "utf-8")


def verify_file(path: Path) -> bool:
    """Checks a file against the manifest beside it.

    Returns:
        Whether there is one that names it.

    Raises:
        UserError: The manifest is damaged, or the file's digest is another than it states.
    """
    beside = path.parent / MANIFEST
    if not beside.is_file():
        return False
    try:
        stated = checked_manifest(beside)["files"].get(path.name)
    except ValueError as error:
        raise UserError(
            f"{beside} is damaged, so {path.name} cannot be checked: {error}"
        ) from error
    if stated is None:
        return False
    if stated["sha256"] != digest(path):
        raise UserError(
            f"{path} is truncated or was changed: its SHA-256 is not the one in {MANIFEST}"
        )
    return True
