"""`GET /v1/models`: what the caller may use."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from garrison.base.errors import GarrisonError
from garrison.gateway.requests.paths import Asked, Kind
from garrison.gateway.worker.router import status_of

if TYPE_CHECKING:
    from garrison.gateway.worker.inbound import Inbound, Request
    from garrison.gateway.worker.plane import Plane
    from garrison.gateway.worker.targets import Route

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
            body = msgspec.json.encode(_models(self._plane, self._request, self._asked))
        except GarrisonError as error:
            self._inbound.refuse(error)
            return
        self._inbound.answer(200, _JSON, body)


def _models(plane: "Plane", request: "Request", asked: Asked) -> Mapping[str, Any]:
    """Return what is listed for a caller. Raises GarrisonError."""
    who, callers = plane.require_caller(request), plane.callers
    routes = plane.table.routes
    if asked.kind is Kind.MODELS:
        listed = (one for one in routes.values() if one.value.listed)
        return {"object": "list", "data": [_entry(one) for one in listed if callers.may_use(who, one.value)]}
    found = routes.get(asked.name)
    if found is None or not found.value.bare or not callers.may_use(who, found.value):
        raise plane.unknown(request, asked.name)
    return _entry(found)


def _entry(route: "Route") -> dict[str, Any]:
    value = route.value
    told = {"id": value.name, "object": "model", "created": value.created, "owned_by": value.owned_by, **value.facts}
    return told | {"status": status_of(value.facts.get("state"))}
