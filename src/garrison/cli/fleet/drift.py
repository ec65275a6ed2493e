"""`garrison drift`."""

from garrison.base.exit_codes import ExitCode
from garrison.cli.fleet.on_record import OnRecord
from garrison.cli.fleet.options import All, ExitCodes, Stack
from garrison.cli.json_answer import answer
from garrison.cli.options import Json, ServerUrl
from garrison.cli.options import app as make_app

app = make_app("Show what differs from what was last applied.")


@app.command(cls=OnRecord)
def drift(
    stack: Stack = None,
    exit_code: ExitCodes = False,
    everything: All = False,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """Show what differs from what was last applied.

    Every target is looked at now. One that cannot be observed proves nothing and
    is listed separately.
    """
    from garrison.cli.fleet.wiring import Stop, open_stacks, run
    from garrison.cli.views.drift import show_drifts
    from garrison.cli.views.opening import Opening
    from garrison.cli.views.page import Page
    from garrison.cli.views.progress import progress_view

    with Opening("opening the record", json=json) as opening, open_stacks(server) as operations:
        page, stop = Page(), Stop()
        view = progress_view(page, stop, lambda _: None, json=json, opening=opening)
        try:
            found = run(operations.drift(view, stack=stack), stop)
        finally:
            view.end()
        now = operations.now()
    code = ExitCode.OK
    if exit_code:
        code = ExitCode.DRIFT if found.found else ExitCode.UNREACHABLE if found.unknown else ExitCode.OK
    if json:
        print(answer(found.to_json(), code=code, ok=True))
    else:
        show_drifts(found, page, now, everything=everything, place=operations.place)
    return code
