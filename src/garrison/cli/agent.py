"""`garrison agent`."""

import asyncio
import signal
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from garrison.base.errors import UsageError
from garrison.base.exit_codes import ExitCode
from garrison.cli.on_record import OnRecord
from garrison.cli.options import Json, settings
from garrison.cli.options import app as make_app
from garrison.cli.signals import Wishes

if TYPE_CHECKING:
    from garrison.cli.agent_view import AgentView
    from garrison.fleet.agent import Agent
    from garrison.fleet.context import Fleet

app = make_app("Keep the fleet as it was declared, on a timer.")

_GRACE_SECONDS = 30.0


@app.command(cls=OnRecord)
def agent(
    interval: Annotated[
        str | None,
        typer.Option("--interval", metavar="TIME", help="Between two looks at a target: 10s, 1m; else its stacks say."),
    ] = None,
    stack: Annotated[
        list[str] | None, typer.Option("--stack", "-s", metavar="NAME", help="These stacks alone; repeatable.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once at everything, do what is due, and end.")] = False,
    json: Json = False,
) -> int:
    """Keep the fleet as it was last applied: look at every target on a timer, do what is owed, and mend drift where a
    stack's policy is `on_drift: restore`. Prints a line an event.

    SIGTERM or Ctrl-C ends what is under way first; a second one ends at once, and the next start settles what was cut
    short. With --once the exit code is 30 when something failed, and 31 when a target is out of reach or cannot load an
    adapter that is missing there.
    """
    import uvloop

    from garrison.cli.fleet_wiring import open_fleet

    seconds = None if interval is None else _seconds(interval)
    # The loop in C: a cycle over thousands of targets costs a third less.
    with open_fleet() as fleet, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(fleet, interval=seconds, stacks=stack, once=once, json=json))


def _seconds(text: str) -> float:
    """As the manifest's `interval`.

    Raises:
        UsageError: it is no time, or too short or long a one.
    """
    from pydantic import TypeAdapter, ValidationError

    from garrison.fleet.manifest.model import Interval

    try:
        return TypeAdapter[float](Interval).validate_python(text)
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(f"--interval {text!r}: {said[:1].lower()}{said[1:]}", hint="For example 10s or 1m.") from None


async def _run(fleet: "Fleet", *, interval: float | None, stacks: list[str] | None, once: bool, json: bool) -> int:
    from garrison.cli.agent_view import AgentView
    from garrison.cli.fleet_wiring import INTERRUPTED
    from garrison.fleet.agent import Agent
    from garrison.fleet.hook_delivery import HookDelivery
    from garrison.fleet.hooks import Hooks
    from garrison.net.secrets import Secrets

    view = AgentView(fleet.clock, json=json)
    hooks = Hooks(HookDelivery(fleet.dialer, Secrets()), clock=fleet.clock, note=view.note)
    made = Agent(
        fleet,
        view,
        on_event=view.event,
        hooks=hooks,
        interval=interval,
        stacks=stacks,
        retention=timedelta(days=settings("fleet").retention),
    )
    forced = await _until_stopped(made, view, once=once)
    if not once:
        view.note("stopped at once; the next start settles what was cut short" if forced else "stopped")
    view.end()
    if forced:
        return INTERRUPTED
    return _exit_code(made) if once else ExitCode.OK


async def _until_stopped(made: "Agent", view: "AgentView", *, once: bool) -> bool:
    """From its startup to its shutdown; whether that was by force."""
    loop = asyncio.get_running_loop()
    work = asyncio.create_task(_work(made, view, once=once))
    ending = asyncio.create_task(_ending(made, work))
    wishes = Wishes()

    def signalled() -> None:
        if not wishes.heard():
            return
        if wishes.number > 1:
            ending.cancel()
            return
        view.note("stopping: what is under way is ended first; once more stops at once")
        made.request_stop()
        if once:
            work.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signalled)
    try:
        await ending
    except asyncio.CancelledError:
        if wishes.number < 2:
            raise
        return True
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    return False


async def _work(made: "Agent", view: "AgentView", *, once: bool) -> None:
    from garrison.cli.page import counted

    await made.startup()
    view.first_pass(made.state.targets)
    if not made.state.stacks:
        view.note("nothing is applied yet: `garrison apply` first")
    if once:
        await made.once()
        return
    watched = f"{counted(made.state.targets, 'target')} of {counted(made.state.stacks, 'stack')}"
    view.note(f"watching {watched}")
    await made.main_loop()


async def _ending(made: "Agent", work: "asyncio.Task[None]") -> None:
    await asyncio.wait([work])
    await made.shutdown(_GRACE_SECONDS)
    if not work.cancelled():
        work.result()


def _exit_code(made: "Agent") -> ExitCode:
    if made.state.failed:
        return ExitCode.APPLY_FAILED
    return ExitCode.UNREACHABLE if made.state.out_of_reach else ExitCode.OK
