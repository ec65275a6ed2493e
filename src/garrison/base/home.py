"""The home directory of this user. A container or a service may have none: no `HOME`, and no entry for its uid."""

import os
from pathlib import Path

__all__ = ["expanded", "home_directory", "user_name"]


def home_directory() -> Path | None:
    """`HOME`, else what the user database says; None if neither names an absolute path."""
    found = os.environ.get("HOME")
    if not found:
        import pwd  # hardly ever needed

        try:
            found = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            return None
    return Path(found) if found.startswith("/") else None


def expanded(path: str | Path) -> Path:
    """The path with `~` and `~user` replaced; as it is where there is no such home."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises instead


def user_name() -> str:
    """The name of this user, or the number where it has no name."""
    import getpass  # hardly ever needed

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
