"""`garrison nodes`."""

import os
import sys
from typing import Annotated, Any

import typer

from garrison.base.errors import UsageError
from garrison.base.redaction import know_secret
from garrison.cli.json_answer import answer
from garrison.cli.options import Json, KeyEnv
from garrison.cli.options import app as make_app
from garrison.cli.server.client import part
from garrison.cli.server.instance.calls import all_instances
from garrison.cli.server.options import ServerUrl, client

app = make_app("List, add and remove other servers.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The name of the node.")]


@app.command("list")
def list_nodes(server: ServerUrl = None, json: Json = False) -> int:
    """List the nodes that this server knows, as it saw them last."""
    with client(server) as there:
        found: dict[str, dict[str, Any]] = there.call("GET", "/nodes")
    if json:
        print(answer({"nodes": found}))
        return 0
    from garrison.cli.views.table import print_table

    rows = []
    for name, one in found.items():
        state = one["state"] if not one.get("reason") else f"{one['state']}: {one['reason']}"
        rows.append(
            (name, state, str(one.get("instances", "")), one.get("version", ""), one["address"] or "this server")
        )
    print_table(("node", "state", "instances", "version", "address"), rows)
    return 0


@app.command()
def add(
    name: Name,
    address: Annotated[str, typer.Argument(help="Its URL, such as http://10.0.0.2:8080.")],
    key_env: KeyEnv = None,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """Add a node: another Garrison server. It is asked in the background, and may be out of reach now."""
    key = None
    if key_env is not None:
        key = os.environ.get(key_env)
        if not key:
            raise UsageError(f"the variable {key_env} is not set", hint="It holds a management key of the node.")
        know_secret(key)
    with client(server) as there:
        made = there.call("POST", f"/nodes/{part(name)}", body={"address": address, "api_key": key})
    print(answer(made) if json else f"node {made['name']} added")
    return 0


@app.command()
def remove(name: Name, server: ServerUrl = None, json: Json = False) -> int:
    """Forget a node. Its instances go on where they are."""
    with client(server) as there:
        found: dict[str, Any] = there.call("GET", f"/nodes/{part(name)}")
        theirs = all_instances(there, node=name) if found["state"] == "reachable" else []
        there.call("DELETE", f"/nodes/{part(name)}")
    if json:
        names = [one["name"] for one in theirs]
        print(answer({"name": name, "address": found["address"], "instances": names}))
        return 0
    print(f"node {name} removed")
    for one in theirs:
        stack = f"; stack {one['stack']} declares it: take it out of the manifest" if one.get("stack") else ""
        print(f"note: instance {one['name']} goes on at {found['address']}{stack}", file=sys.stderr)
    return 0
