"""`garrison destroy`."""

from pathlib import Path
from typing import Annotated

import typer

from garrison.base.errors import InvalidError, UsageError
from garrison.base.exit_codes import ExitCode
from garrison.base.presence import is_missing
from garrison.cli.fleet.lock_wait import LockTimeout
from garrison.cli.fleet.options import All, File, Files, Props, Yes
from garrison.cli.fleet.options import declaration as load
from garrison.cli.json_answer import answer
from garrison.cli.options import Json, ServerUrl
from garrison.cli.options import app as make_app

app = make_app("Unload everything a stack owns.")

Stack = Annotated[
    str | None, typer.Option("--stack", "-s", metavar="NAME", help="The stack by name; no manifest is needed.")
]


@app.command()
def destroy(
    files: Files = None,
    file: File = None,
    stack: Stack = None,
    yes: Yes = False,
    lock_timeout: LockTimeout = 0.0,
    prop: Props = None,
    everything: All = False,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """Unload everything a stack owns, and forget the stack.

    A stack that was destroyed before is destroyed: that is no error.
    Adapters that others loaded stay. On a target out of reach, unloading stays
    owed until the target answers again.
    """
    from garrison.fleet.manifest.load import DEFAULT_FILE

    if stack is not None and (files or file):
        raise UsageError("give a manifest or --stack, not both", hint="--stack needs no manifest.")
    if stack is None and not (files or file) and is_missing(Path(DEFAULT_FILE)):
        raise InvalidError(
            f"no stack given, and no {DEFAULT_FILE} in this directory",
            hint="`garrison destroy --stack NAME` needs no manifest; `garrison status` lists the stacks.",
        )
    name = stack if stack is not None else load(files, file, prop).stack
    return _destroy(name, server=server, yes=yes, everything=everything, json=json, lock_timeout=lock_timeout)


def _destroy(stack: str, *, server: str | None, yes: bool, everything: bool, json: bool, lock_timeout: float) -> int:
    from garrison.cli.fleet.applying import Applying
    from garrison.cli.fleet.wiring import INTERRUPTED, open_stacks
    from garrison.cli.views.applied import show_applied, show_interrupted
    from garrison.cli.views.opening import Opening
    from garrison.fleet.management.requests import ApplyRequest

    with Opening("opening the record", json=json) as opening, open_stacks(server) as operations:
        request, again = ApplyRequest.destroying(stack), f"garrison destroy --stack {stack}"
        applying = Applying(
            operations, request, yes=yes, everything=everything, json=json, again=again, lock_timeout=lock_timeout,
            opening=opening,
        )  # fmt: skip
        page = applying.page
        try:
            applying.confirm()
            done = applying.carry_out(
                lambda fingerprint: operations.destroy(
                    stack, applying.view, fingerprint=fingerprint, stopping=applying.stop.stopping
                )
            )
        except KeyboardInterrupt:
            return applying.interrupted()
        finally:
            applying.view.end()
    code = INTERRUPTED if applying.stop.asked and done.applied.owed else int(done.applied.exit_code)
    if json:
        print(answer(done.to_json(), code=code))
        return code
    show_applied(done.applied, page, continued=code == INTERRUPTED, place=applying.place)
    if code == INTERRUPTED:
        show_interrupted(done.applied.outcomes, page, begun=True, again=again)
        return code
    if done.gone:
        page.line(f"Stack {stack} is destroyed.")
    elif done.applied.exit_code is ExitCode.UNREACHABLE:
        page.line(f"Stack {stack} will be destroyed once nothing is owed.")
    return code
