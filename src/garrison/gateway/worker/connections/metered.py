"""Requests that are passed on for a key with limits: they count as others do."""

from typing import TYPE_CHECKING

from garrison.gateway.worker.accounts.account import CUT_OFF
from garrison.gateway.worker.connections.passing import Passing
from garrison.net.http1.responses import ResponseReader

if TYPE_CHECKING:
    from garrison.gateway.worker.accounts.account import Account
    from garrison.gateway.worker.connections.inbound import Inbound, Request
    from garrison.gateway.worker.plane import Plane
    from garrison.gateway.worker.table.targets import Target

__all__ = ["Metered"]

_MOST_READ = 2**20
"""Bytes of a request's body of which the tokens are estimated; of a longer one the engine says how many there were."""


class Metered(Passing):
    """`Passing` with an account.

    Args:
        account: of the request; its admission is that of the key.
    """

    __slots__ = ("_account", "_asked", "_size")

    def __init__(
        self,
        plane: "Plane",
        inbound: "Inbound",
        request: "Request",
        target: "Target",
        own: bytes,
        dropped: frozenset[bytes],
        account: "Account",
    ) -> None:
        if account.counts_tokens:
            own += b"accept-encoding: identity\r\n"
            dropped = dropped | {b"accept-encoding"}
        super().__init__(plane, inbound, request, target, request.target, own, dropped)
        self._account = account
        self._asked: list[bytes] = []
        self._size = 0

    def body(self, piece: bytes) -> None:
        if self._account.counts_tokens and not self._raw:
            self._size += len(piece)
            if self._size <= _MOST_READ:
                self._asked.append(piece)
        super().body(piece)

    def body_end(self) -> None:
        if self._account.counts_tokens:
            body = b"".join(self._asked) if self._size <= _MOST_READ else b""
            self._account.ask(body, self._request.facts.content_type)
        self._asked.clear()
        super().body_end()

    def answer_head(self, reader: ResponseReader) -> None:
        self._account.begin(reader, self._plane.now())
        super().answer_head(reader)

    def answer_body(self, piece: bytes) -> None:
        self._account.piece(piece)
        super().answer_body(piece)

    def answer_end(self) -> None:
        self._account.complete()
        super().answer_end()

    def _end(self) -> None:
        self._account.end(CUT_OFF, "cut-off", self._size)
        super()._end()
