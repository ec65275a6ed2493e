"""`GET /v1/models`: what the caller may use."""

from typing import TYPE_CHECKING

from garrison.base.errors import GarrisonError
from garrison.gateway.answers import encoded

if TYPE_CHECKING:
    from garrison.gateway.worker.inbound import Inbound, Request
    from garrison.gateway.worker.plane import Plane

__all__ = ["Listing"]


class Listing:
    """`Work` for one list. What has just been created is in it, so the control process is asked first."""

    def __init__(self, plane: "Plane", inbound: "Inbound", request: "Request", path: str) -> None:
        self._plane, self._inbound, self._request, self._path = plane, inbound, request, path

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
            body = encoded(self._plane.models(self._request, self._path))
        except GarrisonError as error:
            self._inbound.refuse(error)
            return
        self._inbound.answer(200, {"content-type": "application/json"}, body)
