"""`vllm-preflight`: free the port, check the GPUs, then run the downstream command.

It runs before every start of a server, so it imports little: the standard library and the settings.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from garrison.base.errors import InvalidError, UsageError
from garrison.base.home import home_directory
from garrison.base.settings import Settings
from garrison.cli.outermost import outermost, warned

if TYPE_CHECKING:
    from garrison.base.locks import FileLock
    from garrison.preflight.check import Ask
    from garrison.preflight.policy import PortPolicy
    from garrison.preflight.report import PreflightRequest
    from garrison.preflight.servers import PortServers

__all__ = ["main", "parse", "run"]

_MAY_TAKE_NO_PORT = ("--he", "--ud", "--api-s", "--api_s", "--config")

_NO_DATA_DIR = Path("/nonexistent")
"""Of a user without a home. Only notes about stopped servers would go there, and these can be missing."""

_USAGE = """\
usage: vllm-preflight [--dry-run] [--json] [--] [COMMAND [ARG...]]

Frees the port when a stale vLLM holds it, checks the GPUs, then runs COMMAND.
Without COMMAND it only checks.

  --dry-run   report what would happen; signal and start nothing (VLLM_DRY_RUN=1)
  --json      one JSON object on standard output (VLLM_PREFLIGHT_JSON=1); not with COMMAND
  -h, --help  this text

exit codes:
  0   port free or freed, GPUs fit; with COMMAND: its own exit code
  1   bad value, or a GPU beyond a fatal limit
  2   a process that is not vLLM holds the port; it is never stopped
  3   another user's vLLM holds the port
  4   the listener on the port cannot be mapped to a process
  5   still listening after SIGTERM and SIGKILL; or COMMAND did not bind in VLLM_START_BIND_TIMEOUT
  13  another preflight is running on this port
  20  COMMAND not found
  22  COMMAND showed no sign of life before it bound the port, and was stopped
  64  bad command line

environment:
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The console script. `argv` is without the program's name."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    json = "--json" in arguments[: _command_at(arguments)] or _asks_for_json(os.environ)

    def call() -> int:
        flags, command = parse(arguments)
        if flags.pop("help", False):
            print(_USAGE + _environment(), end="")
            return 0
        if home_directory() is None and not any(map(os.environ.get, ("GARRISON_DATA_DIR", "XDG_DATA_HOME"))):
            flags["data_dir"] = _NO_DATA_DIR
        settings = warned(
            Settings.load(
                os.environ, groups=("general", "endpoint", "preflight", "start"), flags=flags, seed_defaults=True
            )
        )
        return run(settings, command, json=settings.preflight_json)

    return outermost(call, json=json)


def parse(arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Split into (flags for `Settings.load`, downstream command). What follows the command's name belongs to it.

    Raises:
        UsageError: an unknown option.
    """
    at = _command_at(arguments)
    known = {"-h": "help", "--help": "help", "--dry-run": "dry_run", "--json": "preflight_json"}
    flags: dict[str, Any] = {}
    for argument in arguments[:at]:
        if argument == "--":
            break
        if argument not in known:
            raise UsageError(
                f"vllm-preflight has no option {argument}",
                hint="`vllm-preflight --help` shows the usage; the command's own options come after its name.",
            )
        flags[known[argument]] = True
    return flags, list(arguments[at:])


def run(
    settings: Settings,
    command: Sequence[str],
    *,
    json: bool,
    say: Callable[[str], None] | None = None,
    policy: "PortPolicy | None" = None,
    servers: "PortServers | None" = None,
    ask: "Ask | None" = None,
    shape: Callable[[dict[str, Any]], str] | None = None,
) -> int:
    """Run the preflight, then `command` if there is one. Returns the exit code, the command's if it was run.

    Shared by `vllm-preflight` and `garrison preflight`. Sentences go to standard error; with `json`, one object goes to
    standard output. A dry run neither takes the lock nor starts the command.

    Args:
        policy: as `check` has it; `servers` and `ask` too. None is the contract of `vllm-preflight`: a vLLM is stopped
            without asking, nothing else ever, and the port of the settings is cleared whatever the command is.
        shape: what makes a line of the report for `json`. None is the contract of `vllm-preflight`.

    Raises:
        GarrisonError: with its exit code; see `check`, `port_lock` and `run_proxied`.
    """
    from garrison.preflight.check import PreflightRequest, check, port_lock
    from garrison.preflight.policy import RECLAIM, configured

    if json and command:
        raise InvalidError(
            "JSON output and a downstream command cannot be combined",
            hint="Unset VLLM_PREFLIGHT_JSON, or run the command after the preflight: `vllm-preflight && …`.",
        )
    say = say or _say
    takes_port = not _takes_no_port(command)
    request = PreflightRequest.from_settings(settings)
    request = replace(request, records=None) if policy is None else replace(request, skip_port=not takes_port)
    policy = configured(policy or RECLAIM, settings)
    if policy.dry_run:
        report = check(request, policy, servers=servers, say=say, ask=ask)
        if command:
            say("would start " + _shown(command))
        _print(report, json, shape)
        return 0
    with port_lock(request) as lock:
        report = check(request, policy, servers=servers, say=say, ask=ask)
        _print(report, json, shape)
        if not command:
            return 0
        return _run_command(command, settings, request, lock, say, takes_port=takes_port)


def _run_command(
    command: Sequence[str],
    settings: Settings,
    request: "PreflightRequest",
    lock: "FileLock",
    say: Callable[[str], None],
    *,
    takes_port: bool,
) -> int:
    from garrison.preflight.downstream.proxy import Patience, exec_downstream, run_proxied

    say("starting " + _shown(command))
    sys.stdout.flush()
    sys.stderr.flush()
    if not settings.preflight_proxy_child:
        exec_downstream(command, lock=lock)
    patience = Patience.from_settings(settings)
    return run_proxied(command, request, lock=lock, patience=patience, say=say, takes_port=takes_port)


def _takes_no_port(command: Sequence[str]) -> bool:
    """Whether the command is an engine without a TCP port: headless, or on a unix socket."""
    # A cheap search first: parsing the flags as vLLM does would take longer than a whole preflight.
    if not any(word.startswith(_MAY_TAKE_NO_PORT) or word.endswith(".sock") for word in command):
        return False
    from garrison.launch.downstream_endpoint import endpoint_of_command

    endpoint = endpoint_of_command(command, os.environ)
    return endpoint is not None and not endpoint.needs_port


def _command_at(arguments: Sequence[str]) -> int:
    """The index of the downstream command: after `--`, or at the first argument that is not an option."""
    for index, argument in enumerate(arguments):
        if argument == "--":
            return index + 1
        if not argument.startswith("-"):
            return index
    return len(arguments)


def _asks_for_json(environ: "os._Environ[str]") -> bool:
    """Whether errors should be JSON too. Read before the settings, which may be the error."""
    raw = environ.get("GARRISON_PREFLIGHT_JSON") or environ.get("VLLM_PREFLIGHT_JSON") or ""
    return raw.strip().lower() in ("1", "true", "yes", "on")


def _print(report: Any, json: bool, shape: Callable[[dict[str, Any]], str] | None) -> None:
    if json:
        from json import dumps

        print((shape or dumps)(report.to_json()))


def _say(sentence: str) -> None:
    print(f"vllm-preflight: {sentence}", file=sys.stderr)


def _shown(command: Sequence[str]) -> str:
    from garrison.base.redaction import shown_command

    return shown_command(command)


def _environment() -> str:
    """The variables, from the settings table."""
    rows = [row for row in Settings.table() if row.group in ("endpoint", "preflight") and row.seeds]
    lines = []
    for row in rows:
        default = row.seed_default if row.seed_default is not None else row.default
        if isinstance(default, bool):
            default = int(default)
        if isinstance(default, tuple):
            default = ",".join(default)
        shown = "unset" if default in (None, "") else f"{default:g}" if isinstance(default, float) else str(default)
        lines.append(f"  {row.seeds[0]:<29} {row.help} Default: {shown}\n")
    return "".join(lines)
