"""`GET /v1/models`: what the caller may use, in the shape that it reads: OpenAI's, or Anthropic's."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from garrison.base.errors import GarrisonError
from garrison.gateway.requests.paths import Asked, Kind
from garrison.gateway.worker.table.router import status_of

if TYPE_CHECKING:
    from garrison.gateway.worker.connections.inbound import Inbound, Request
    from garrison.gateway.worker.plane import Plane
    from garrison.gateway.worker.table.targets import Route

__all__ = ["Listing"]

_JSON = [(b"content-type", b"application/json")]


class Listing:
    """`Work` for one list. What has just been created is in it, so the control process is asked first."""

    def __init__(self, plane: "Plane", inbound: "Inbound", request: "Request", asked: Asked) -> None:
        self._plane, self._inbound, self._request, self._asked = plane, inbound, request, asked

    def body(self, piece: bytes) -> None: ...

    def body_end(self) -> None:
        if not self._plane.sync(self._answer):
            self._answer()

    def cancel(self) -> None: ...
    def pause(self, paused: bool) -> None: ...

    def _answer(self) -> None:
        if self._inbound.work is not self:
            return
        try:
            told = _models(self._plane, self._request, self._asked)
        except GarrisonError as error:
            self._inbound.refuse(error)
            return
        if _is_anthropic(self._request):
            told = _as_anthropic(told)
        self._inbound.answer(200, _JSON, msgspec.json.encode(told))


def _is_anthropic(request: "Request") -> bool:
    """Whether the client says which version of Anthropic's API it speaks; all of Anthropic's own do."""
    return any(len(name) == 17 and name.lower() == b"anthropic-version" for name, _ in request.headers)


def _as_anthropic(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a model, or all on one page, as Anthropic's clients read them."""
    if "data" not in told:
        created = datetime.fromtimestamp(told["created"], UTC)
        named = {"type": "model", "id": told["id"], "display_name": told["id"]}
        return named | {"created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"), "lifecycle": "active"}
    data = [_as_anthropic(one) for one in told["data"]]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"data": data, "has_more": False, **ends}


def _models(plane: "Plane", request: "Request", asked: Asked) -> Mapping[str, Any]:
    """Return what is listed for a caller. Raises GarrisonError."""
    who, callers = plane.require_caller(request), plane.callers
    routes = plane.table.routes
    if asked.kind is Kind.MODELS:
        listed = ((name, one) for name, one in routes.items() if one.value.listed)
        data = [_entry(name, one) for name, one in listed if callers.may_use(who, one.value, name)]
        return {"object": "list", "data": data}
    found = routes.get(asked.name)
    if found is None or not found.value.bare or not callers.may_use(who, found.value, asked.name):
        raise plane.unknown(request, asked.name)
    return _entry(asked.name, found)


def _entry(name: str, route: "Route") -> dict[str, Any]:
    value = route.value
    told = {"id": name, "object": "model", "created": value.created, "owned_by": value.owned_by, **value.facts}
    return told | {"status": status_of(value.facts.get("state"))}
