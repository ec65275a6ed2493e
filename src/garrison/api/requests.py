"""`/api/v1/requests`: requests to models in progress, and their end; `/activity`, `/captures`: what they were."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Response

from garrison.api.problems import problems
from garrison.api.services import Services, services
from garrison.base.errors import NotFoundError
from garrison.base.redaction import excerpt, is_secret_header, redacted, redacted_value
from garrison.gateway.activity import ActivityFilter
from garrison.gateway.link.reports import CAPTURE_MARGIN, CapturedMessage, FinishedValue, LiveValue

__all__ = ["router"]

_MOST_LIVE = 1000

router = APIRouter(prefix="/api/v1", tags=["traffic"], responses=problems(404))

Given = Annotated[Services, Depends(services)]


@router.get("/activity")
async def activity(
    given: Given,
    response: Response,
    before: Annotated[int | None, Query(ge=1, le=2**53, description="Older than the request of this number.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    route: Annotated[str | None, Query(max_length=300)] = None,
    key: Annotated[int | None, Query(ge=1, le=2**53, description="Id of a key.")] = None,
    failed: Annotated[bool, Query(description="Only those that did not go well.")] = False,
    since: Annotated[datetime | None, Query(description="Only those that came after this; UTC unless it says.")] = None,
) -> list[dict[str, Any]]:
    """Return requests to models that have ended, newest first. `Link` names the next page.

    As many are kept as the settings say, in memory: another server begins anew.
    """
    chosen = ActivityFilter(route=route, key_id=key, failed=failed, since=None if since is None else _unix(since))
    found = given.traffic.recent(chosen, before=before, limit=limit + 1)
    if len(found) > limit:
        filters = {"route": route, "key": key, "failed": failed or None, "since": since and since.isoformat()}
        query = {name: str(value) for name, value in filters.items() if value is not None}
        more = urlencode({"limit": limit, "before": found[limit - 1].number} | query)
        response.headers["Link"] = f'<?{more}>; rel="next"'
    names = await _names(given)
    return [{"number": one.number} | _shown(one.request, names) for one in found[:limit]]


@router.get("/requests")
async def in_progress(given: Given) -> dict[str, Any]:
    """Return the requests in progress, oldest first, at most 1000; `more` counts the others.

    `silent` counts the workers of the gateway that did not answer in time, whose requests are missing.
    """
    found, more, silent = await given.traffic.live(_MOST_LIVE)
    names = await _names(given)
    return {"requests": [_shown(one, names) for one in found], "more": more, "silent": silent}


@router.delete("/requests/{id}", status_code=204)
async def stop(given: Given, id: Annotated[str, Path(max_length=100)]) -> None:
    """End a request in progress, at its target as well. A client that has no answer yet gets a 499."""
    if not await given.traffic.stop(id):
        raise NotFoundError(f"no request {id!r} is in progress", hint="GET /api/v1/requests lists them.")


@router.get("/captures/{id}")
async def capture(given: Given, id: Annotated[str, Path(max_length=100)]) -> dict[str, Any]:
    """Return what is kept of a request and its answer: heads without credentials, and the beginnings of bodies.

    Only a key that manages may, and it is on record. `gateway_captures` says how many are kept; none by default.
    """
    found = given.traffic.capture(id)
    if found is None:
        raise NotFoundError(f"nothing is kept of request {id!r}", hint="GARRISON_GATEWAY_CAPTURES says of how many.")
    answer = None if found.answer is None else _message(found.answer)
    return {"id": found.id, "request": _message(found.request), "answer": answer}


def _message(one: CapturedMessage) -> dict[str, Any]:
    """Return a message without secrets. A body that is no text is left out."""
    truncated = len(one.body) < one.size
    try:
        text = one.body.decode(errors="ignore" if truncated else "strict")
    except UnicodeDecodeError:
        text = "\0"
    body = None if "\0" in text else excerpt(text, len(text) - CAPTURE_MARGIN if truncated else len(text))
    shown = [(name, value) for name, value in one.headers if not is_secret_header(name)]
    head = {"start": redacted(one.start), "headers": redacted_value(shown)}
    return {**head, "body": body, "size": one.size, "truncated": truncated}


async def _names(given: Services) -> Mapping[int, str]:
    return {one.id: one.name for one in await given.keys.list_keys()}


def _shown(one: FinishedValue | LiveValue, names: Mapping[int, str]) -> dict[str, Any]:
    found = msgspec.structs.asdict(one)
    found["at"] = datetime.fromtimestamp(one.at, UTC).isoformat(timespec="milliseconds")
    found["key_name"] = None if one.key_id is None else names.get(one.key_id)
    if isinstance(one, FinishedValue):
        found["tokens"] = None if one.tokens is None else dict(zip(("in", "out", "cached"), one.tokens, strict=True))
    return found


def _unix(at: datetime) -> float:
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
