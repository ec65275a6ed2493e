"""`garrison up`."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from garrison.base.settings import Settings
from garrison.cli.log import opened_log
from garrison.cli.options import Log, settings
from garrison.cli.options import app as make_app

if TYPE_CHECKING:
    from garrison.server.lock import ServerLock

app = make_app("Run the server: instances, gateway, fleet agent and management API.")

_GROUPS = ("server", "instances", "backends", "endpoint", "preflight", "start", "model", "fleet", "log")


@app.command()
def up(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="The config file, instead of the usual one.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", "-p", min=1, max=65535, help="Port to listen on. Default: 8080.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it is ready, and leave it in the background.")
    ] = False,
    log: Log = None,
) -> int:
    """Run the server: instances, gateway, fleet agent and management API, on one port.

    SIGTERM or Ctrl-C ends the server; its instances go on serving, and the next server adopts them. `garrison down
    --all` stops them, too.
    """
    if config is not None:
        os.environ["GARRISON_CONFIG"] = str(config)
    values = settings(*_GROUPS, server_host=host, server_port=port, log_format=log)
    if detach:
        from garrison.cli.server.detach import detach as in_background

        return in_background(values, *_arguments(config, host, port, log))
    from garrison.server.lock import ServerLock

    lock = ServerLock(values.data_dir)
    if values.log_format is None and not sys.stderr.isatty():
        values = settings(*_GROUPS, server_host=host, server_port=port, log_format="console")
    context.with_resource(opened_log(values, "up"))
    return _run(values, lock)


def _arguments(config: Path | None, host: str | None, port: int | None, log: str | None) -> list[str]:
    given = {"--config": config, "--host": host, "--port": port, "--log": log}
    return [f"{name}={value}" for name, value in given.items() if value is not None]


def _run(values: Settings, lock: "ServerLock") -> int:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(values, lock))


async def _serve(values: Settings, lock: "ServerLock") -> int:
    from garrison.server.parts import Parts
    from garrison.server.server import Server

    parts = Parts(values)
    server = Server(parts, lock, note=lambda text: print(text, flush=True))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.request_end)
    try:
        await server.startup()
        await server.main_loop()
    finally:
        await server.shutdown()
    return 0
