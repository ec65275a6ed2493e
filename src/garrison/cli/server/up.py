"""`garrison up`."""

import asyncio
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from garrison.base.config_file import config_path
from garrison.base.errors import ConflictError, UsageError
from garrison.base.presence import is_file
from garrison.base.settings import Settings
from garrison.cli.log import opened_log, shows_view
from garrison.cli.options import Log, settings
from garrison.cli.options import app as make_app

if TYPE_CHECKING:
    from garrison.cli.server.views.server import UpView
    from garrison.fleet.management.requests import ApplyRequest
    from garrison.server.lock import ServerLock

app = make_app("Run the server: instances, gateway, fleet agent and management API.")

_NO_CONFIG = Path("/nonexistent/config.yaml")
"""What is watched where the user has no home, and so no config file."""
_GROUPS = ("server", "instances", "backends", "endpoint", "preflight", "start", "model", "fleet", "log")


@app.command()
def up(
    context: typer.Context,
    file: Annotated[
        list[str] | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="A manifest to apply at the start. Default: garrison.yaml, if it is here.",
        ),
    ] = None,
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
    install_service: Annotated[
        bool, typer.Option("--install-service", help="Write a systemd unit that runs this command; start nothing.")
    ] = False,
    user: Annotated[bool, typer.Option("--user", help="With --install-service: a unit of this user alone.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --install-service: print the unit only.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> int:
    """Run the server: instances, gateway, fleet agent and management API, on one port.

    A manifest is applied at the start. Where a server runs already, it is applied there, after a question, and the
    command ends.

    SIGTERM or Ctrl-C ends the server; its instances go on serving, and the next server adopts them. `garrison down
    --all` stops them, too. On a terminal it shows each step of an instance; --log shows the log instead.
    """
    if (user or dry_run) and not install_service:
        raise UsageError(
            "--user and --dry-run belong to --install-service", hint="garrison up --install-service --user"
        )
    if config is not None:
        os.environ["GARRISON_CONFIG"] = str(config)
    values = settings(*_GROUPS, server_host=host, server_port=port, log_format=log)
    if install_service:
        from garrison.cli.server.service import install_service as write_service

        arguments = _arguments(None if config is None else config.absolute(), host, port, log)
        return write_service(values, (*arguments, *_manifests(file)), user=user, dry_run=dry_run, yes=yes)
    request = _request(file)
    if detach and not (request is not None and _runs(values)):
        from garrison.cli.server.detach import detach as in_background

        code = in_background(values, *_arguments(config, host, port, log), *_manifests(file))
        if request is not None:
            print(f"it applies stack {request.declaration.stack}; `garrison status` shows how far it is")
        return code
    from garrison.server.lock import ServerLock

    try:
        lock = ServerLock(values.data_dir)
    except ConflictError as error:
        if error.details.get("briefly"):
            raise
        if request is not None:
            from garrison.cli.fleet.apply import apply_request
            from garrison.cli.fleet.wiring import open_operations

            with open_operations() as operations:
                return apply_request(operations, request, watch=False, yes=yes, everything=False, json=False)
        from garrison.cli.server.already import already_runs

        raise already_runs(values, error.details) from None
    if values.log_format is None and not sys.stderr.isatty():
        values = settings(*_GROUPS, server_host=host, server_port=port, log_format="console")
    logged = context.with_resource(opened_log(values, "up"))
    flags = {"server_host": host, "server_port": port, "log_format": values.log_format}
    return _run(values, lock, _view(logged=logged), request, lambda: settings(*_GROUPS, **flags))


def _runs(values: Settings) -> bool:
    """Whether a server runs on this data directory."""
    from garrison.cli.server.client import ServerClient

    with ServerClient.of_this_machine(values) as server:
        return server.answers()


def _request(files: list[str] | None) -> "ApplyRequest | None":
    """What is to be applied; None without a manifest."""
    from garrison.cli.fleet.options import declaration
    from garrison.fleet.management.requests import ApplyRequest
    from garrison.fleet.plan.context import PlanOptions

    if not files and not is_file(Path("garrison.yaml")):
        return None
    return ApplyRequest(declaration=declaration(files, None, None), mode="reconcile", options=PlanOptions())


def _arguments(config: Path | None, host: str | None, port: int | None, log: str | None) -> list[str]:
    given = {"--config": config, "--host": host, "--port": port, "--log": log}
    return [f"{name}={value}" for name, value in given.items() if value is not None]


def _manifests(files: list[str] | None) -> list[str]:
    """The arguments for a server that starts in another directory.

    Raises:
        UsageError: standard input is one of the files.
    """
    if "-" in (files or ()):
        raise UsageError("a server in the background cannot read a manifest from standard input", hint="Name a file.")
    return [f"--file={Path(one).absolute()}" for one in files or ()]


def _view(*, logged: bool) -> "UpView":
    from garrison.cli.server.views.server import ServerView, SilentServerView

    return ServerView() if shows_view(logged) else SilentServerView()


def _run(
    values: Settings,
    lock: "ServerLock",
    view: "UpView",
    request: "ApplyRequest | None",
    reload: Callable[[], Settings],
) -> int:
    import uvloop

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(values, lock, view, request, reload))
    finally:
        view.end()


async def _serve(
    values: Settings,
    lock: "ServerLock",
    view: "UpView",
    request: "ApplyRequest | None",
    reload: Callable[[], Settings],
) -> int:
    import gc

    gc.disable()  # nothing that the imports make is garbage, and a collection looks at all of it
    from garrison.base.garbage import keep_out_of_collections
    from garrison.server.workers.processes import start_early

    worker = await start_early(values)  # it starts while the rest is imported
    _spare_models()
    try:
        from garrison.server.parts import Parts
        from garrison.server.server import Server

        parts = Parts(values, worker=worker)
    except BaseException:
        if worker is not None:
            worker.kill()
        raise
    server = Server(parts, lock, reload=reload, config=config_path(os.environ) or _NO_CONFIG, note=view.note)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.request_end)
    loop.add_signal_handler(signal.SIGHUP, server.request_reload)
    listener = parts.instances.bus.listen(view.event, missed=view.missed)
    ready = False
    try:
        await server.startup()
        keep_out_of_collections()
        gc.enable()
        ready = True
        view.started([str(one.state) for one in parts.instances.list()])
        if request is not None:
            await server.apply(request)
        await server.main_loop()
    finally:
        await server.shutdown()
        listener.close()
        if ready:
            view.ended([one.name for one in parts.instances.list() if one.engine is not None])
    return 0


def _spare_models() -> None:
    """Have less made of pydantic's models at the start, which is a fifth of the time that the imports take.

    Each model is built when it is first used, those of FastAPI included: most never are. FastAPI silences a warning
    about its own fields while it makes them; built later, they would show it. It also asks of each type whether it is
    of pydantic 1, and takes "that cannot be imported" for a no.
    """
    from pydantic import BaseModel
    from pydantic.warnings import UnsupportedFieldAttributeWarning

    warnings.simplefilter("ignore", UnsupportedFieldAttributeWarning)
    BaseModel.model_config["defer_build"] = True
    sys.modules.setdefault("pydantic.v1", None)  # type: ignore[arg-type]  # None stands for a failed import
