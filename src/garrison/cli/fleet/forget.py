"""`garrison forget`."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from garrison.base.exit_codes import ExitCode
from garrison.cli.fleet.options import Yes
from garrison.cli.json_answer import answer
from garrison.cli.options import Json
from garrison.cli.options import app as make_app

if TYPE_CHECKING:
    from garrison.cli.views.page import Page
    from garrison.fleet.operations.forget import Loss

app = make_app("Drop a target that will not come back.")


@app.command()
def forget(
    target: Annotated[str, typer.Argument(help="The target's name.")],
    force: Annotated[
        bool, typer.Option("--force", help="Forget it even if it answers; its adapters stay loaded, unmanaged.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> int:
    """Drop a target with everything recorded and owed on it.

    There is no other way to drop a target that is out of reach. The server is not
    touched. A manifest that still declares the target brings it back with the
    next apply.
    """
    from garrison.cli.fleet.question import confirm
    from garrison.cli.fleet.wiring import Stop, open_operations, run
    from garrison.cli.views.page import Page
    from garrison.cli.views.progress import progress_view

    with open_operations() as operations:
        page, stop, fingerprint = Page(), Stop(), None
        view = progress_view(page, stop, lambda _: None, json=json)
        try:
            if not yes:
                loss = run(operations.propose_forgetting(target, view, force=force), stop)
                view.end()
                fingerprint = loss.fingerprint
                if not json:
                    _show(loss, page, operations.now())
                confirm(f"Forget {target}?", stop, json=json)
            done = run(operations.forget(target, view, fingerprint=fingerprint, force=force), stop)
        finally:
            view.end()
        now = operations.now()
    if json:
        print(answer(done.to_json()))
        return ExitCode.OK
    if yes:
        _show(done.loss, page, now)
    page.line(("✓ ", "green"), f"{target} forgotten")
    return ExitCode.OK


def _show(loss: "Loss", page: "Page", now: datetime) -> None:
    from garrison.cli.views.age import ago
    from garrison.cli.views.alike import reach_words
    from garrison.cli.views.page import counted, sentence

    record = loss.target
    seen = f"last seen {ago(record.last_seen, now)}" if record.last_seen else "never seen"
    state = "it answers" if loss.reachable else f"{reach_words(record.cause)} ({record.cause}), {seen}"
    page.line(("forget ", "bold red"), (record.name, "bold"), f"  {state}")
    if loss.adapters:
        names = sentence(one.key.name for one in loss.adapters)
        page.line("  ", ("✕ ", "red"), f"{counted(len(loss.adapters), 'adapter')} no longer recorded: {names}")
    else:
        page.line("  ", "no adapters are recorded there")
    if loss.owed:
        page.line("  ", ("✕ ", "red"), f"will no longer be unloaded there: {sentence(loss.owed)}")
    if loss.adapters:
        kept = "`garrison adapters gc` may free their files"
        page.line("  ", ("· ", "dim"), (f"if it comes back, it still serves them, unmanaged; {kept}", "dim"))
    for stack in loss.declared_by:
        page.line(
            "  ",
            ("! ", "yellow"),
            f"the manifest of {stack} declared it: remove it there, or the next apply brings it back",
        )
