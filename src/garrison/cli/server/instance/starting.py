"""`garrison instance start`, `stop`, `restart`, `delete`."""

import sys
from typing import Annotated

import typer

from garrison.base.errors import ConflictError, GarrisonError
from garrison.cli.asker import confirm
from garrison.cli.json_answer import answer, interrupted
from garrison.cli.options import Json
from garrison.cli.server.client import ServerClient
from garrison.cli.server.instance.arguments import Name, NoWait, StartTimeout, Yes
from garrison.cli.server.instance.calls import Instance, path_of
from garrison.cli.server.instance.waiting import judged, wait_started
from garrison.cli.server.options import ServerUrl, client
from garrison.cli.server.views.instance_start import start_progress
from garrison.cli.signals import code_of
from garrison.cli.views.log_lines import show_tail

__all__ = ["delete", "restart", "shown_start", "start", "stop", "stopped"]

_STOP_SECONDS = 3600.0  # it drains and stops within the server's own limits


def start(
    name: Name,
    no_wait: NoWait = False,
    timeout: StartTimeout = None,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """Start an instance and wait until it answers.

    Shows the phases of the start. One that fails says why, with the last lines of the engine's log, and ends with the
    exit code of the cause. Ctrl-C ends the waiting, not the start.
    """
    with client(server) as there:
        begun = there.call("POST", path_of(name, "start"))
        return shown_start(there, begun, wait=not no_wait, timeout=timeout, json=json)


def restart(
    name: Name,
    no_wait: NoWait = False,
    timeout: StartTimeout = None,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """Stop an instance, after the requests that it has, and start it again."""
    with client(server) as there:
        begun = there.call("POST", path_of(name, "restart"), timeout=_STOP_SECONDS)
        return shown_start(there, begun, wait=not no_wait, timeout=timeout, json=json)


def stop(name: Name, server: ServerUrl = None, json: Json = False) -> int:
    """Stop an instance, after the requests that it has, and return when nothing of it is left."""
    with client(server) as there:
        found = stopped(there, name)
    print(answer(found) if json else f"{name} is {found['state']}: {found['reason']}")
    return 0


def stopped(server: ServerClient, name: str) -> Instance:
    """Stop an instance and return it as it is then. Raises NotFoundError."""
    found: Instance = server.call("POST", path_of(name, "stop"), timeout=_STOP_SECONDS)
    return found


def delete(
    name: Name,
    stop_first: Annotated[bool, typer.Option("--stop", help="Stop it first, if it runs.")] = False,
    yes: Yes = False,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """Delete a stopped instance, with its log. `export` keeps what it is."""
    with client(server) as there:
        found: Instance = there.call("GET", path_of(name))
        if (stack := found.get("stack")) is not None:
            again = f"stack {stack} declares {name}, and its next apply creates it again: take it out of the manifest"
            print(f"note: {again}", file=sys.stderr)
        if not yes:
            confirm(f"Delete instance {name}, which is {found['state']}?")
        if stop_first:
            stopped(there, name)
        try:
            there.call("DELETE", path_of(name))
        except ConflictError as error:
            raise ConflictError(error.message, hint="Stop it first, or pass --stop.", details=error.details) from None
    print(answer({"name": name, "stack": found.get("stack")}) if json else f"deleted {name}")
    return 0


def shown_start(
    server: ServerClient, begun: Instance, *, wait: bool, timeout: float | None = None, json: bool = False
) -> int:
    """Show a start that the server has begun, until it has ended, and return the exit code.

    Raises:
        GarrisonError: as `wait_started`.
    """
    name = begun["name"]
    if not wait:
        print(answer(begun) if json else f"{name} is {'starting' if judged(begun) == 'waits' else 'running'}")
        return 0
    if judged(begun) == "ready":
        print(answer(begun) if json else f"{name} runs already")
        return 0
    view = start_progress(name, json=json)
    try:
        found = wait_started(server, name, view, timeout=timeout)
    except KeyboardInterrupt as stopped:
        view.end()
        print(f"{name} goes on starting; `garrison instance stop {name}` ends that", file=sys.stderr)
        if json:
            print(interrupted(code_of(stopped)))
        return code_of(stopped)
    except GarrisonError as error:
        view.end()
        if not json:
            show_tail(error.details)
        raise
    finally:
        view.end()
    if json:
        print(answer(found))
    return 0
