"""Health, version, settings, events, and the end of the server."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel

from garrison import __version__
from garrison.api.feed import FeedEvent
from garrison.api.instances.shown import shown
from garrison.api.problems import problems
from garrison.api.services import Services, services
from garrison.api.sse import EVENTS, EventStream
from garrison.base.settings import Settings

__all__ = ["health", "router"]

health = APIRouter(tags=["health"])
router = APIRouter(prefix="/api/v1", tags=["system"], responses=problems())

Given = Annotated[Services, Depends(services)]


@health.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> str:
    """The process answers."""
    return "ok\n"


@health.get("/readyz", responses={503: {"description": "The server is still starting, or ends."}})
async def readyz(given: Given) -> Response:
    """The server has adopted what ran, and takes requests."""
    why = given.ready()
    return JSONResponse({"ready": not why, "reason": why}, 503 if why else 200)


@router.get("/version", response_class=PlainTextResponse)
async def version() -> str:
    """The version, as text."""
    return f"Version: {__version__}\n"


@router.get("/config")
async def config(given: Given) -> dict[str, Any]:
    """The settings in force and where each came from, without secrets."""
    values = given.settings
    return {
        row.name: {
            "value": _shown(values, row.name, secret=row.secret),
            "from": values.origins.get(row.name, "default"),
            "group": row.group,
        }
        for row in Settings.table()
    }


def _shown(values: Settings, name: str, *, secret: bool) -> Any:
    value = getattr(values, name)
    if secret:
        return "set" if value else "unset"
    return value if isinstance(value, str | int | float | bool | tuple | None) else str(value)


@router.get("/events", response_class=EventStream, responses=EVENTS)
async def events(
    given: Given, last_event_id: Annotated[str, Header(description="Resume after this event.")] = ""
) -> EventStream:
    """A stream of server-sent events: a snapshot of all instances, then each change as it happens.

    A reader that comes back with `Last-Event-ID` gets what it missed, or a new snapshot where that is no longer kept.
    """
    return EventStream(_events(given, last_event_id))


async def _events(given: Services, last: str) -> AsyncIterator[FeedEvent]:
    if not last or not given.feed.can_resume(last):
        last = given.feed.position
        yield FeedEvent(last, "snapshot", {"instances": [shown(one, given) for one in given.instances.list()]})
    async for one in given.feed.read(last):
        yield one


class ShutDown(BaseModel):
    """How the server ends."""

    instances: bool = False
    """Stop the instances, too; without it they go on, and the next server adopts them."""


@router.post("/shutdown", status_code=202)
async def shut_down(given: Given, wish: ShutDown | None = None) -> dict[str, bool]:
    """End the server after this answer."""
    stop = wish is not None and wish.instances
    given.shut_down(stop)
    return {"instances": stop}
