"""`garrison down`."""

import asyncio
import time
from collections.abc import Callable
from typing import Annotated

import typer

from garrison.base.errors import ConflictError, NotReadyError, UnreachableError
from garrison.base.settings import Settings
from garrison.cli.json_answer import answer
from garrison.cli.options import Json, settings
from garrison.cli.options import app as make_app
from garrison.cli.server.client import ServerClient
from garrison.cli.server.options import ServerUrl

app = make_app("End the server.")

_WAIT_SECONDS = 120.0
_POLL_SECONDS = 0.1


@app.command()
def down(
    stop_all: Annotated[bool, typer.Option("--all", help="Stop the instances, too.")] = False,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """End the server. Its instances go on serving and are adopted by the next one, unless --all stops them.

    With --all, what a server that has ended left running is stopped, too. What a command started is started
    again by the next server.
    """
    values = settings("server", "instances", "preflight", "start", server_url=server)
    with ServerClient(values) as there:
        if not there.answers():
            return _no_server(values, stop_all=stop_all, json=json, local=there.local)
        runs = _process_of(values) if there.local else there.answers
        if not _told(there, runs, stop_all=stop_all):
            return _no_server(values, stop_all=stop_all, json=json, local=True)
        deadline = time.monotonic() + _WAIT_SECONDS
        while runs():
            if time.monotonic() > deadline:
                raise UnreachableError(f"the server at {there.place} does not end", hint="Its log says why.")
            time.sleep(_POLL_SECONDS)
    if json:
        print(answer({"ended": True, "instances_stopped": stop_all}))
        return 0
    print("the server and its instances ended" if stop_all else "the server ended; its instances go on serving")
    return 0


def _told(there: ServerClient, runs: Callable[[], bool], *, stop_all: bool) -> bool:
    """Tell the server to end; return False where it ended before it took the call, as another command had told it."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            there.call("POST", "/shutdown", body={"instances": stop_all})
        except (UnreachableError, NotReadyError):
            if not there.local or time.monotonic() > deadline:
                raise
            if not runs():
                return False
            time.sleep(_POLL_SECONDS)
        else:
            return True


def _no_server(values: Settings, *, stop_all: bool, json: bool, local: bool) -> int:
    """Say that there is none, and end what the last one of this data directory left."""
    from garrison.server.left_running import end_left_gateway, stop_left_engines

    try:
        gateway = local and end_left_gateway(values)
        stopped = asyncio.run(stop_left_engines(values, "garrison down --all")) if local and stop_all else []
    except ConflictError as error:
        pid = error.details.get("pid")
        raise UnreachableError(
            f"the server{f', pid {pid},' if pid else ''} does not answer",
            hint="It may be starting: try again in a moment. Its log says what it does.",
        ) from None
    if json:
        print(answer({"ended": bool(gateway), "instances_stopped": bool(stopped)}))
        return 0
    print("no server runs")
    if gateway:
        print("ended the gateway that the last one left")
    if stopped:
        print(f"stopped what the last one left: {', '.join(stopped)}")
    return 0


def _process_of(values: Settings) -> Callable[[], bool]:
    """Whether the server of this data directory still runs: it stops to answer before its instances have stopped."""
    from garrison.cli.server.running import this_machine

    processes = this_machine()
    try:
        pid = int((values.data_dir / "server.lock").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return lambda: False
    found = processes.read(pid)

    def runs() -> bool:
        now = processes.read(pid)
        return found is not None and now is not None and now.id == found.id

    return runs
