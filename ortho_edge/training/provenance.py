"""Where a checkpoint comes from: commit, versions and a digest of the data."""

import hashlib
import importlib.metadata
import platform
import subprocess
from itertools import islice
from pathlib import Path

from ortho_edge.training.corpora import CUTS_FOR_DIGEST, Corpus


def data_digest(corpus: Corpus) -> str:
    """SHA-256 over names, lengths and texts of the first epoch's cuts."""
    digest = hashlib.sha256()
    for cut in islice(corpus.training_cuts(0, 1.0), CUTS_FOR_DIGEST):
        text = cut.supervisions[0].text if cut.supervisions else ""
        digest.update(f"{cut.id}|{cut.duration:.4f}|{text}\n".encode())
    return digest.hexdigest()


def source_commit() -> str:
    """The commit of the source tree, or `unknown` outside a checkout."""
    result = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def package_versions() -> dict[str, str]:
    """Versions of Python and of what decides on results."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("torch", "lhotse", "numpy")},
    }
