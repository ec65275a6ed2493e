"""`GET /v1/models`: what the caller may use."""

from typing import TYPE_CHECKING

import msgspec

from garrison.base.errors import GarrisonError
from garrison.gateway.requests.paths import Asked

if TYPE_CHECKING:
    from garrison.gateway.worker.inbound import Inbound, Request
    from garrison.gateway.worker.plane import Plane

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
            body = msgspec.json.encode(self._plane.models(self._request, self._asked))
        except GarrisonError as error:
            self._inbound.refuse(error)
            return
        self._inbound.answer(200, _JSON, body)
