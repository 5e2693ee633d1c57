"""What the documentation names exists: make targets, commands and linked files."""

import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]


def named(pattern: str) -> list[str]:
    """Every distinct match of `pattern`, as `page: match`."""
    return sorted(
        {
            f"{page.relative_to(REPOSITORY)}: {match}"
            for page in PAGES
            for match in re.findall(pattern, page.read_text("utf-8"))
        }
    )


@pytest.mark.parametrize("name", named(r"(?m)(?:`|^)make ([a-z-]+)\b"))
def test_a_named_make_target_exists(name: str) -> None:
    target = name.split(": ")[1]
    result = subprocess.run(
        ["make", "--dry-run", target], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", named(r"python -m ortho_edge\.([a-z]+)"))
def test_a_named_command_exists(name: str) -> None:
    assert (REPOSITORY / "ortho_edge" / f"{name.split(': ')[1]}.py").is_file()


@pytest.mark.parametrize("name", named(r"\]\((?!https?:|#)([^)#\s]+)"))
def test_a_linked_file_exists(name: str) -> None:
    page, target = name.split(": ")
    assert ((REPOSITORY / page).parent / target).exists()
