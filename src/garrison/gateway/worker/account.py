"""What one request uses: tokens against the limits of its key, and what is reported when it has ended."""

from typing import TYPE_CHECKING

from garrison.gateway.requests.paths import Api, Asked
from garrison.gateway.requests.usage_tail import TAIL_BYTES
from garrison.gateway.usage import UsageReader, estimate

if TYPE_CHECKING:
    from garrison.access.limiter import Admission
    from garrison.gateway.worker.plane import Plane
    from garrison.net.http1.responses import ResponseReader

__all__ = ["CLIENT_LEFT", "CUT_OFF", "Account"]

CLIENT_LEFT, CUT_OFF = 499, 502
_TAIL_PIECES = 4
"""Pieces at the end of an answer that are kept, for what it says that it used."""
_NONE_USED = (Api.TOKENIZE, Api.DETOKENIZE, Api.COUNT_TOKENS, Api.INPUT_TOKENS)


class Account:
    """The account of one request.

    Args:
        at: when the request began, on the plane's clock.

    Attributes:
        key: of its caller.
        route, target: names, as far as they are known.
        admissions: as its caller, and its route, have limits.
        tries: how often it was sent.
    """

    __slots__ = ("_asked_for", "_asked_tokens", "_at", "_ended", "_first_at", "_plane", "_size", "_status", "_tail",
                 "_usage", "admissions", "key", "route", "target", "tries")  # fmt: skip

    def __init__(self, plane: "Plane", asked: Asked, at: float) -> None:
        self._plane, self._asked_for, self._at = plane, asked, at
        self._asked_tokens = self._status = self._size = 0
        self._first_at = 0.0
        self._tail: list[bytes] = []
        self._usage: UsageReader | None = None
        self._ended = False
        self.key: int | None = None
        self.route = self.target = ""
        self.admissions: tuple[Admission, ...] = ()
        self.tries = 0

    @property
    def counts_tokens(self) -> bool:
        """Whether there is a limit of tokens, so that the answer has to be readable."""
        return bool(self.admissions) and any(one.limits.tokens_per_minute is not None for one in self.admissions)

    def ask(self, body: bytes, content_type: str) -> None:
        """Count about what the request itself uses, where there is a limit of tokens."""
        self._asked_tokens = 0 if self._asked_for.api in _NONE_USED else estimate(body, content_type)
        self._spend(self._asked_tokens)

    def begin(self, reader: "ResponseReader", now: float) -> None:
        """The answer begins. One that is no success uses nothing, nor does one that only counts tokens."""
        self._status, self._first_at = reader.status, now
        if not self.counts_tokens:
            return
        if not 200 <= reader.status < 300 or self._asked_for.api in _NONE_USED:
            self._spend(0)
            return
        kind = next((value for name, value in reader.headers if name.lower() == b"content-type"), b"")
        self._usage = UsageReader(kind.decode("latin-1"), self._asked_tokens)

    def piece(self, piece: bytes) -> None:
        """A piece of the answer passes."""
        self._size += len(piece)
        tail = self._tail
        tail.append(piece)
        if len(tail) > _TAIL_PIECES:
            del tail[0]
        if self._usage is not None:
            self._usage.feed(piece)
            self._spend(self._usage.tokens)

    def complete(self) -> None:
        """The answer is complete."""
        if self._usage is not None:
            self._usage.close()
            self._spend(self._usage.tokens)

    def end(self, status: int, size: int) -> None:
        """The request has ended. A second call has no effect.

        Args:
            status: where the answer has not begun.
            size: bytes of its body.
        """
        if self._ended:
            return
        self._ended = True
        if self.route:
            now = self._plane.now()
            self._plane.stats.record(
                self.route,
                self.target,
                self.key,
                status=self._status or status,
                seconds=now - self._at,
                first_byte=self._first_at - self._at if self._status else None,
                retries=max(0, self.tries - 1),
                bytes_in=size,
                bytes_out=self._size,
                tail=b"".join(self._tail)[-TAIL_BYTES:],
            )
        for one in self.admissions:
            one.by.end(one, self._plane.now())

    def _spend(self, tokens: int) -> None:
        for one in self.admissions:
            one.by.spend(one, self._plane.now(), tokens)
