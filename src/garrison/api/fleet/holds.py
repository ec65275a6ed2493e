"""What a command on this machine, which changes adapters or routes, asks of the gateway."""

import asyncio
import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from garrison.api.problems import problems
from garrison.api.services import Services, services
from garrison.base.errors import NotFoundError, NotReadyError
from garrison.base.logs import logger
from garrison.fleet.adapter_traffic import AdapterTraffic

__all__ = ["AdapterHolds", "router"]

_log = logger(__name__)

_LONGEST_SECONDS = 60.0
"""A command that was killed holds nothing up for longer."""
_MOST = 1000

router = APIRouter(prefix="/api/v1", tags=["fleet"], responses=problems())

Given = Annotated[Services, Depends(services)]
Name = Annotated[str, Path(max_length=200)]


class HoldBody(BaseModel):
    """Which adapter, and for how long to wait."""

    model_config = ConfigDict(extra="forbid")

    adapter: str = Field(min_length=1, max_length=300, description="What the target calls it.")
    seconds: float = Field(5.0, ge=0, le=30, description="How long to wait for the last request to it.")


class Hold(BaseModel):
    """What was begun."""

    id: str
    unused: bool = Field(description="No request to the adapter is in progress.")


class AdapterHolds:
    """The holds of callers, each of a minute at most. Belongs to one event loop."""

    def __init__(self, traffic: AdapterTraffic) -> None:
        self._traffic = traffic
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    async def begin(self, target: str, adapter: str, seconds: float) -> tuple[str, bool]:
        """Keep requests away; return a name for that, and whether none is in progress any more.

        Raises:
            NotReadyError: there are too many holds, or the server ends.
        """
        if self._closing:
            raise NotReadyError("the server is shutting down", hint="Try again when it is back.")
        if len(self._ends) >= _MOST:
            raise NotReadyError("too many adapters are held at a time", hint="Try again later.")
        number = secrets.token_hex(8)
        entered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._ends[number] = asyncio.Event()
        task = asyncio.create_task(self._hold(number, target, adapter, seconds, entered), name=f"hold {adapter}")
        self._tasks.add(task)
        task.add_done_callback(lambda one: self._ended(one, number, entered))
        try:
            return number, await entered
        except asyncio.CancelledError:
            if (end := self._ends.get(number)) is not None:
                end.set()  # nobody knows its name
            raise

    async def follow(self) -> None:
        """Return when requests go by everything that is on record."""
        await self._traffic.follow()

    def end(self, number: str) -> None:
        """Let requests come back. Raises NotFoundError."""
        if (end := self._ends.get(number)) is None:
            raise NotFoundError("there is no such hold", hint="It ends by itself after a minute.")
        end.set()

    async def shutdown(self) -> None:
        """Let all requests come back, and begin no further hold."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    async def _hold(
        self, number: str, target: str, adapter: str, seconds: float, entered: "asyncio.Future[bool]"
    ) -> None:
        try:
            async with self._traffic.leaving(target, adapter, seconds) as unused:
                if not entered.done():
                    entered.set_result(unused)
                async with asyncio.timeout(_LONGEST_SECONDS):
                    await self._ends[number].wait()
        except TimeoutError:
            pass

    def _ended(self, task: "asyncio.Task[None]", number: str, entered: "asyncio.Future[bool]") -> None:
        """A hold has ended, or was cancelled before it began."""
        self._tasks.discard(task)
        del self._ends[number]
        if not entered.done():
            entered.set_result(False)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("an adapter was not held", exception=error)


@router.post("/targets/{name}/holds", responses=problems(503))
async def begin_hold(given: Given, name: Name, wish: HoldBody) -> Hold:
    """Send no further request to an adapter, which is about to be unloaded, and wait for the last one.

    Requests go to another version of it, or wait. It ends with the `DELETE`, and after a minute by itself.
    """
    number, unused = await given.holds.begin(name, wish.adapter, wish.seconds)
    return Hold(id=number, unused=unused)


@router.delete("/targets/{name}/holds/{hold}", status_code=204, responses=problems(404))
async def end_hold(given: Given, name: Name, hold: Annotated[str, Path(max_length=100)]) -> Response:
    """Let requests come back."""
    given.holds.end(hold)
    return Response(status_code=204)


@router.post("/routes/refresh", status_code=204)
async def refresh_routes(given: Given) -> Response:
    """Return when requests go by everything that is on record: by what was applied before, that is.

    The server notices that by itself; a command beside it calls this to be done when it is so.
    """
    await given.holds.follow()
    return Response(status_code=204)
