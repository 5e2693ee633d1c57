"""Finding device profiles: shipped with the package, in the user's folder, or by path."""

import logging
import os
import tomllib
from contextlib import suppress
from importlib import resources
from pathlib import Path

from ortho_edge.cli import UserError
from ortho_edge.devices.profile import SCHEMA_VERSION, DeviceProfile
from ortho_edge.devices.tables import read_table, write_table

logger = logging.getLogger(__name__)

HOST = "host"
HOST_COMMAND = "python -m ortho_edge.profile"
FROM_VERSION_1 = (
    ': write schema_version = 2 and provenance = "analytic" for "estimated", '
    "or make the profile again"
)


def shipped_folder() -> Path:
    """The profiles that come with the package."""
    return Path(str(resources.files("ortho_edge"))) / "devices" / "profiles"


def user_folder() -> Path:
    """The user's own profiles: `$XDG_CONFIG_HOME/ortho_edge/devices`, `~/.config` by default.

    Raises:
        UserError: This user has no home folder.
    """
    configured = os.environ.get("XDG_CONFIG_HOME")
    try:
        folder = Path(configured) if configured else Path.home() / ".config"
    except RuntimeError as error:
        raise UserError("this user has no home folder; name one by XDG_CONFIG_HOME") from error
    return folder / "ortho_edge" / "devices"


def _found() -> dict[str, Path]:
    """Profiles by name, the user's before shipped ones; none of a home that cannot be read."""
    found = {path.stem: path for path in shipped_folder().glob("*.toml")}
    with suppress(OSError, UserError):
        found |= {path.stem: path for path in user_folder().glob("*.toml") if path.is_file()}
    return found


def known_devices() -> list[str]:
    """Names that `load_profile` takes, `host` included even where it is not measured yet."""
    return sorted({*_found(), HOST})


def find_profile(device: str) -> Path:
    """The file of a device: by path where it ends in `.toml`, else by name.

    A file of the user's folder comes before a shipped one of the same name.

    Raises:
        UserError: There is none.
    """
    if device.endswith(".toml"):
        path = Path(device)
        if not path.is_file():
            raise UserError(f"no device profile at {device}")
        return path
    if device in (found := _found()):
        return found[device]
    if device != HOST:
        raise UserError(f"unknown device {device!r}; known: {', '.join(known_devices())}")
    raise UserError(f"device {HOST!r} is not measured yet; run: {HOST_COMMAND}")


def load_profile(device: str) -> DeviceProfile:
    """The profile of a device.

    Args:
        device: A name, such as `pixel8` or `host`, or the path of a `.toml` file.

    Raises:
        UserError: There is none, or the file is not a valid profile.
    """
    path = find_profile(device)
    profile = read_profile(path)
    if path.parent != shipped_folder():
        logger.info("device %s: %s", profile.name, path)
    return profile


def read_profile(path: Path) -> DeviceProfile:
    """Reads and checks a profile file.

    Raises:
        UserError: It cannot be read, is not TOML, has another schema version, or breaks a rule.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"device profile {path} cannot be read: {error}") from error
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        hint = FROM_VERSION_1 if version == 1 else ""
        raise UserError(
            f"device profile {path} has schema_version {version}; "
            f"this version reads {SCHEMA_VERSION}{hint}"
        )
    return read_table(DeviceProfile, content, str(path))


def profile_text(profile: DeviceProfile) -> str:
    """The TOML of a profile."""
    return write_table(profile)
