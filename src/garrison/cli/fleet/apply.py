"""`garrison apply`."""

import json as json_module
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from garrison.base.errors import UsageError
from garrison.base.exit_codes import ExitCode
from garrison.cli.fleet.options import AcceptStale, Adopt, All, File, Files, Force, ModeName, Modes, Props, Yes
from garrison.cli.fleet.options import declaration as load
from garrison.cli.options import Json
from garrison.cli.options import app as make_app

if TYPE_CHECKING:
    from garrison.cli.fleet.wiring import Stop
    from garrison.cli.views.page import Page
    from garrison.cli.views.progress import QuietProgress
    from garrison.fleet.context import Fleet
    from garrison.fleet.operations.apply import Applied
    from garrison.fleet.plan.context import PlanOptions
    from garrison.fleet.values.declaration import Declaration

app = make_app("Make the targets serve what a manifest declares.")


@app.command()
def apply(
    files: Files = None,
    file: File = None,
    mode: Modes = ModeName.RECONCILE,
    simulate: Annotated[
        bool, typer.Option("--simulate", "--dry-run", help="Only show the plan, like `garrison plan`.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Stay until the actions owed on unreachable targets are done, or Ctrl-C.")
    ] = False,
    yes: Yes = False,
    force: Force = False,
    adopt: Adopt = False,
    accept_stale_cache: AcceptStale = False,
    prop: Props = None,
    everything: All = False,
    json: Json = False,
) -> int:
    """Make the targets serve what a manifest declares.

    Looks at the targets, shows the plan, asks for confirmation, and carries the
    plan out. Actions owed on targets out of reach are carried out by a later
    apply, by --watch, or by `garrison agent`.

    Exit code 30 when an action failed, 31 when nothing failed but something is
    owed, 33 when a change made by others would be overwritten. The first Ctrl-C
    finishes work in progress and starts nothing new; a second one stops now.
    After either, another apply continues.
    """
    from garrison.fleet.plan.context import PlanOptions

    options = PlanOptions(force=force, adopt=adopt, accept_stale_cache=accept_stale_cache)
    declared = load(files, file, prop)
    if simulate:
        from garrison.cli.fleet.plan import simulate as show

        if watch:
            raise UsageError(
                "--simulate and --watch are mutually exclusive",
                hint="--simulate changes nothing that --watch could wait for.",
            )
        return show(declared, mode=mode, options=options, exit_code=False, everything=everything, json=json)
    return _apply(declared, mode, options, watch=watch, yes=yes, everything=everything, json=json)


def _apply(
    declared: "Declaration",
    mode: ModeName,
    options: "PlanOptions",
    *,
    watch: bool,
    yes: bool,
    everything: bool,
    json: bool,
) -> int:
    from garrison.cli.fleet.question import Question
    from garrison.cli.fleet.wiring import INTERRUPTED, Stop, open_fleet, run
    from garrison.cli.views.applied import show_applied, show_interrupted
    from garrison.cli.views.page import Page
    from garrison.cli.views.plan import show_plan
    from garrison.cli.views.plan_facts import plan_facts
    from garrison.cli.views.progress import progress_view
    from garrison.fleet.execute.executor import ExecuteOptions
    from garrison.fleet.operations.apply import apply as apply_declaration

    with open_fleet() as fleet:
        page, stop = Page(), Stop()
        facts = plan_facts(fleet, declared, everything=everything)
        view = progress_view(page, stop, lambda drafted: show_plan(drafted, page, facts), json=json)
        applying = apply_declaration(
            fleet, declared, view, mode=mode.value, options=options,
            confirm=Question(stop, yes=yes, json=json), execution=ExecuteOptions(stopping=stop.stopping),
        )  # fmt: skip
        try:
            applied = run(applying, stop)
            view.end()
            if not json:
                show_applied(applied, page, continued=watch or stop.asked)
            if watch and applied.owed and not stop.asked:
                applied = _watch(fleet, declared, applied, view, page, stop, json=json)
        except KeyboardInterrupt:
            # Cancelled without a result: the outcomes the view has collected are all there is to report.
            view.end()
            if json:
                outcomes = [one.to_json() for one in view.outcomes]
                print(
                    json_module.dumps(
                        {"ok": False, "code": "interrupted", "exit_code": INTERRUPTED, "outcomes": outcomes}
                    )
                )
                return INTERRUPTED
            show_interrupted(
                view.outcomes, page, under_way=len(view.under_way), untouched=view.untouched,
                begun=stop.working or bool(view.outcomes), again="garrison apply",
            )  # fmt: skip
            return INTERRUPTED
        finally:
            view.end()
    # A Ctrl-C that arrived while the last actions finished interrupted nothing.
    code = INTERRUPTED if stop.asked and applied.owed else int(applied.exit_code)
    if json:
        body = applied.to_json() | {"ok": code == ExitCode.OK, "exit_code": code}
        print(json_module.dumps(body, ensure_ascii=False))
    elif code == INTERRUPTED:
        show_interrupted(applied.outcomes, page, begun=True, again="garrison apply")
    return code


def _watch(
    fleet: "Fleet",
    declared: "Declaration",
    applied: "Applied",
    view: "QuietProgress",
    page: "Page",
    stop: "Stop",
    *,
    json: bool,
) -> "Applied":
    """Wait for the owed actions and carry them out; return `applied` updated with their outcomes."""
    from garrison.cli.fleet.wiring import run
    from garrison.cli.views.applied import show_applied
    from garrison.fleet.operations.watch import watch

    def waiting(owed: int, seconds: float) -> None:
        # No target is being changed between two attempts, so one Ctrl-C may end the wait.
        stop.working = False
        view.waiting(owed, seconds)

    targets = {one.action.target for one in applied.owed}
    watching = watch(
        fleet, declared.stack, view, targets=targets, owed=len(applied.owed), longest=declared.policy.interval,
        waiting=waiting, stopping=stop.stopping,
    )  # fmt: skip
    watched = run(watching, stop)
    # Later outcomes replace those of the first attempt, and these targets have been observed since.
    ended: dict[Any, Any] = {one.action.key: one for one in (*applied.outcomes, *watched.outcomes)}
    plan = replace(
        applied.plan, unknown={name: why for name, why in applied.plan.unknown.items() if name not in targets}
    )
    done = replace(applied, outcomes=tuple(ended.values()), plan=plan)
    view.end()
    if not json:
        show_applied(done, page)
    return done
