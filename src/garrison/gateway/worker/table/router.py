"""The calls of a llama-server that is a router: clients that know them show which models are loaded, and load them.

`GET /models` is the list of models, whose entries have `status.value`; `GET /models/sse` reports its changes as
`{"model", "event": "model_status", "data": {"status"}}`, one JSON object an event. `POST /models/load` begins a start
and returns; whoever may use a model may load it. `POST /models/unload` takes a key that manages.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from garrison.base.errors import GarrisonError
from garrison.gateway.requests.body_fields import read_fields
from garrison.gateway.requests.paths import LLAMA_ROUTER
from garrison.net.http1.writing import chunk

if TYPE_CHECKING:
    from garrison.gateway.worker.connections.inbound import Inbound, Request
    from garrison.gateway.worker.plane import Plane
    from garrison.gateway.worker.table.targets import End

__all__ = ["Feed", "LoadCall", "loaded_alone", "status_of"]

_JSON = [(b"content-type", b"application/json")]
_DONE = b'{"success":true}'
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n"
_PING_SECONDS = 15.0
_STATUS: Mapping[str, str] = {
    "running": "loaded", "draining": "loaded", "sleeping": "sleeping", "starting": "loading", "restarting": "loading",
}  # fmt: skip


def status_of(state: object) -> dict[str, object]:
    """Return the status of a model, from the state of its instance. What has none is always there."""
    if not state:
        return {"value": "loaded"}
    found: dict[str, object] = {"value": _STATUS.get(str(state), "unloaded")}
    return found | {"failed": True} if state == "failed" else found


def loaded_alone(end: "End", rest: str) -> str:
    """Return the one of a target's models that is loaded or unloaded; empty for the target as a whole.

    Args:
        rest: what follows the name of a route, as the client wrote it.
    """
    return rest or end.model if end.target.value.engine == LLAMA_ROUTER else ""


class LoadCall:
    """`Work` for one call that loads or unloads a model."""

    def __init__(self, plane: "Plane", inbound: "Inbound", request: "Request", *, load: bool) -> None:
        self._plane, self._inbound, self._request, self._load = plane, inbound, request, load
        self._pieces: list[bytes] = []

    def body(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def body_end(self) -> None:
        try:
            model = read_fields(b"".join(self._pieces)).model
            self._plane.load(self._request, model, load=self._load, then=self._done)
        except GarrisonError as error:
            self._inbound.refuse(error)

    def cancel(self) -> None: ...
    def pause(self, paused: bool) -> None: ...

    def _done(self, error: GarrisonError | None) -> None:
        if self._inbound.work is not self:
            return
        if error is not None:
            self._inbound.refuse(error)
        else:
            self._inbound.answer(200, _JSON, _DONE)


class Feed:
    """`Work` for one feed of changes. A client that reads slowly misses some rather than have them kept for it."""

    def __init__(self, plane: "Plane", inbound: "Inbound", request: "Request") -> None:
        self._plane, self._inbound, self._request = plane, inbound, request
        self._paused = False
        self.deadline = 0.0

    def body(self, piece: bytes) -> None: ...

    def body_end(self) -> None:
        try:
            self._plane.require_caller(self._request)
        except GarrisonError as error:
            self._inbound.refuse(error)
            return
        self._inbound.begun = True
        framing = b"connection: close\r\n" if self._request.http10 else b"transfer-encoding: chunked\r\n"
        self._inbound.send(_HEAD + framing + b"\r\n")
        self._plane.feeds.add(self)
        self.expired()

    def sees(self, model: str) -> bool:
        """Whether its reader may see a model."""
        return self._plane.sees(self._request, model)

    def changed(self, model: str, state: object) -> None:
        """Report a change, if its reader may see the model."""
        if self.sees(model):
            status = status_of(state)
            data = {"status": status["value"]} | ({"exit_code": 1} if "failed" in status else {})
            self._send(b"data: " + msgspec.json.encode({"model": model, "event": "model_status", "data": data}))

    def gone(self, model: str) -> None:
        """Report that a model is no longer there. Only the caller knows whether its reader saw it."""
        self._send(b"data: " + msgspec.json.encode({"model": model, "event": "model_remove", "data": {}}))

    def expired(self) -> None:
        """Say that the connection lives, and again after a while."""
        self._send(b": ping")
        self.deadline = self._plane.now() + _PING_SECONDS
        self._plane.timed(self)

    def end(self) -> None:
        """The worker ends."""
        self._inbound.close()

    def cancel(self) -> None:
        self._plane.feeds.discard(self)
        self._plane.ended(self)

    def pause(self, paused: bool) -> None:
        self._paused = paused

    def _send(self, event: bytes) -> None:
        if not self._paused:
            self._inbound.send(event + b"\n\n" if self._request.http10 else chunk(event + b"\n\n"))
