"""`garrison destroy`."""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from garrison.base.errors import InvalidError, UsageError
from garrison.base.exit_codes import ExitCode
from garrison.cli.fleet.options import All, File, Files, Props, Yes
from garrison.cli.fleet.options import declaration as load
from garrison.cli.options import Json
from garrison.cli.options import app as make_app

if TYPE_CHECKING:
    from garrison.fleet.context import Fleet

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
    prop: Props = None,
    everything: All = False,
    json: Json = False,
) -> int:
    """Unload everything a stack owns, and forget the stack.

    Adapters that others loaded stay. On a target out of reach, unloading stays
    owed until the target answers again.
    """
    from garrison.cli.fleet.question import Question
    from garrison.cli.fleet.wiring import INTERRUPTED, Stop, open_fleet, run
    from garrison.cli.views.applied import show_applied, show_interrupted
    from garrison.cli.views.page import Page
    from garrison.cli.views.plan import show_plan
    from garrison.cli.views.plan_facts import plan_facts
    from garrison.cli.views.progress import progress_view
    from garrison.fleet.manifest.load import DEFAULT_FILE
    from garrison.fleet.operations.apply import destroy as destroy_stack
    from garrison.fleet.plan.context import PlanOptions

    if stack is not None and (files or file):
        raise UsageError("give a manifest or --stack, not both", hint="--stack needs no manifest.")
    if stack is None and not (files or file) and not Path(DEFAULT_FILE).exists():
        raise InvalidError(
            f"no stack given, and no {DEFAULT_FILE} in this directory",
            hint="`garrison destroy --stack NAME` needs no manifest; `garrison status` lists the stacks.",
        )
    name = stack if stack is not None else load(files, file, prop).stack
    with open_fleet() as fleet:
        _known(fleet, name)
        page, stop = Page(), Stop()
        facts = plan_facts(fleet, None, everything=everything)
        view = progress_view(page, stop, lambda drafted: show_plan(drafted, page, facts), json=json)
        question = Question(stop, yes=yes, json=json)
        again = f"garrison destroy --stack {name}"
        try:
            applied = run(destroy_stack(fleet, name, view, options=PlanOptions(), confirm=question), stop)
            view.end()
        except KeyboardInterrupt:
            view.end()
            if not json:
                begun = stop.working or bool(view.outcomes)
                show_interrupted(
                    view.outcomes,
                    page,
                    under_way=len(view.under_way),
                    untouched=view.untouched,
                    begun=begun,
                    again=again,
                )
            return INTERRUPTED
        finally:
            view.end()
        gone = fleet.store.stack(name) is None
    if json:
        print(json_module.dumps(applied.to_json() | {"destroyed": gone}, ensure_ascii=False))
        return applied.exit_code
    show_applied(applied, page)
    if gone:
        page.line(f"Stack {name} is destroyed.")
    elif applied.exit_code is ExitCode.UNREACHABLE:
        page.line(f"Stack {name} will be destroyed once nothing is owed.")
    return applied.exit_code


def _known(fleet: "Fleet", name: str) -> None:
    """Check that the stack is on record. Resources outlive the declaration of a stack that is being destroyed."""
    if fleet.store.stack(name) is not None or fleet.store.resources(stack=name):
        return
    there = ", ".join(one.name for one in fleet.store.stacks()) or "none"
    raise InvalidError(f"stack {name!r} is not on record", hint=f"Known stacks: {there}. `garrison status` shows them.")
