"""`garrison down`."""

import time
from typing import Annotated

import typer

from garrison.base.errors import UnreachableError
from garrison.cli.options import app as make_app
from garrison.cli.server.options import ServerUrl, client

app = make_app("End the server.")

_WAIT_SECONDS = 120.0


@app.command()
def down(
    stop_all: Annotated[bool, typer.Option("--all", help="Stop the instances, too.")] = False,
    server: ServerUrl = None,
) -> int:
    """End the server. Its instances go on serving and are adopted by the next one, unless --all stops them."""
    with client(server) as there:
        if not there.answers():
            print("no server runs")
            return 0
        there.call("POST", "/shutdown", body={"instances": stop_all})
        deadline = time.monotonic() + _WAIT_SECONDS
        while there.answers():
            if time.monotonic() > deadline:
                raise UnreachableError(f"the server at {there.place} does not end", hint="Its log says why.")
            time.sleep(0.1)
    print("the server and its instances ended" if stop_all else "the server ended; its instances go on serving")
    return 0
