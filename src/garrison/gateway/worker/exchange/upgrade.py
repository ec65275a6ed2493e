"""A request to a model that asks for another protocol, such as WebSocket.

Until the target has agreed it is a request like any other: admitted, counted, held back while its target starts, sent
again where that is safe. From then on bytes pass in both directions as they are, until one side closes.
"""

from typing import TYPE_CHECKING

from garrison.gateway.requests.paths import switches
from garrison.gateway.worker.exchange.exchange import Exchange
from garrison.gateway.worker.heads.forwarded import lines_up
from garrison.gateway.worker.heads.heads import framed_request, switched_head, upgrade_lines
from garrison.net.http1.responses import ResponseReader

if TYPE_CHECKING:
    from garrison.access.book import Refusal
    from garrison.access.identity import Identity
    from garrison.gateway.requests.paths import Asked
    from garrison.gateway.worker.connections.inbound import Inbound, Request
    from garrison.gateway.worker.connections.outbound import Outbound
    from garrison.gateway.worker.plane import Plane
    from garrison.gateway.worker.table.targets import Target

__all__ = ["Upgrade", "wants_upgrade"]

_SWITCHED = 101


def wants_upgrade(request: "Request") -> bool:
    """Whether a request is only of use in another protocol. Java's client offers HTTP/2 with every request, and takes
    an answer in HTTP/1.1."""
    if not request.upgrade:
        return False
    offers = [value.strip().lower() for name, value in request.headers if name.lower() == b"upgrade"]
    return request.method == b"CONNECT" or any(one != b"h2c" for one in offers)


class Upgrade(Exchange):
    """`Work` and `Answered` for one such request. Its arguments are those of an exchange."""

    __slots__ = ("_raw",)

    def __init__(
        self,
        plane: "Plane",
        inbound: "Inbound",
        request: "Request",
        asked: "Asked",
        query: bytes,
        who: "Identity | Refusal | None",
    ) -> None:
        super().__init__(plane, inbound, request, asked, query, who)
        self._raw = False

    # --- as Work

    def body(self, piece: bytes) -> None:
        connection = self._upstream
        if not self._raw or connection is None:
            super().body(piece)
            return
        self.deadline = self._next_due()
        connection.send(piece)
        if connection.congested:
            self._inbound.pause_reading(True)

    def cancel(self) -> None:
        connection = self._upstream
        if self._raw and connection is not None:
            self._upstream = None
            connection.close()  # with what the client has sent last
        super().cancel()

    # --- sending

    def _path_at(self, target: "Target") -> bytes | None:
        if target.value.hop:
            return super()._path_at(target)
        rest = self._asked_for.rest
        return rest if switches(target.value.engine, rest) else None

    def _send(self, connection: "Outbound") -> None:
        request, target = self._request, self.target
        assert target is not None
        self._upstream = connection
        lines = target.head + upgrade_lines(request)
        lines += lines_up(request, self._inbound.peer, self._plane.settings, readable=False, trace=self.account.trace)
        if self._made_id:
            lines += b"x-request-id: %b\r\n" % self._id
        if target.value.foreign:
            lines += self._plane.via_line
        path = target.prefix + (self._path or b"/") + self._query
        head = framed_request(request.method, path, lines, len(self._data))
        self._sent_at = self._plane.now()
        self.deadline = self._due(None if self._times is None else self._times.first_byte)
        self._plane.timed(self)
        connection.request(self, request.method.decode("latin-1"), head + self._data, switch=True)
        self.account.is_sent()
        self._accepted = True

    # --- as Answered

    def answer_head(self, reader: ResponseReader) -> None:
        if reader.status != _SWITCHED:
            super().answer_head(reader)
            return
        self._learn()
        self._out.append(switched_head(reader, self._id))
        self.account.begin(reader, self._plane.now())
        self._started = self._inbound.begun = True

    def answer_end(self) -> None:
        connection = self._upstream
        if connection is None or connection.reader.status != _SWITCHED:
            super().answer_end()

    def answer_flush(self) -> None:
        super().answer_flush()
        connection = self._upstream
        if connection is None or self._raw or connection.reader.status != _SWITCHED:
            return
        self._raw = True
        connection.switch(self)
        if connection.reader.rest:
            self.answer_raw(connection.reader.rest)
        if early := self._inbound.switch():
            self.body(early)

    def answer_raw(self, data: bytes) -> None:
        self.deadline = self._next_due()
        self.account.piece(data)
        self._inbound.send(data)

    def answer_lost(self, reason: str) -> None:
        if not self._raw:
            super().answer_lost(reason)
            return
        connection, self._upstream = self._upstream, None
        if connection is not None and connection.closed:  # which is how another protocol ends
            self.account.complete()
        self._end()
        self._inbound.close()

    def writable(self) -> None:
        if self._raw:
            self._inbound.pause_reading(False)
