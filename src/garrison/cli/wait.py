"""`garrison wait`."""

import asyncio
import json as json_module
import sys
import time
from typing import Annotated

import typer

from garrison.cli.options import Json
from garrison.cli.options import app as make_app
from garrison.launch.ready import origin, wait_ready

app = make_app("Wait until an endpoint is ready.")


@app.command()
def wait(
    url: Annotated[str, typer.Argument(help="http://host:port; /v1 at the end does no harm.")],
    timeout: Annotated[float, typer.Option("--timeout", "-t", min=0, help="Seconds to wait.")] = 300.0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing; the exit code tells.")] = False,
    json: Json = False,
) -> int:
    """Wait until an endpoint is ready, for scripts. Exit code 0 when it is, 22 when the time is over."""

    def say(reason: str) -> None:
        if not quiet:
            print(f"{origin(url)}: {reason}", file=sys.stderr)

    begun = time.monotonic()
    answer = asyncio.run(wait_ready(url, timeout=timeout, on_change=say))
    seconds = round(time.monotonic() - begun, 2)
    if json:
        print(json_module.dumps({"ok": True, "url": origin(url), "seconds": seconds, "reason": answer.reason}))
    elif not quiet:
        print(f"{origin(url)} is ready ({answer.reason}) after {seconds:g} s", file=sys.stderr)
    return 0
