"""`garrison history`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from garrison.base.errors import UsageError
from garrison.cli.fleet.on_record import OnRecord
from garrison.cli.fleet.options import Stack
from garrison.cli.json_answer import line
from garrison.cli.options import Json, ServerUrl
from garrison.cli.options import app as make_app

if TYPE_CHECKING:
    from garrison.fleet.management.operations import StackOperations
    from garrison.fleet.management.requests import HistoryFilter
    from garrison.store.records import Event

app = make_app("Show what changed and what was done, with times.")


@app.command(cls=OnRecord)
def history(
    stack: Stack = None,
    target: Annotated[str | None, typer.Option("--target", "-t", metavar="NAME", help="Only this target.")] = None,
    name: Annotated[str | None, typer.Option("--name", "-n", metavar="NAME", help="Only this adapter.")] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", "-k", metavar="KIND", help="Only this kind of event: drift, restored, unreachable …; repeatable."
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="WHEN", help="Only events since 2h, 15m, 3d ago, or a time (UTC).")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, help="How many events to show, the newest.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", help="Keep showing new events until Ctrl-C.")] = False,
    server: ServerUrl = None,
    json: Json = False,
) -> int:
    """Show what changed and what was done, newest last.

    Covers every change of an observation and every action, with its time (UTC)
    and cause. --json prints one line per event.
    """
    from garrison.cli.fleet.wiring import INTERRUPTED, Stop, open_stacks, run
    from garrison.cli.views.age import parse_since
    from garrison.cli.views.history import show_event
    from garrison.cli.views.page import Page
    from garrison.fleet.hooks.queues import event_json
    from garrison.fleet.management.requests import HistoryFilter

    kinds = _kinds(kind)
    page = Page()

    def show(event: "Event") -> None:
        if json:
            print(line(event_json(event)), flush=True)
        else:
            show_event(event, page)
            page.flush()

    with open_stacks(server) as operations:
        begin = parse_since(since, operations.now()) if since else None
        chosen = HistoryFilter(stack=stack, target=target, name=name, kinds=kinds, since=begin)
        found = run(operations.history(chosen, limit=limit))
        for event in found:
            show(event)
        if not found and not json and not follow:
            page.line("Nothing on record" + (" since then." if since else "."))
        if follow:
            try:
                run(_follow(operations, chosen, found[-1].id if found else 0, show), Stop())
            except KeyboardInterrupt:
                return INTERRUPTED
    return 0


async def _follow(
    operations: "StackOperations", chosen: "HistoryFilter", after_id: int, show: "Callable[[Event], None]"
) -> None:
    async for event in operations.follow(chosen, after_id=after_id):
        show(event)


def _kinds(given: list[str] | None) -> tuple[str, ...] | None:
    """Check the values of `--kind`; None stands for all kinds."""
    import difflib

    from garrison.fleet.values import events

    known = sorted(getattr(events, name) for name in events.__all__ if isinstance(getattr(events, name), str))
    for one in given or ():
        if one not in known:
            close = difflib.get_close_matches(one, known, 1)
            hint = f"Did you mean {close[0]}?" if close else f"Kinds of events: {', '.join(known)}."
            raise UsageError(f"unknown kind of event {one!r}", hint=hint)
    return tuple(given) if given else None
