"""`garrison apply`."""

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from garrison.base.errors import UsageError
from garrison.cli.fleet.lock_wait import LockTimeout
from garrison.cli.fleet.options import AcceptStale, Adopt, All, File, Files, Force, ModeName, Modes, Props, Yes
from garrison.cli.fleet.options import declaration as load
from garrison.cli.json_answer import answer
from garrison.cli.options import Json, ServerUrl
from garrison.cli.options import app as make_app

if TYPE_CHECKING:
    from garrison.cli.fleet.applying import Applying
    from garrison.cli.views.opening import Opening
    from garrison.fleet.management.operations import StackOperations
    from garrison.fleet.management.requests import ApplyRequest
    from garrison.fleet.operations.apply import Applied

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
    lock_timeout: LockTimeout = 0.0,
    prop: Props = None,
    everything: All = False,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """Make the targets serve what a manifest declares.

    Looks at the targets, shows the plan, asks for confirmation, and carries the
    plan out. Actions owed on targets out of reach are carried out by a later
    apply, by --watch, or by `garrison agent`.

    Exit code 30 when an action failed, 31 when nothing failed but something is
    owed, 33 when a change made by others would be overwritten, or when the plan
    changed before it was confirmed: nothing is held while you are asked. The first Ctrl-C
    finishes work in progress and starts nothing new; a second one stops now.
    After either, another apply continues. With --server, a server elsewhere does all
    this, and goes on after Ctrl-C.
    """
    from garrison.cli.views.opening import Opening
    from garrison.fleet.management.requests import ApplyRequest
    from garrison.fleet.plan.context import PlanOptions

    options = PlanOptions(force=force, adopt=adopt, accept_stale_cache=accept_stale_cache)
    if simulate and watch:
        raise UsageError(
            "--simulate and --watch are mutually exclusive",
            hint="--simulate changes nothing that --watch could wait for.",
        )
    with Opening("reading the manifest", json=json) as opening, contextlib.ExitStack() as held:
        request = ApplyRequest(declaration=load(files, file, prop), mode=mode.value, options=options)
        if simulate:
            from garrison.cli.fleet.plan import simulate as show

            return show(request, server=server, exit_code=False, everything=everything, json=json, opening=opening)
        from garrison.cli.fleet.wiring import open_stacks

        opening.text = "opening the record"
        operations = held.enter_context(open_stacks(server))
        if watch and operations.place is not None:
            raise UsageError(
                f"--watch is not for a server elsewhere: {operations.place} carries owed actions out by itself",
                hint="Leave it out; `garrison status --server URL` shows what is still owed.",
            )
        return apply_request(
            operations, request, watch=watch, yes=yes, everything=everything, json=json, lock_timeout=lock_timeout,
            opening=opening,
        )  # fmt: skip


def apply_request(
    operations: "StackOperations",
    request: "ApplyRequest",
    *,
    watch: bool,
    yes: bool,
    everything: bool,
    json: bool,
    lock_timeout: float = 0.0,
    opening: "Opening | None" = None,
) -> int:
    """Plan, ask, apply and show. Returns the exit code."""
    from garrison.cli.fleet.applying import Applying
    from garrison.cli.fleet.wiring import INTERRUPTED
    from garrison.cli.views.applied import show_applied, show_interrupted

    applying = Applying(
        operations,
        request,
        yes=yes,
        everything=everything,
        json=json,
        again="garrison apply",
        lock_timeout=lock_timeout,
        opening=opening,
    )
    page, stop, place = applying.page, applying.stop, operations.place
    try:
        applying.confirm()
        applied = applying.carry_out(
            lambda fingerprint: operations.apply(
                request, applying.view, fingerprint=fingerprint, stopping=stop.stopping
            )
        )
        if not json:
            show_applied(applied, page, continued=watch or stop.asked, place=place)
        if watch and applied.owed and not stop.asked:
            applied = _watch(operations, request.declaration.stack, applied, applying)
            if not json:
                show_applied(applied, page, place=place)
    except KeyboardInterrupt:
        return applying.interrupted()
    finally:
        applying.view.end()
    # A Ctrl-C that arrived while the last actions finished interrupted nothing.
    code = INTERRUPTED if stop.asked and applied.owed else int(applied.exit_code)
    if json:
        print(answer(applied.to_json(), code=code))
    elif code == INTERRUPTED:
        show_interrupted(applied.outcomes, page, begun=True, again="garrison apply")
    return code


def _watch(operations: "StackOperations", stack: str, applied: "Applied", applying: "Applying") -> "Applied":
    """Wait for the owed actions and carry them out; return `applied` updated with their outcomes."""
    from garrison.cli.fleet.wiring import run

    view, stop = applying.view, applying.stop

    def waiting(owed: int, seconds: float) -> None:
        # No target is being changed between two attempts, so one Ctrl-C may end the wait.
        stop.working = False
        view.waiting(owed, seconds)

    try:
        return run(operations.carry_owed(stack, applied, view, waiting=waiting, stopping=stop.stopping), stop)
    finally:
        view.end()
