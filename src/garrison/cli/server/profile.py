"""`garrison profile`."""

from typing import Annotated, Any

import typer

from garrison.base.errors import UsageError
from garrison.cli.json_answer import answer
from garrison.cli.options import Json
from garrison.cli.options import app as make_app
from garrison.cli.server.options import ServerUrl, client

app = make_app("Show the profiles, or choose one.")


@app.command()
def profile(
    name: Annotated[str | None, typer.Argument(help="The profile to make active.", show_default=False)] = None,
    off: Annotated[bool, typer.Option("--off", help="Make none active.")] = False,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """Show the profiles that manifests declare, or choose one, which holds until the next choice or the server's end.

    While a profile is active, its model names go where it says.
    """
    if name is not None and off:
        raise UsageError("give a profile or --off, not both", hint="Omit one of them.")
    with client(server) as there:
        if name is None and not off:
            found: dict[str, Any] = there.call("GET", "/profiles")
        else:
            found = there.call("PUT", "/profiles/active", body={"name": name})
    if json:
        print(answer(found))
        return 0
    from garrison.cli.views.table import print_table

    rows = [
        ("✓" if name == found["active"] else "", name, model, to or "nowhere")
        for name, pins in found["profiles"].items()
        for model, to in (pins or {"–": "–"}).items()
    ]
    print_table(("active", "profile", "model", "goes to"), rows, empty="no profiles; declare them in a manifest")
    return 0
