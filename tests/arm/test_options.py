"""Options of `profile` that do not go together are refused before any program is looked for."""

from pathlib import Path

import pytest

from ortho_edge.cli import UserError
from ortho_edge.profile import Arguments, main


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No adb, ssh, QEMU or compiler, and no environment for Ethos-U."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("ORTHO_EDGE_ETHOS_U", str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"check": Path("x.pte")}, "--check needs --on"),
        ({"on": "cortex-a76", "clock_ghz": 2.0}, "belong together"),
        ({"on": "cortex-a53"}, "how fast is cortex-a53"),
        ({"on": "cortex-a76", "check": Path("nowhere.pte")}, "no program or folder at nowhere"),
        ({"on": "adb", "name": "../x"}, "--name must be letters"),
        ({"on": "adb", "out": Path("x.txt")}, r"must be a \.toml file"),
        ({"on": "ethos-u85-999"}, "unknown Ethos-U 'ethos-u85-999'; known: ethos-u55-128"),
    ],
)
def test_a_half_named_check_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(Arguments(**arguments))


def test_a_folder_without_programs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no \.pte file in"):
        main(Arguments(on="cortex-a76", check=tmp_path))
