"""`garrison requests`: requests to models in progress, their end, and those that have ended."""

import json as json_module
from typing import Annotated

import typer

from garrison.cli.json_answer import answer
from garrison.cli.options import Json
from garrison.cli.options import app as make_app
from garrison.cli.server.client import part
from garrison.cli.server.options import ServerUrl, client

app = make_app("List requests to models, in progress or ended; show and stop them.", no_args_is_help=True)

Ids = Annotated[list[str], typer.Argument(metavar="ID", help="As `garrison requests list` shows them.")]
Failed = Annotated[bool, typer.Option("--failed", help="Only those that did not go well.")]
Route = Annotated[str | None, typer.Option("--route", metavar="NAME", help="Only this route or instance.")]
Key = Annotated[int | None, typer.Option("--key", metavar="ID", help="Only those of this key.")]
Count = Annotated[int, typer.Option("--count", "-n", metavar="N", min=1, max=1000, help="How many at most.")]


@app.command("list")
def list_requests(server: ServerUrl = None, json: Json = False) -> int:
    """List the requests that a server carries now, oldest first."""
    with client(server) as there:
        found = there.call("GET", "/requests")
    if json:
        print(answer(found))
        return 0
    from garrison.cli.server.views.traffic import show_in_progress

    show_in_progress(found)
    return 0


@app.command()
def stop(ids: Ids, server: ServerUrl = None, json: Json = False) -> int:
    """End requests, at their engines as well. A client that has no answer yet gets status 499."""
    with client(server) as there:
        for one in ids:
            there.call("DELETE", f"/requests/{part(one)}")
            if not json:
                print(f"request {one} stopped")
    if json:
        print(answer({"stopped": ids}))
    return 0


@app.command()
def show(id: Annotated[str, typer.Argument(help="Of a request that has ended.")], server: ServerUrl = None) -> int:
    """Print what is kept of a request and its answer, as JSON. The server keeps nothing unless it is set to."""
    with client(server) as there:
        print(json_module.dumps(there.call("GET", f"/captures/{part(id)}"), ensure_ascii=False, indent=2))
    return 0


@app.command()
def ended(
    count: Count = 50,
    failed: Failed = False,
    route: Route = None,
    key: Key = None,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """List requests that have ended, newest first. The server keeps the last ones, since its start."""
    asked = {"limit": count, "failed": failed or None, "route": route, "key": key}
    with client(server) as there:
        found = there.call("GET", "/activity", params={name: one for name, one in asked.items() if one is not None})
    if json:
        print(answer({"requests": found}))
        return 0
    from garrison.cli.server.views.traffic import show_ended

    show_ended(found)
    return 0
