"""`garrison discover`."""

from typing import Annotated

import typer

from garrison.base.exit_codes import ExitCode
from garrison.cli.fleet.options import File, declaration
from garrison.cli.json_answer import answer
from garrison.cli.options import Json, KeyEnv
from garrison.cli.options import app as make_app

app = make_app("Look at targets and list unmanaged adapters.")


@app.command()
def discover(
    file: File = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", metavar="NAME|URL", help="Only these targets; a URL need not be on record."),
    ] = None,
    key_env: KeyEnv = None,
    json: Json = False,
) -> int:
    """Look at targets, and list their base models and unmanaged adapters.

    Covers every target on record, or those of a manifest, or the named ones.
    Observations of targets on record are stored. Exit code 31 when a target could
    not be observed.
    """
    from garrison.cli.fleet.wiring import Stop, open_operations, run
    from garrison.cli.views.discover import show_discovered
    from garrison.cli.views.opening import Opening
    from garrison.cli.views.page import Page
    from garrison.fleet.management.requests import DiscoverRequest
    from garrison.fleet.values.view import SilentView
    from garrison.net.endpoint import Secret

    declared = declaration(file, None, None).targets if file else None
    api_key = Secret("env", key_env) if key_env else None
    request = DiscoverRequest(wanted=tuple(target or ()), declared=declared, api_key=api_key)
    with Opening("looking at the targets", json=json), open_operations() as operations:
        found = run(operations.discover(request, SilentView()), Stop())
    code = ExitCode.OK if all(one.seen.known for one in found) else ExitCode.UNREACHABLE
    if json:
        print(answer({"targets": [one.to_json() for one in found]}, code=code))
    else:
        show_discovered(found, Page())
    return code
