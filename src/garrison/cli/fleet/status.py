"""`garrison status`."""

import time
from typing import Annotated

import typer

from garrison.cli.fleet.on_record import OnRecord
from garrison.cli.fleet.options import All, Stack
from garrison.cli.json_answer import answer
from garrison.cli.options import Json, ServerUrl
from garrison.cli.options import app as make_app

app = make_app("Show the state of every stack and target.")


@app.command(cls=OnRecord)
def status(
    stack: Stack = None,
    cached: Annotated[bool, typer.Option("--cached", help="Contact no target; show what was last seen.")] = False,
    everything: All = False,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """Show the state of every stack, target and adapter, what is owed, and which
    commands are at work.

    All targets are looked at once, in parallel, each within its own timeout. What `garrison serve` runs on this machine
    is listed, too.
    """
    from datetime import UTC, datetime

    from rich.text import Text

    from garrison.cli.fleet.serving import serving_here, show_serving
    from garrison.cli.fleet.wiring import Stop, open_stacks, run
    from garrison.cli.views.opening import Opening
    from garrison.cli.views.page import Page
    from garrison.cli.views.progress import progress_view
    from garrison.cli.views.status import show_status, slow_hint

    with Opening("opening the record", json=json) as opening, open_stacks(server) as operations:
        page, stop = Page(), Stop()
        view = progress_view(page, stop, lambda _: None, json=json, opening=opening)
        try:
            found = run(operations.status(view, stack=stack, cached=cached), stop)
        finally:
            view.end()
        seconds = time.monotonic() - opening.since
    here = serving_here() if operations.place is None and stack is None else []
    if json:
        print(answer({**found.to_json(), "serving": here}))
    else:
        show_status(found, page, everything=everything, place=operations.place)
        show_serving(page, here, datetime.now(UTC))
        if hint := slow_hint(found, seconds):
            page.entry(Text("→ ", "dim"), Text(hint, "dim"))
    return 0
