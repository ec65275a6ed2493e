"""The answer of a target on its way to the client: one write for each read."""

from garrison.gateway.choose.breaker import ALWAYS
from garrison.gateway.choose.failure import Failure
from garrison.gateway.choose.retry import Attempt
from garrison.gateway.requests.hidden_usage import HiddenUsage
from garrison.gateway.requests.paths import Api
from garrison.gateway.worker.exchange.waiting import Waiting
from garrison.gateway.worker.heads.heads import (
    answer_head,
    framed,
    has_length,
    is_event_stream,
)
from garrison.gateway.worker.table.rates import RATE_PREFIX
from garrison.net.http1.limits import HeaderList
from garrison.net.http1.responses import ResponseReader
from garrison.net.http1.writing import LAST_CHUNK, chunk, header_line

__all__ = ["Answering"]

_STALE_SECONDS = 1.0
"""A connection that was idle, and is lost so soon after a request, was closed before the target read it."""


class Answering(Waiting):
    """`Answered`: an exchange whose target answers."""

    __slots__ = ()

    def answer_interim(self, status: int, headers: HeaderList) -> None:
        if not self._request.http10 and status != 100 and self._early is None:  # which the gateway has said itself
            self._out.append(answer_head(status, headers, b""))

    def answer_head(self, reader: ResponseReader) -> None:
        if reader.status >= 502 and self._unavailable(reader.status):
            return
        if reader.status == 404 and self._asked_for.api is Api.RESPONSE and self._asks_another():
            return
        self._learn()
        timing = self.account.begin(reader, self._plane.now())
        hides = self._hides and reader.status == 200 and is_event_stream(reader)
        if self._early is not None:
            self._early.head(reader)
            self._chunked = self._early.streams
        else:
            keep = self._request.keep_alive and not self._plane.draining
            own = timing if self._waiter is None else timing + self._waiter.line()
            resized = hides and not self._request.http10
            if self.account.admissions:
                own += b"".join(b"%b: %b\r\n" % one for one in self._rate_headers())
                head, self._chunked = framed(self._request, reader, keep, self._id, own, RATE_PREFIX, resized=resized)
            else:
                head, self._chunked = framed(self._request, reader, keep, self._id, own, resized=resized)
            self._out.append(head)
        if self._asked_for.api is Api.RESPONSE:
            self._plane.responses.seen(self._asked_for.name, self._request.method, reader.status)
        if hides and self._chunked:
            self._hidden = HiddenUsage()
        self._started = True
        self._inbound.begun = True

    def _learn(self) -> None:
        """The target has answered, which its breaker is told, if there is anything to learn from it."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None and (breaker.failures or breaker.passes_from != ALWAYS):
            assert self.target is not None
            self.target.answered(breaker, self._generation, self._plane.now())

    def answer_body(self, piece: bytes) -> None:
        self.account.piece(piece)
        if self._ids is not None and (found := self._ids.feed(piece)) is not None and self.target is not None:
            self._plane.stored(found, self.target, self._model)
        if self._hidden is not None:
            piece = self._hidden.feed(piece)
            if not piece:
                return
        if self._chunked:
            self._out += (b"%x\r\n" % len(piece), piece, b"\r\n")
        else:
            self._out.append(piece)

    def answer_end(self) -> None:
        connection = self._upstream
        assert connection is not None
        reader = connection.reader
        self.account.complete()
        if self._hidden is not None:
            self._pass_on_held()
        if self._chunked:
            self._out.append(_last_chunk(reader) if reader.trailers else LAST_CHUNK)
        elif self._early is not None:
            self._early.collect(self._out)
            self._out.append(self._early.rest(reader.status))
            self._chunked = True
        close = self._request.http10 and not has_length(reader)
        self.answer_flush()
        self._upstream = None
        if reader.keep_alive():
            connection.rest()
        else:
            connection.close()
        self._end()
        if self._early is not None:
            self._inbound.next(self._early.keep)
        else:
            self._inbound.next(self._request.keep_alive and not close and not self._plane.draining)

    def _pass_on_held(self) -> None:
        """Pass on the beginning of an event that was held until it is complete, which it will not be."""
        if self._hidden is not None and (rest := self._hidden.rest()):
            self._out.append(chunk(rest))

    def answer_flush(self) -> None:
        out = self._out
        if out:
            if not self._chunked and self._early is not None:
                self._early.collect(out)
                return
            now = self._plane.now()
            self.deadline = now + self._plane.silence_seconds if self._times is None else self._next_due()
            self._inbound.send(out[0] if len(out) == 1 else b"".join(out))
            out.clear()
            self.account.written(now)

    def answer_lost(self, reason: str) -> None:
        connection, self._upstream = self._upstream, None
        if self._started:
            self._pass_on_held()
            self.answer_flush()
            self._end()
            self._inbound.abort()
            return
        assert connection is not None
        reused = connection.used and self._plane.now() - self._sent_at < _STALE_SECONDS
        attempt = Attempt(
            number=self._tries,
            failure=Failure.LOST if connection.reader.waiting else Failure.MALFORMED,
            reused=reused,
            accepted=self._accepted and not reused,
        )
        self._lost(attempt, reason)

    def answer_raw(self, data: bytes) -> None: ...


def _last_chunk(reader: ResponseReader) -> bytes:
    lines = [header_line(name.decode("latin-1"), value.decode("latin-1")) for name, value in reader.trailers]
    return b"0\r\n" + "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n"
