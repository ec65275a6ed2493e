"""`garrison instance list`, `show` and `explain`."""

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from garrison.base.errors import UnreachableError
from garrison.cli.json_answer import answer
from garrison.cli.options import Json
from garrison.cli.server.client import ServerClient
from garrison.cli.server.instance.arguments import Name
from garrison.cli.server.instance.calls import all_instances, instance, path_of
from garrison.cli.server.options import ServerUrl, client
from garrison.cli.signals import code_of

__all__ = ["explain", "list_", "show"]


def list_(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show changes as they happen, until Ctrl-C.")] = False,
    node: Annotated[
        str | None, typer.Option("--node", metavar="NAME", help="Only those of this node. Default: of all.")
    ] = None,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """List the instances: state, engine, model, port, memory, requests in progress (and +waiting).

    With --watch a terminal shows the list as it is now; a pipe gets the list, then one line per event, as JSON with
    --json.
    """
    from garrison.cli.server.views.instances import show_instances
    from garrison.cli.views.page import Page

    with client(server) as there:
        if watch:
            return _watch(there, node, json=json)
        found = all_instances(there, node=node)
    if json:
        print(answer({"instances": found}))
    else:
        show_instances(Page(), found, datetime.now(UTC))
    return 0


def show(name: Name, server: ServerUrl = None, json: Json = False) -> int:
    """Show everything about one instance."""
    from garrison.cli.server.views.instances import show_instance
    from garrison.cli.views.page import Page

    with client(server) as there:
        found = instance(there, name)
    if json:
        print(answer(found))
    else:
        show_instance(Page(), found, datetime.now(UTC))
    return 0


def explain(name: Name, server: ServerUrl = None, json: Json = False) -> int:
    """Say what a start would do now: where it fits, who would make room, or why it cannot."""
    from garrison.cli.server.views.explained import show_explained
    from garrison.cli.views.page import Page

    with client(server) as there:
        found: Mapping[str, Any] = there.call("GET", path_of(name, "explain"))
    if json:
        print(answer(found))
    else:
        show_explained(Page(), name, found)
    return 0


def _watch(server: ServerClient, node: str | None, *, json: bool) -> int:
    from garrison.cli.server.views.instances_watch import InstancesWatch

    view = InstancesWatch(json=json)
    try:
        for kind, data in server.events("/events"):
            if kind in ("snapshot", "missed"):
                view.snapshot(all_instances(server, node=node))
            elif (data.get("subject") or {}).get("kind") == "instance":
                view.event(kind, data, lambda: all_instances(server, node=node))
    except KeyboardInterrupt as stopped:
        return code_of(stopped)
    finally:
        view.end()
    sys.stdout.flush()
    raise UnreachableError(f"the server at {server.place} ended", hint="`garrison up` starts it again.")
