"""`garrison up --install-service`: the server as a service of systemd."""

import os
import shlex
import sys
from pathlib import Path

from garrison.base.children import SAFE_PYTHON
from garrison.base.errors import DeclinedError, DeniedError, InvalidError
from garrison.base.files import write_atomic
from garrison.base.home import home_directory, user_name
from garrison.base.settings import Settings
from garrison.cli.asker import asked
from garrison.server.unit_file import ENVIRONMENT_HEAD, Service, unit_text

__all__ = ["install_service"]

_NAME = "garrison.service"
_STOP_SLACK_SECONDS = 60


def install_service(values: Settings, arguments: tuple[str, ...], *, user: bool, dry_run: bool, yes: bool) -> int:
    """Write the unit and the file for its secrets, and print what to run.

    Args:
        arguments: of `garrison up`.
        user: for the service manager of this user instead of the system's.
        dry_run: print the unit only.
        yes: replace a different unit without asking.

    Raises:
        DeniedError: a file may not be written.
        DeclinedError, UsageError: there is a different unit, and nobody says to replace it.
        InvalidError: a path holds a line break.
    """
    unit, secrets = _user_paths() if user else _system_paths()
    service = Service(
        argv=(sys.executable, SAFE_PYTHON, "-m", "garrison.cli.main", "up", *arguments),
        data_dir=values.data_dir.absolute(),
        environment_file=secrets,
        user=None if user else _owner(values.data_dir),
        user_unit=user,
        stop_seconds=round(values.drain_timeout) + _STOP_SLACK_SECONDS,
    )
    try:
        text = unit_text(service)
    except ValueError as error:
        raise InvalidError(f"no unit can be written: {error}", hint="Set GARRISON_DATA_DIR to another path.") from None
    if dry_run:
        print(f"# {unit}\n{text}", end="")
        return 0
    try:
        changed = _write(unit, text, yes=yes)
        _write_secrets(secrets)
    except PermissionError as error:
        hint = "Run it as root, or with --user." if not user else "Check the owner of the directory."
        raise DeniedError(f"{error.filename or unit} may not be written", hint=hint) from None
    print(f"{unit} {'is written' if changed else 'is up to date'}; secrets go into {secrets}")
    _tell_left_out(values, arguments)
    print("\nNow run:")
    for line in _next_steps(user=user):
        print(f"  {line}")
    return 0


def _user_paths() -> tuple[Path, Path]:
    home = home_directory()
    if home is None and not os.environ.get("XDG_CONFIG_HOME"):
        raise InvalidError("this user has no home directory, so it has no place for units", hint="Leave --user out.")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or f"{home}/.config").absolute()
    return config / "systemd" / "user" / _NAME, config / "garrison" / "server.env"


def _system_paths() -> tuple[Path, Path]:
    return Path("/etc/systemd/system") / _NAME, Path("/etc/garrison/server.env")


def _owner(data_dir: Path) -> str | None:
    """Whom the server runs as: the owner of the data directory; None for root."""
    try:
        owner = data_dir.owner()
    except (OSError, KeyError):  # it does not exist yet, or its owner has no name
        owner = os.environ.get("SUDO_USER") or user_name()
    return None if owner == "root" else owner


def _write(path: Path, text: str, *, yes: bool) -> bool:
    """Write the unit; whether that was necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        if path.read_text(encoding="utf-8", errors="replace") == text:
            return False
        if not yes and not asked(f"{path} exists and is different. Replace it?"):
            raise DeclinedError("Nothing was done.")
    write_atomic(path, text, mode=0o644)
    return True


def _write_secrets(path: Path) -> None:
    """Make the file for secrets, mode 0600; one that exists keeps its content, and is closed to others."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists():
        path.chmod(0o600)
    else:
        write_atomic(path, ENVIRONMENT_HEAD, mode=0o600)


def _tell_left_out(values: Settings, arguments: tuple[str, ...]) -> None:
    """Name the variables of this shell that the service will not have."""
    given = {one.partition("=")[0] for one in arguments}
    variables = {origin for origin in values.origins.values() if origin in os.environ}
    left = sorted(variables - {"GARRISON_DATA_DIR"} - ({"GARRISON_CONFIG"} if "--config" in given else set()))
    if left:
        print(f"not part of the service, since they are set in this shell only: {', '.join(left)}")


def _next_steps(*, user: bool) -> tuple[str, ...]:
    if user:
        return (
            "systemctl --user daemon-reload",
            "systemctl --user enable --now garrison",
            f"loginctl enable-linger {shlex.quote(user_name())}    # so that it runs without a login",
            "journalctl --user -u garrison -f    # its log",
        )
    return ("systemctl daemon-reload", "systemctl enable --now garrison", "journalctl -u garrison -f    # its log")
