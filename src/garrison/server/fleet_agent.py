"""The fleet agent inside the server: the same loop as `garrison agent`, reporting to the log alone."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta

from garrison.base.logs import logger
from garrison.fleet.agent.log import AgentLog
from garrison.fleet.agent.loop import Agent
from garrison.fleet.context import Fleet
from garrison.fleet.hooks.delivery import HookDelivery
from garrison.fleet.hooks.queues import Hooks
from garrison.fleet.observe.kept_connections import lasting_observer
from garrison.fleet.operations.repair import Repaired
from garrison.fleet.values.observation import Sighting
from garrison.fleet.values.view import SilentView
from garrison.net.secrets import Secrets

__all__ = ["FleetAgent"]

_GRACE_SECONDS = 10.0

_log = logger(__name__)


class _Watching(SilentView):
    """A view that shows nothing, and hands over what was seen."""

    def __init__(self, seen: Callable[[Sighting], None]) -> None:
        self._seen = seen

    def observed(self, sighting: Sighting) -> None:
        self._seen(sighting)


class FleetAgent:
    """Keeps the targets of the stacks of this database as they were declared, while the server runs.

    Args:
        seen: called with what was seen of a target, if that may be news.
        repaired: called with the result of each repair.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        retention: timedelta,
        seen: Callable[[Sighting], None] = lambda _seen: None,
        repaired: Callable[[Repaired], None] = lambda _result: None,
    ) -> None:
        self._fleet = fleet
        self._seen, self._repaired = seen, repaired
        self._retention = retention
        self._open = contextlib.ExitStack()
        self._agent: Agent | None = None
        self._work: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Begin the loop."""
        logged = AgentLog(_Watching(self._seen))
        hooks = Hooks(HookDelivery(self._fleet.dialer, Secrets()), clock=self._fleet.clock, note=logged.note)
        observer = self._open.enter_context(lasting_observer(self._fleet))
        self._agent = Agent(
            self._fleet, logged, on_event=self._event, hooks=hooks, retention=self._retention, observer=observer,
            on_repaired=self._repaired,
        )  # fmt: skip
        await self._agent.startup()
        self._work = asyncio.create_task(self._agent.main_loop(), name="fleet agent")

    def look_now(self, target: str) -> None:
        """Look at a target without delay."""
        if self._agent is not None:
            self._agent.look_now(target)

    def _event(self, event: object) -> None:
        """The history is told by its own bus."""

    async def shutdown(self) -> None:
        """Finish the action in progress, within a limit."""
        if self._agent is None or self._work is None:
            return
        self._agent.request_stop()
        await asyncio.wait([self._work], timeout=_GRACE_SECONDS)
        self._work.cancel()
        await self._agent.shutdown(_GRACE_SECONDS)
        self._open.close()
