"""`garrison wait`."""

import asyncio
import sys
import time
from typing import Annotated

import typer

from garrison.cli.json_answer import answer
from garrison.cli.options import Insecure, Json
from garrison.cli.options import app as make_app
from garrison.launch.run.address import place
from garrison.launch.run.ready import wait_ready

app = make_app("Wait until an endpoint is ready.")


@app.command()
def wait(
    url: Annotated[
        str, typer.Argument(help="http://host:port, https://…, unix:/path, or a port here; /v1 at the end is ignored.")
    ],
    timeout: Annotated[float, typer.Option("--timeout", "-t", min=0, help="Seconds to wait.")] = 300.0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing; only set the exit code.")] = False,
    insecure: Insecure = False,
    json: Json = False,
) -> int:
    """Wait until an endpoint is ready, for scripts. Exit code 0 when it is, 22 after the timeout."""

    where = str(place(url))

    def say(reason: str) -> None:
        if not quiet:
            print(f"{where}: {reason}", file=sys.stderr)

    begun = time.monotonic()
    ready = asyncio.run(wait_ready(url, timeout=timeout, insecure=insecure, on_change=say))
    seconds = round(time.monotonic() - begun, 2)
    if json:
        print(answer({"url": where, "seconds": seconds, "reason": ready.reason}))
    elif not quiet:
        print(f"{where} is ready ({ready.reason}) after {seconds:g} s", file=sys.stderr)
    return 0
