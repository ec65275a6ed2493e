"""`garrison agent`."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from garrison.base.errors import UsageError
from garrison.base.exit_codes import ExitCode
from garrison.base.invalid_values import in_our_words
from garrison.base.logs import logger
from garrison.cli.fleet.on_record import OnRecord
from garrison.cli.log import opened_log, shows_view
from garrison.cli.options import Json, Log, settings
from garrison.cli.options import app as make_app
from garrison.cli.signals import Wishes

if TYPE_CHECKING:
    from garrison.cli.views.agent import AgentView, SilentAgentView
    from garrison.fleet.agent.loop import Agent
    from garrison.fleet.context import Fleet

app = make_app("Keep the fleet as declared, on a timer.")

_GRACE_SECONDS = 30.0

_log = logger(__name__)


@app.command(cls=OnRecord)
def agent(
    interval: Annotated[
        str | None,
        typer.Option(
            "--interval",
            metavar="TIME",
            help="Time between two looks at a target: 10s, 1m. Default: as its stacks declare.",
        ),
    ] = None,
    stack: Annotated[
        list[str] | None, typer.Option("--stack", "-s", metavar="NAME", help="Only these stacks; repeatable.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look at every target once, do what is due, and exit.")] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            metavar="PORT",
            min=1,
            max=65535,
            help="Answer GET /health and GET /metrics (Prometheus) on this port of 127.0.0.1.",
        ),
    ] = None,
    log: Log = None,
    json: Json = False,
) -> int:
    """Keep the fleet as it was last applied.

    Looks at every target on a timer, carries out owed actions, and repairs drift
    where a stack's policy is `on_drift: restore`. Prints one line per event, or one
    for several at a time that are alike; with --json always one each.
    `garrison status` shows who keeps the fleet, and when it last looked.

    SIGTERM or Ctrl-C stops the agent after work in progress. A second one stops
    it now; the next start settles the actions this interrupts. With --once the
    exit code is 30 when an action failed, and 31 when a target is out of reach or
    cannot load an adapter that is missing there.
    """
    import uvloop

    from garrison.cli.fleet.wiring import open_fleet
    from garrison.cli.views.agent import AgentView, SilentAgentView

    if once and metrics_port is not None:
        raise UsageError("--once and --metrics-port are mutually exclusive", hint="One pass ends before it is scraped.")
    seconds = None if interval is None else _seconds(interval)
    values = settings("fleet", "log", log_format=log)
    options = {"interval": seconds, "stacks": stack, "once": once, "database": values.database}
    with (
        opened_log(values, "agent", **options) as logged,
        open_fleet() as fleet,
        # uvloop makes a cycle over thousands of targets a third cheaper.
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        view = AgentView(fleet.clock, json=json, once=once) if json or shows_view(logged) else SilentAgentView()
        return runner.run(
            _run(
                fleet, view, interval=seconds, stacks=stack, once=once, retention=values.retention,
                metrics_port=metrics_port,
            )
        )  # fmt: skip


def _seconds(text: str) -> float:
    """Parse `--interval` like the manifest's `interval`; return seconds.

    Raises:
        UsageError: `text` is not a duration, or one that is too short or too long.
    """
    from pydantic import TypeAdapter, ValidationError

    from garrison.fleet.manifest.fields import Interval

    try:
        return TypeAdapter[float](Interval).validate_python(text)
    except ValidationError as error:
        one = error.errors()[0]
        said = in_our_words(one["type"], one["msg"], one.get("ctx"))
        raise UsageError(f"--interval {text!r}: {said}", hint="For example 10s or 1m.") from None


async def _run(
    fleet: "Fleet",
    view: "AgentView | SilentAgentView",
    *,
    interval: float | None,
    stacks: list[str] | None,
    once: bool,
    retention: int,
    metrics_port: int | None,
) -> int:
    from garrison.cli.fleet.wiring import INTERRUPTED
    from garrison.fleet.agent.log import AgentLog
    from garrison.fleet.agent.loop import Agent
    from garrison.fleet.hooks.delivery import HookDelivery
    from garrison.fleet.hooks.queues import Hooks
    from garrison.fleet.observe.kept_connections import lasting_observer
    from garrison.net.secrets import Secrets

    logged = AgentLog(view, view.event)
    hooks = Hooks(HookDelivery(fleet.dialer, Secrets()), clock=fleet.clock, note=logged.note)
    with lasting_observer(fleet) as observer:
        made = Agent(
            fleet,
            logged,
            on_event=logged.event,
            hooks=hooks,
            interval=interval,
            stacks=stacks,
            retention=timedelta(days=retention),
            observer=observer,
        )
        async with _asked_on(metrics_port, made, fleet):
            forced = await _until_stopped(fleet, made, view, once=once)
    _log.info("stopped", forced=forced, output_dropped=view.dropped, **made.state.facts())
    if not once:
        view.note("stopped now; the next start settles interrupted actions" if forced else "stopped")
    view.end()
    if forced:
        return INTERRUPTED
    return _exit_code(made) if once else ExitCode.OK


@asynccontextmanager
async def _asked_on(port: int | None, made: "Agent", fleet: "Fleet") -> AsyncIterator[None]:
    """Answer about the agent on a port of loopback, if there is one."""
    if port is None:
        yield
        return
    from garrison.fleet.agent.metrics import AgentMetrics, health
    from garrison.fleet.agent.port import AgentPort

    since = fleet.clock.now()
    listener = AgentPort(
        lambda: health(made.state, fleet.clock.monotonic(), since), AgentMetrics(made.state, since).text
    )
    await listener.listen(port)
    _log.info("listening", url=f"http://127.0.0.1:{listener.number}/metrics")
    try:
        yield
    finally:
        await listener.close()


async def _until_stopped(fleet: "Fleet", made: "Agent", view: "AgentView | SilentAgentView", *, once: bool) -> bool:
    """Run the agent from startup to shutdown; return whether a second signal forced it to stop."""
    loop = asyncio.get_running_loop()
    work = asyncio.create_task(_work(fleet, made, view, once=once))
    ending = asyncio.create_task(_ending(made, work))
    wishes = Wishes()

    def signalled(number: signal.Signals) -> None:
        if not wishes.heard():
            return
        if wishes.number > 1:
            # Skips the rest of `shutdown`. Actions in flight are marked as started in the store, which is how the next
            # start finds and settles them.
            _log.warning("stopping now; the next start settles interrupted actions", signal=number.name)
            ending.cancel()
            return
        _log.info("stopping after work in progress", signal=number.name)
        view.note("stopping after work in progress; signal again to stop now")
        made.request_stop()
        if once:
            # `once()` runs until nothing is due and does not check for a stop request; `shutdown` still finishes the
            # actions in progress.
            work.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signalled, number)
    try:
        await ending
    except asyncio.CancelledError:
        if wishes.number < 2:  # cancelled from outside, not by a second signal
            raise
        return True
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    return False


async def _work(fleet: "Fleet", made: "Agent", view: "AgentView | SilentAgentView", *, once: bool) -> None:
    from garrison.base.garbage import keep_out_of_collections
    from garrison.cli.views.agent import at_work
    from garrison.cli.views.page import counted
    from garrison.cli.views.status import nothing_applied
    from garrison.fleet.report.inspect import agents_of, last_destroyed

    await made.startup()
    view.first_pass(made.state.targets)
    if not made.state.stacks:
        said = nothing_applied(await last_destroyed(fleet), fleet.clock.now())
        view.note(said)
        _log.warning(said)
    if once:
        for one in await agents_of(fleet, None):
            if one.state == "working":
                view.note(at_work(one, fleet.clock.now()))
        await made.once()
        return
    keep_out_of_collections()
    watched = f"{counted(made.state.targets, 'target')} in {counted(made.state.stacks, 'stack')}"
    view.note(f"watching {watched}")
    _log.info("watching", stacks=made.state.stacks, targets=made.state.targets)
    await made.main_loop()


async def _ending(made: "Agent", work: "asyncio.Task[None]") -> None:
    """Wait for `work`, then shut the agent down, also after an error of `work`, which is raised last."""
    await asyncio.wait([work])
    await made.shutdown(_GRACE_SECONDS)
    if not work.cancelled():
        work.result()


def _exit_code(made: "Agent") -> ExitCode:
    if made.state.failed:
        return ExitCode.APPLY_FAILED
    return ExitCode.UNREACHABLE if made.state.out_of_reach else ExitCode.OK
