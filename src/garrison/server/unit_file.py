"""The systemd unit of a server, as text. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ENVIRONMENT_HEAD", "Service", "unit_text"]

_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+\Z")

ENVIRONMENT_HEAD = """\
# Variables of the Garrison server: NAME=value, one a line. Secrets belong here; only the owner may read this file.
# GARRISON_MANAGEMENT_KEYS=
# HF_TOKEN=
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What a unit says.

    Attributes:
        argv: the command, its program as an absolute path.
        environment_file: absolute; it may be missing.
        user: whom a unit of the system runs as; None for root, and for a user's own unit.
        user_unit: it belongs to the service manager of one user.
        stop_seconds: how long a stop may take: requests in progress are finished.
    """

    argv: Sequence[str]
    data_dir: Path
    environment_file: Path
    user: str | None = None
    user_unit: bool = False
    stop_seconds: int = 90


def unit_text(service: Service) -> str:
    """The unit. Engines outlive the server (`KillMode=process`), so that an upgrade interrupts no request to them."""
    who = f"User={_value(service.user)}\n" if service.user is not None and not service.user_unit else ""
    network = "" if service.user_unit else "Wants=network-online.target\nAfter=network-online.target\n"
    return f"""\
[Unit]
Description=Garrison server
{network}
[Service]
Type=notify
NotifyAccess=main
ExecStart={" ".join(_word(one) for one in service.argv)}
{who}Environment={_value(f"GARRISON_DATA_DIR={service.data_dir}", quoted=True)}
EnvironmentFile=-{_value(str(service.environment_file))}
WorkingDirectory=/
UMask=0077
# Engines go on when the server ends; the next server adopts them.
KillMode=process
Restart=on-failure
RestartSec=2
# A bad configuration, a second server, a wrong command line: trying again does not help.
RestartPreventExitStatus=1 33 64
TimeoutStartSec=120
TimeoutStopSec={service.stop_seconds}
LimitNOFILE=65536

[Install]
WantedBy={"default.target" if service.user_unit else "multi-user.target"}
"""


def _word(text: str) -> str:
    """A word of ExecStart: `%` and `$` mean something there."""
    doubled = text.replace("%", "%%").replace("$", "$$")
    return doubled if _PLAIN.match(text) else _quoted(doubled)


def _value(text: str, *, quoted: bool = False) -> str:
    doubled = text.replace("%", "%%")
    return _quoted(doubled) if quoted and not _PLAIN.match(text) else doubled


def _quoted(text: str) -> str:
    if "\n" in text or "\0" in text:
        raise ValueError("a unit holds no line breaks")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
