"""`garrison plan`."""

from typing import TYPE_CHECKING

from garrison.base.exit_codes import ExitCode
from garrison.cli.fleet.options import AcceptStale, Adopt, All, ExitCodes, File, Files, Force, ModeName, Modes, Props
from garrison.cli.fleet.options import declaration as load
from garrison.cli.json_answer import answer
from garrison.cli.options import Json, ServerUrl
from garrison.cli.options import app as make_app

if TYPE_CHECKING:
    from garrison.cli.views.opening import Opening
    from garrison.fleet.management.requests import ApplyRequest
    from garrison.fleet.values.plan import Plan

__all__ = ["app", "exit_code_of", "simulate"]

app = make_app("Show what an apply would do, without doing it.")


@app.command()
def plan(
    files: Files = None,
    file: File = None,
    mode: Modes = ModeName.RECONCILE,
    exit_code: ExitCodes = False,
    force: Force = False,
    adopt: Adopt = False,
    accept_stale_cache: AcceptStale = False,
    prop: Props = None,
    everything: All = False,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """Show what an apply would do, and why.

    The targets are looked at, but nothing is sent that changes them.
    """
    from garrison.cli.views.opening import Opening
    from garrison.fleet.management.requests import ApplyRequest
    from garrison.fleet.plan.context import PlanOptions

    options = PlanOptions(force=force, adopt=adopt, accept_stale_cache=accept_stale_cache)
    with Opening("reading the manifest", json=json) as opening:
        request = ApplyRequest(declaration=load(files, file, prop), mode=mode.value, options=options)
        return simulate(request, server=server, exit_code=exit_code, everything=everything, json=json, opening=opening)


def simulate(
    request: "ApplyRequest", *, server: str | None, exit_code: bool, everything: bool, json: bool, opening: "Opening"
) -> int:
    """Show the plan of a declaration, for `plan` and `apply --simulate`; return the exit code."""
    from garrison.cli.fleet.wiring import Stop, open_stacks, run
    from garrison.cli.views.page import Page
    from garrison.cli.views.plan import show_plan
    from garrison.cli.views.plan_facts import plan_facts
    from garrison.cli.views.progress import progress_view

    opening.text = "opening the record"
    with open_stacks(server) as operations:
        page, stop = Page(), Stop()
        view = progress_view(page, stop, lambda drafted: show_plan(drafted, page, facts), json=json, opening=opening)
        try:
            facts = run(plan_facts(operations, request.declaration, everything=everything), stop)
            drafted = run(operations.plan(request, view), stop)
        finally:
            view.end()
    code = exit_code_of(drafted) if exit_code else ExitCode.OK
    if json:
        print(answer({"plan": drafted.to_json()}, code=code, ok=True))
    return code


def exit_code_of(drafted: "Plan") -> ExitCode:
    """Return the exit code of a plan under `--exit-code`.

    32 when something would change on a target or in the record; otherwise 31 when a target is out of reach, and 0.
    Recording an adapter that is already served as declared does not count as a change.
    """
    from garrison.fleet.values.plan import ActionKind

    calm = (ActionKind.KEEP, ActionKind.ADOPT)
    if any(action.kind not in calm for action in drafted.actions):
        return ExitCode.DRIFT
    if drafted.instance_work or drafted.instance_conflicts or any(one.kind != "keep" for one in drafted.targets):
        return ExitCode.DRIFT
    return ExitCode.UNREACHABLE if drafted.unknown else ExitCode.OK
