"""Where requests for a stored response go: to the target that made it, or to the few that may have."""

from collections.abc import Iterator
from itertools import islice

from garrison.access.book import Refusal
from garrison.access.identity import Identity
from garrison.base.errors import NotFoundError
from garrison.gateway.link.messages import RouteValue
from garrison.gateway.requests.paths import Asked, path_at
from garrison.gateway.worker.table.callers import Callers
from garrison.gateway.worker.table.stored_responses import StoredResponses
from garrison.gateway.worker.table.targets import Route, RouteTable, Target

__all__ = ["response_route"]

_MOST_ASKED = 8
_MOST_LOOKED_AT = 64
"""Targets, and routes of each, that are considered for a response that nobody here has seen."""


def response_route(
    table: RouteTable, callers: Callers, responses: StoredResponses, who: Identity | Refusal, asked: Asked
) -> Route:
    """Return a route over the target that has a response; where that is not known, over those that may have it.

    Raises:
        NotFoundError: nothing that the caller may use has it.
    """
    known = responses.find(asked.name)
    found: list[str] = []
    name = ""
    if known is not None:
        route = table.find(known.model)
        target = table.targets.get(known.target)
        if route is not None and target is not None and _may_ask(table, callers, who, route[0], known.model, target):
            found, name = [target.id] if target.open else [], route[0].name
    else:
        found = [one.id for one in islice(_may_have(table, callers, who, asked), _MOST_ASKED)]
    if not found:
        raise NotFoundError(f"no response {asked.name!r} is stored", hint="It may have expired; ask for a new one.")
    return Route(RouteValue(name=name, targets=tuple(found), policy="pin"), table.targets)


def _may_ask(
    table: RouteTable, callers: Callers, who: Identity | Refusal, route: Route, model: str, target: Target
) -> bool:
    """Whether a caller may use the route of a response, and its target, which that route may not have any more."""
    if not callers.may_use(who, route.value, model):
        return False
    return target.id in route.value.targets or _may_use_through(table, callers, who, target)


def _may_use_through(table: RouteTable, callers: Callers, who: Identity | Refusal, target: Target) -> bool:
    return any(callers.may_use(who, one.value) for one in islice(table.through(target), _MOST_LOOKED_AT))


def _may_have(table: RouteTable, callers: Callers, who: Identity | Refusal, asked: Asked) -> Iterator[Target]:
    """Yield targets that run, know stored responses, and that the caller may use.

    Another server, which decides by itself, is asked only for a caller who may use everything.
    """
    for target in islice((one for one in table.targets.values() if one.open), _MOST_LOOKED_AT):
        value = target.value
        if value.hop and not callers.is_unlimited(who):
            continue
        known_there = value.hop or path_at(value.engine, asked) is not None
        if known_there and _may_use_through(table, callers, who, target):
            yield target
