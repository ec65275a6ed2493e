"""One request to a model, from its head to the last byte of its answer.

It is a chain of callbacks: `body_end` chooses a target; a connection takes the request; what the target answers is
written to the client as it arrives, one write for each read. A target that fails before the first byte went to the
client is replaced by another one, or asked again over a new connection.
"""

from random import random
from typing import TYPE_CHECKING

from garrison.access.identity import Identity
from garrison.base.errors import GarrisonError, NotFoundError, UnauthenticatedError, UnreachableError
from garrison.gateway.choose.breaker import ALWAYS
from garrison.gateway.choose.failure import Failure, failure_of
from garrison.gateway.choose.retry import Attempt, GiveUp, blames_target, decide
from garrison.gateway.choose.retry_budget import RetryBudget
from garrison.gateway.requests.nested import needs_one_of
from garrison.gateway.requests.paths import Asked, Kind, ModelIn, path_at, reaches
from garrison.gateway.worker.account import CLIENT_LEFT, CUT_OFF, Account
from garrison.gateway.worker.affinity import key_of
from garrison.gateway.worker.bodies import NamedModel, named_model
from garrison.gateway.worker.heads import (
    DROPPED_TO_COUNT,
    answer_head,
    framed,
    framed_request,
    has_length,
    passed_lines,
)
from garrison.net.http1.limits import HeaderList
from garrison.net.http1.responses import ResponseReader
from garrison.net.http1.writing import LAST_CHUNK, header_line

if TYPE_CHECKING:
    import asyncio

    from garrison.access.book import Refusal
    from garrison.gateway.choose.breaker import Breaker
    from garrison.gateway.worker.inbound import Inbound, Request
    from garrison.gateway.worker.outbound import Outbound
    from garrison.gateway.worker.plane import Plane
    from garrison.gateway.worker.targets import End, Route, Target

__all__ = ["Exchange"]

_SMALL = 32 * 1024
"""Bytes that a connection takes at once."""
_STALE_SECONDS = 1.0
"""A connection that was idle, and is lost so soon after a request, was closed before the target read it."""
_MOST_ASKED = 8
"""Targets that cannot be asked, after which no further one is looked for."""
_NO_BUDGET = RetryBudget(share=0.0, minimum=0)
_MOST_OF_STRANGERS = 64 * 1024
"""Bytes of the body of a request without a valid key; a longer one is refused before it ends."""


class Exchange:
    """`Work` for one request, and `Answered` by its target.

    Args:
        asked: what the request asks for.
        query: of its target, with the question mark.
        who: the caller, where it may see what there is; None where that has to be looked at again.
    """

    __slots__ = (
        "_accepted", "_account", "_again", "_asked_for", "_breaker", "_chunked", "_data", "_end_asked", "_entered",
        "_failed", "_failure", "_generation", "_id", "_inbound", "_made_id", "_model", "_named", "_out",
        "_path", "_pieces", "_plane", "_query", "_rechecked", "_request", "_sent_at", "_size", "_started", "_synced",
        "_tries", "_upstream", "_wait", "_who", "deadline", "rest", "route", "target",
    )  # fmt: skip

    def __init__(
        self,
        plane: "Plane",
        inbound: "Inbound",
        request: "Request",
        asked: Asked,
        query: bytes,
        who: "Identity | Refusal | None",
    ) -> None:
        self._plane = plane
        self._inbound = inbound
        self._request = request
        self._asked_for = asked
        self._account = Account(plane, asked, request.at)
        self._id = request.facts.request_id
        self._made_id = not self._id
        if self._made_id:
            self._id = plane.new_id()
        self._query = query
        self._path: bytes | None = None
        self._model = asked.name
        self._named: NamedModel | None = None
        self._entered = False
        self._who = who
        self._synced = self._rechecked = False
        self._size = 0
        self._pieces: list[bytes] = []
        self._out: list[bytes] = []
        self._data = b""
        self._chunked = False
        self._started = False
        self._tries = 0
        self._accepted = False
        self._sent_at = 0.0
        self._failed: tuple[Target, ...] = ()
        self._failure: tuple[GarrisonError, int | None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._end_asked: End | None = None
        self._breaker: Breaker | None = None
        self._generation = 0
        self._upstream: Outbound | None = None
        self._wait: int | None = None
        self.route: Route | None = None
        self.target: Target | None = None
        self.rest = ""
        self.deadline = 0.0

    # --- as Work

    def body(self, piece: bytes) -> None:
        self._pieces.append(piece)
        if self._who is None:
            self._size += len(piece)
            if self._size > _MOST_OF_STRANGERS and not self._rechecked:
                self._recheck()

    def body_end(self) -> None:
        pieces = self._pieces
        self._data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = []
        self._admit()

    def _recheck(self) -> None:
        """Refuse a caller who is not known, unless its key has just been made."""
        if self._inbound.work is not self or self._who is not None:
            return
        try:
            self._who = self._plane.require_caller(self._request)
        except GarrisonError as error:
            if self._rechecked or not self._plane.sync(self._recheck):
                self._refuse(error)
            self._rechecked = True

    def _admit(self) -> None:
        """Find the route, and check that it may be used. What is unknown may just have been made."""
        if self._inbound.work is not self:
            return
        try:
            if self._who is None or self._synced:
                self._who = self._plane.require_caller(self._request)
            who = self._who
            self._account.key = who.key_id if isinstance(who, Identity) else None
            if self._asked_for.model_in is not ModelIn.PATH and self._named is None:
                form = self._asked_for.model_in is ModelIn.FORM
                kind = self._request.facts.content_type if form else ""
                self._named = named_model(self._asked_for, self._data, kind)
                self._model = self._named.name
            self.route, self.rest = self._plane.route_for(self._request, self._model)
            self._account.route = self.route.name
            self._account.admission = self._plane.admit(who, self.route, self._model)
            if (inner := self.route.value.only_nested) is not None and self._named is not None and not self.rest:
                raise needs_one_of(self.route.name, inner)
        except (NotFoundError, UnauthenticatedError) as error:
            if self._synced or not self._plane.sync(self._admit):
                self._refuse(error)
            self._synced = True
            return
        except GarrisonError as error:
            self._refuse(error)
            return
        if self.route.budget is not None:
            self.route.budget.request(self._plane.now())
        self._choose()

    def cancel(self) -> None:
        """The client has gone: so does the request, at once."""
        self._give_up()
        self._end(CLIENT_LEFT)

    def pause(self, paused: bool) -> None:
        if self._upstream is not None:
            self._upstream.pause_reading(paused)

    # --- choosing

    def _choose(self, tried: tuple["End", ...] = ()) -> None:
        """Ask one that is not among `tried`; if there is none, refuse with the failure of the one before."""
        self._again = None
        route = self.route
        assert route is not None
        key = None if route.affinity is None else key_of(route.affinity, self._request.headers, self._data, self.rest)
        end = self._plane.choose(route, key, tried)
        if end is None:
            error, status = self._failure or (self._plane.not_served(route), None)
            self._refuse(error, status)
            return
        target = end.target
        self._end_asked, self.target = end, target
        self._breaker, self._generation = end.breaker, end.breaker.generation
        self._path = self._path_at(target)
        if self._path is None:
            engine, path = target.value.engine, self._request.target.partition(b"?")[0].decode("latin-1")
            error = NotFoundError(f"{self._model} runs {engine}, which has no {path}", hint="See docs/server.md.")
            self._elsewhere(error)
        elif target.open:
            self._go()
        else:
            self._wait = self._plane.activate(target, self)

    def _elsewhere(self, error: GarrisonError) -> None:
        """A target was chosen and cannot be asked, which says nothing about its health."""
        target, route = self.target, self.route
        assert target is not None
        assert route is not None
        self._leave()
        self._failed += (target,)
        if len(self._failed) >= _MOST_ASKED:
            self._refuse(error)
            return
        self._failure = error, None
        self._choose(route.tried(self._failed))

    def activated(self) -> None:
        """The target is ready, and stays so until this request is counted."""
        self._wait = None
        self._go()

    def refused(self, error: GarrisonError) -> None:
        """The target cannot be had."""
        self._wait = None
        self._elsewhere(error)

    def _go(self) -> None:
        target = self.target
        assert target is not None
        self._entered = True
        self._tries += 1
        self._plane.enter(target)
        idle = target.idle
        while idle:
            connection = idle.pop()
            if connection.alive:
                self._send(connection)
                return
        self._plane.connect(target, self)

    def connected(self, connection: "Outbound") -> None:
        """A new connection is there."""
        if self._inbound.work is self:
            self._send(connection)
        else:  # the client has gone meanwhile
            connection.rest()

    def not_connected(self, reason: str) -> None:
        if self._inbound.work is self:
            self._lost(Attempt(number=self._tries, failure=Failure.CONNECT), reason)

    def _send(self, connection: "Outbound") -> None:
        request, target, end = self._request, self.target, self._end_asked
        assert target is not None
        assert end is not None
        self._upstream = connection
        data = self._data
        if self._named is not None:
            # Another server is asked for the name of the client, of which it knows what is nested.
            name = end.model if target.value.hop else self.rest or end.model or target.value.model
            if name and name != self._model:
                data = self._named.renamed(data, name)
        lines = target.head
        if self._made_id:
            lines += b"x-request-id: %b\r\n" % self._id
        if self._account.counts_tokens:
            self._account.ask(data, request.facts.content_type)
            lines += b"accept-encoding: identity\r\n" + passed_lines(request.headers, DROPPED_TO_COUNT)
        else:
            lines += request.facts.passed(request.headers)
        path = target.prefix + (self._path or b"/") + self._query
        head = framed_request(request.method, path, lines, len(data))
        self._sent_at = self._plane.now()
        self.deadline = self._sent_at + self._plane.silence_seconds
        self._plane.timed(self)
        connection.request(self, request.method.decode("latin-1"), head + data)
        self._accepted = len(data) < _SMALL or not connection.congested

    # --- as Answered

    def answer_interim(self, status: int, headers: HeaderList) -> None:
        if not self._request.http10 and status != 100:  # which the gateway has said itself
            self._out.append(answer_head(status, headers, b""))

    def answer_head(self, reader: ResponseReader) -> None:
        if reader.status >= 502 and self._unavailable(reader.status):
            return
        breaker, self._breaker = self._breaker, None
        if breaker is not None and (breaker.failures or breaker.passes_from != ALWAYS):  # else it has nothing to learn
            assert self.target is not None
            self.target.answered(breaker, self._generation, self._plane.now())
        keep = self._request.keep_alive and not self._plane.draining
        head, self._chunked = framed(self._request, reader, keep, self._id)
        self._out.append(head)
        self._account.begin(reader, self._plane.now())
        self._started = True
        self._inbound.begun = True

    def _path_at(self, target: "Target") -> bytes | None:
        """The path of the request at a target; None for one that does not have it, or not for whoever asks."""
        asked, engine = self._asked_for, target.value.engine
        if target.value.hop:  # another server, which decides by itself
            return self._request.target.partition(b"?")[0]
        if asked.kind is Kind.INFERENCE:
            return path_at(engine, asked)
        return asked.rest if reaches(engine, self._request.method, asked.rest, query=self._query) else None

    def answer_body(self, piece: bytes) -> None:
        self._account.piece(piece)
        if self._chunked:
            self._out += (b"%x\r\n" % len(piece), piece, b"\r\n")
        else:
            self._out.append(piece)

    def answer_end(self) -> None:
        connection = self._upstream
        assert connection is not None
        reader = connection.reader
        self._account.complete()
        if self._chunked:
            self._out.append(_last_chunk(reader) if reader.trailers else LAST_CHUNK)
        close = self._request.http10 and not has_length(reader)
        self.answer_flush()
        self._upstream = None
        if reader.keep_alive():
            connection.rest()
        else:
            connection.close()
        self._end()
        self._inbound.next(self._request.keep_alive and not close and not self._plane.draining)

    def answer_flush(self) -> None:
        out = self._out
        if out:
            self.deadline = self._plane.now() + self._plane.silence_seconds
            self._inbound.send(out[0] if len(out) == 1 else b"".join(out))
            out.clear()

    def answer_lost(self, reason: str) -> None:
        connection, self._upstream = self._upstream, None
        if self._started:
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

    # --- failing

    def _unavailable(self, status: int) -> bool:
        """The target says that it cannot answer. Return whether another one is asked instead."""
        failure, connection = failure_of(status), self._upstream
        assert self.target is not None
        if failure is None or connection is None or self.target.value.hop:  # a node says so of one of its instances
            return False
        attempt = Attempt(number=self._tries, failure=failure, accepted=True)
        self._blame(attempt)
        self._failure = UnreachableError(f"{self._model} answered {status}", hint="Send the request again."), 502
        self._upstream = None
        if self._retry(attempt):
            connection.abort()
            return True
        self._upstream = connection
        return False

    def _lost(self, attempt: Attempt, reason: str) -> None:
        self._blame(attempt)
        error = UnreachableError(f"{self._model} did not answer: {reason}", hint="Send the request again.")
        self._failure = error, 502
        if not self._retry(attempt):
            self._refuse(error, 502)

    def _blame(self, attempt: Attempt) -> None:
        """Tell the breaker, unless the failure is nobody's: then the attempt that follows does."""
        breaker = self._breaker
        if breaker is not None and blames_target(attempt):
            self._breaker = None
            breaker.failed(self._plane.now(), self._generation)

    def _retry(self, attempt: Attempt) -> bool:
        """Ask again, if there is whom to ask, and return whether that is so."""
        target, route = self.target, self.route
        assert target is not None
        assert route is not None
        now = self._plane.now()
        failed = (*self._failed, target)
        if not attempt.stale and not route.has_others(failed, now):
            return False
        decision = decide(attempt, route.budget or _NO_BUDGET, now, draw=random())  # noqa: S311 - evenness, not a secret
        if isinstance(decision, GiveUp):
            return False
        if not decision.other_target:  # the same attempt, over a new connection, which cannot be stale
            self._plane.connect(target, self)
            return True
        self._leave()
        self._failed = failed
        if decision.delay:
            self._again = self._plane.later(decision.delay, lambda: self._choose(route.tried(failed)))
        else:
            self._choose(route.tried(failed))
        return True

    def answer_raw(self, data: bytes) -> None: ...

    def writable(self) -> None:
        """The target has read nearly all of the request, unless its connection is lost, when this is called as well."""
        if self._upstream is not None and self._upstream.alive:
            self._accepted = True

    def expired(self) -> None:
        """The target has been silent for too long."""
        self._give_up()
        if self._started:
            self._end()
            self._inbound.abort()
        else:
            self._blame(Attempt(number=self._tries, failure=Failure.TIMEOUT))
            text = f"{self._model} sent nothing for {self._plane.silence_seconds:g} s"
            self._refuse(UnreachableError(text, hint="Send the request again."), status=504)

    # ---

    def _give_up(self) -> None:
        if self._wait is not None:
            self._plane.abandon(self._wait)
            self._wait = None
        if self._again is not None:
            self._again.cancel()
            self._again = None
        connection, self._upstream = self._upstream, None
        if connection is not None:
            connection.abort()

    def _refuse(self, error: GarrisonError, status: int | None = None) -> None:
        found = self._plane.error_answer(error, self._request.target)
        number = found[0] if status is None else status
        self._end(number)
        if self._inbound.work is self:
            self._inbound.answer(number, [*found[1], (b"x-request-id", self._id)], found[2])

    def _leave(self) -> None:
        """The target is not used any more. An attempt without an outcome was cancelled."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.cancelled(self._plane.now(), self._generation)
        target, self.target = self.target, None
        if target is not None and self._entered:
            self._entered = False
            self._plane.leave(target)

    def _end(self, status: int = CUT_OFF) -> None:
        """Everything is given back.

        Args:
            status: where the answer has not begun.
        """
        self._plane.ended(self)
        account = self._account
        account.tries, account.target = self._tries, "" if self._end_asked is None else self._end_asked.target.id
        account.end(status, len(self._data))
        self._leave()


def _last_chunk(reader: ResponseReader) -> bytes:
    lines = [header_line(name.decode("latin-1"), value.decode("latin-1")) for name, value in reader.trailers]
    return b"0\r\n" + "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n"
