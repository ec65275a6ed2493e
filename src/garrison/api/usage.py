"""`/api/v1/usage`: requests and tokens by day, key and route."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from functools import reduce
from operator import add
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from garrison.api.problems import problems
from garrison.api.services import Services, services
from garrison.base.errors import InvalidError
from garrison.store.usage_store import NO_KEY, Usage, UsageBy, UsageRow

__all__ = ["router"]

_DAYS = 30
_MOST_ROWS = 10_000

router = APIRouter(prefix="/api/v1", tags=["traffic"], responses=problems())

Given = Annotated[Services, Depends(services)]


@router.get("/usage")
async def usage(
    given: Given,
    from_: Annotated[date | None, Query(alias="from", description="First day, in UTC; 30 days ago by default.")] = None,
    to: Annotated[date | None, Query(description="Last day, included; today by default.")] = None,
    key: Annotated[int | None, Query(ge=0, le=2**53, description="Id of a key; 0 for requests without one.")] = None,
    route: Annotated[str | None, Query(max_length=300, description="Name of a route or an instance.")] = None,
    group_by: Annotated[
        str, Query(max_length=100, description="What sums are split by: some of day, key, route, with commas.")
    ] = "day,key,route",
) -> dict[str, Any]:
    """What was used: `rows` of sums, and their `total`. Tokens are those that the engines named.

    `failed` were answered with an error, stopped, or broken off by their engine; `client_left` before their answer was
    complete; `uncounted` succeeded without saying what they used. `truncated` says that there are more rows.
    """
    today = given.clock.now().date()
    last = to or today
    first = from_ or date.fromordinal(max(1, last.toordinal() - _DAYS))
    by = _by(group_by)
    rows = await given.traffic.usage(first, last, by=by, key_id=key, route=route, limit=_MOST_ROWS + 1)
    whole = await given.traffic.usage(first, last, by=(), key_id=key, route=route)
    names = {one.id: one.name for one in await given.keys.list_keys()} if UsageBy.KEY in by else {}
    return {
        "from": first.isoformat(),
        "to": last.isoformat(),
        "group_by": [str(one) for one in by],
        "rows": [_shown(one, by, names) for one in rows[:_MOST_ROWS]],
        "total": asdict(reduce(add, (one.usage for one in whole), Usage())),
        "truncated": len(rows) > _MOST_ROWS,
    }


def _by(text: str) -> list[UsageBy]:
    try:
        wanted = {UsageBy(one.strip()) for one in text.split(",") if one.strip()}
    except ValueError:
        raise InvalidError(f"group_by {text!r} is not known", hint="Name some of day, key, route.") from None
    return [one for one in UsageBy if one in wanted]


def _shown(row: UsageRow, by: list[UsageBy], names: Mapping[int, str]) -> dict[str, Any]:
    """Return a row as JSON. A key that was deleted has no name, and requests without a key have no id."""
    found: dict[str, Any] = {}
    if row.day is not None:
        found["day"] = row.day.isoformat()
    if UsageBy.KEY in by:
        found["key_id"] = None if row.key_id == NO_KEY else row.key_id
        found["key_name"] = names.get(row.key_id or NO_KEY)
    if row.route is not None:
        found["route"] = row.route
    return found | asdict(row.usage)
