"""One request to a model, from its head to the last byte of its answer.

It is a chain of callbacks: `body_end` chooses a target; a connection takes the request; what the target answers is
written to the client as it arrives, one write for each read. A target that fails before the first byte went to the
client is replaced by another one, or asked again over a new connection.
"""

from random import random
from typing import TYPE_CHECKING

from garrison.access.identity import Identity
from garrison.base.errors import GarrisonError, NotFoundError, NotReadyError, UnauthenticatedError, UnreachableError
from garrison.gateway.choose.breaker import ALWAYS
from garrison.gateway.choose.failure import Failure, failure_of
from garrison.gateway.choose.retry import Attempt, GiveUp, blames_target, decide
from garrison.gateway.choose.retry_budget import RetryBudget
from garrison.gateway.requests.errors import LoopError
from garrison.gateway.requests.paths import LLAMA_ROUTER, Api, Asked, Kind, ModelIn, path_at, reaches
from garrison.gateway.worker.account import CLIENT_LEFT, CUT_OFF, Account
from garrison.gateway.worker.affinity import key_of
from garrison.gateway.worker.bodies import NamedModel, named_model
from garrison.gateway.worker.early_stream import Comments, EarlyStream
from garrison.gateway.worker.filters import filter_for
from garrison.gateway.worker.forwarded import lines_up
from garrison.gateway.worker.heads import (
    answer_head,
    framed,
    framed_request,
    has_length,
)
from garrison.gateway.worker.rates import RATE_PREFIX
from garrison.gateway.worker.stored_responses import IdReader, previous_response
from garrison.gateway.worker.waiter import Waiter
from garrison.net.http1.limits import HeaderList
from garrison.net.http1.responses import ResponseReader
from garrison.net.http1.writing import LAST_CHUNK, header_line

if TYPE_CHECKING:
    import asyncio

    from garrison.access.book import Refusal
    from garrison.gateway.choose.breaker import Breaker
    from garrison.gateway.link.route_settings import TimeoutsValue
    from garrison.gateway.requests.rewrite import Rewrite
    from garrison.gateway.worker.inbound import Inbound, Request
    from garrison.gateway.worker.outbound import Outbound
    from garrison.gateway.worker.plane import Plane
    from garrison.gateway.worker.stored_responses import StoredAt
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
        "_accepted", "_account", "_again", "_asked_for", "_breaker", "_chunked", "_comments", "_data", "_early",
        "_end_asked", "_ends", "_entered", "_failed", "_failure", "_filter", "_follows", "_generation", "_id", "_ids",
        "_inbound", "_made_id", "_model", "_named", "_out", "_path", "_pieces", "_plane", "_query", "_rechecked",
        "_request", "_sent_at", "_size", "_started", "_synced", "_times", "_tries", "_upstream", "_using", "_wait",
        "_waiter", "_who", "deadline", "rest", "route", "target",
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
        self._filter: Rewrite | None = None
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
        self._using = ""
        self._breaker: Breaker | None = None
        self._generation = 0
        self._upstream: Outbound | None = None
        self._wait: int | None = None
        self._ids: IdReader | None = None
        self._follows: StoredAt | None = None
        self._times: TimeoutsValue | None = None
        self._ends = 0.0
        self._waiter: Waiter | None = None
        self._comments: Comments | None = None
        self._early: EarlyStream | None = None
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
            self.route = self._find_route(who)
            self._account.route = self.route.name
            self._account.admissions = self._plane.callers.count(who, self.route, self._plane.now())
            if self.route.filters is not None:
                self._filter = filter_for(self.route.filters, self._model, in_body=self._named is not None)
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
        if self.route.value.timeouts is not None:
            self._set_times(self.route.value.timeouts)
        if self.route.line.places is None:
            self._choose()
        else:
            self._take_place()

    def _find_route(self, who: "Identity | Refusal") -> "Route":
        """Find the route that the request names, and check that its caller may use it."""
        asked = self._asked_for
        if asked.model_in is ModelIn.NOWHERE:  # the only such requests are those for responses that are stored
            self._model = f"the target of response {asked.name}"
            return self._plane.response_route(who, asked)
        if asked.model_in is not ModelIn.PATH and self._named is None:
            kind = self._request.facts.content_type if asked.model_in is ModelIn.FORM else ""
            self._named = named_model(asked, self._data, kind)
            self._model = self._named.name
        route, self.rest = self._plane.route_for(self._request, self._model)
        self._plane.callers.require(who, route.value, self._model)
        if asked.api is Api.RESPONSES:
            self._ids = IdReader()
            if route.policy is not None:
                self._follows = self._plane.responses.find(previous_response(self._data))
        return route

    def cancel(self) -> None:
        """The client has gone: so does the request, at once."""
        self._give_up()
        self._end(CLIENT_LEFT)

    def pause(self, paused: bool) -> None:
        if self._upstream is not None:
            self._upstream.pause_reading(paused)

    # --- times

    def _set_times(self, times: "TimeoutsValue") -> None:
        self._times = times
        if times.whole is not None:
            self._ends = self._request.at + times.whole

    def _due(self, seconds: float | None) -> float:
        """When a phase of so many seconds ends; None for one without a limit."""
        at = self._plane.now() + (seconds or self._plane.silence_seconds)
        return min(at, self._ends) if self._ends else at

    def _next_due(self) -> float:
        """When the next byte must have come."""
        return self._due(None if self._times is None else self._times.between_bytes)

    # --- waiting

    def _take_place(self) -> None:
        """Take one of the places of the route, or wait for one."""
        try:
            if self._waits().enter():
                self._choose()
            else:
                self._begin_to_wait()
        except GarrisonError as error:
            self._refuse(error)

    def _waits(self) -> "Waiter":
        if self._waiter is None:
            assert self.route is not None
            holder, priority = self._plane.callers.holder_of(self._who, self._inbound.peer)
            self._waiter = Waiter(self._plane, self.route, holder, priority, len(self._data), self._has_place)
        return self._waiter

    def _has_place(self) -> None:
        if self._inbound.work is self:
            self._end_wait()
            self._choose()

    def _activate(self, target: "Target") -> None:
        """Wait for a target that does not run."""
        waiter = self._waits()
        try:
            waiter.load()
        except GarrisonError as error:
            self._refuse(error)
            return
        self._begin_to_wait()
        self._wait = self._plane.activate(target, self, waiter.patience)

    def _begin_to_wait(self) -> None:
        assert self._waiter is not None
        self.deadline = min(self._waiter.deadline, self._ends) if self._ends else self._waiter.deadline
        self._plane.timed(self)
        seconds = self._plane.settings.loading_comments
        if seconds and self._comments is None and self._takes_comments():
            self._comments = Comments(self._plane, seconds, self._comment)

    def _end_wait(self) -> None:
        self.deadline = 0.0
        if self._comments is not None:
            self._comments.stop()
            self._comments = None

    def _takes_comments(self) -> bool:
        named = self._named
        filtered = self._filter is not None and "stream" in self._filter.names
        return named is not None and named.streams and not filtered and not self._request.http10

    def _comment(self) -> None:
        """Tell a client that waits for a stream where the start of its model is."""
        waiter = self._waiter
        assert waiter is not None
        if self._early is None and not waiter.loads:
            return  # it waits for other requests
        if self._early is None:
            keep = self._request.keep_alive and not self._plane.draining
            lines = b"x-request-id: %b\r\nx-garrison-queue: %b\r\n" % (self._id, waiter.header())
            self._early = EarlyStream(self._inbound, self._request, lines, keep=keep)
        self._early.comment(waiter.told())

    # --- choosing

    def _choose(self, tried: tuple["End", ...] = ()) -> None:
        """Ask one that is not among `tried`; if there is none, refuse with the failure of the one before."""
        self._again = None
        route = self.route
        assert route is not None
        key = None if route.affinity is None else key_of(route.affinity, self._request.headers, self._data, self.rest)
        end = None
        if self._follows is not None:
            end = route.end_at(self._follows.target, tried, self._plane.now())
        if end is None:
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
            self._elsewhere(
                NotFoundError(f"{self._model} runs {engine}, which has no {path}", hint="See docs/server.md.")
            )
        elif target.value.foreign and self._plane.has_sent(self._request):
            name = target.id.removeprefix("target:")
            error = LoopError(
                f"the target {name} of {self._model} leads back to this server", hint="Change its address."
            )
            self._elsewhere(error)
        elif target.value.engine == LLAMA_ROUTER and self._named is not None and not (self.rest or end.model):
            self._refuse(self._plane.needs_model(self._request, route.name))
        elif end.warm:
            self._go()
        else:
            self._activate(target)

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

    @property
    def cold(self) -> "tuple[End, tuple[Target, ...]]":
        """What this request waits for, and where it has failed."""
        assert self._end_asked is not None
        return self._end_asked, self._failed

    def activated(self, target: "Target | None" = None) -> None:
        """A target is ready, and stays so until this request is counted. An adapter may have been loaded at another
        target of the route, and has a name only now."""
        self._loaded()
        end, route = self._end_asked, self.route
        if target is not None and end is not None and end.adapter:
            assert route is not None
            if (found := route.loaded_at(target)) is None:
                self.refused(NotReadyError(f"{self._model} was unloaded again", details={"retry_after": 1}))
                return
            if found is not end:
                self._leave()
                self._end_asked, self.target = found, target
                self._breaker, self._generation = found.breaker, found.breaker.generation
        self._go()

    def refused(self, error: GarrisonError) -> None:
        """The target cannot be had."""
        self._loaded()
        self._elsewhere(error)

    def _loaded(self) -> None:
        """The target that was waited for is there, or will not be."""
        self._wait = None
        self._end_wait()
        if self._waiter is not None:
            self._waiter.loaded()

    def _go(self) -> None:
        target, end = self.target, self._end_asked
        assert target is not None
        assert end is not None
        self._entered = True
        self._tries += 1
        self._using = self.rest or end.model
        self._plane.enter(target, self._using)
        idle = target.idle
        while idle:
            connection = idle.pop()
            if connection.alive:
                self._send(connection)
                return
        self._connect(target)

    def _connect(self, target: "Target") -> None:
        if self._ends:
            self.deadline = self._ends
            self._plane.timed(self)
        self._plane.connect(target, self, None if self._times is None else self._times.connect)

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
        try:
            data = self._body_for(end, target)
        except GarrisonError as error:  # it cannot be changed as it would have to be
            connection.rest()
            self._refuse(error)
            return
        self._upstream = connection
        lines = target.head
        if self._made_id:
            lines += b"x-request-id: %b\r\n" % self._id
        if target.value.foreign:
            lines += self._plane.via_line
        if self._account.counts_tokens:
            self._account.ask(data, request.facts.content_type)
        read = self._early is not None or self._ids is not None or self._account.counts_tokens
        lines += lines_up(request, self._inbound.peer, self._plane.settings, readable=read)
        path = target.prefix + (self._path or b"/") + self._query
        head = framed_request(request.method, path, lines, len(data))
        self._sent_at = self._plane.now()
        times = self._times
        self.deadline = self._sent_at + self._plane.silence_seconds if times is None else self._due(times.first_byte)
        self._plane.timed(self)
        connection.request(self, request.method.decode("latin-1"), head + data)
        self._accepted = len(data) < _SMALL or not connection.congested

    def _body_for(self, end: "End", target: "Target") -> bytes:
        """The body with the name that the target knows, and with what the route changes."""
        if self._named is None:
            return self._data
        # Another server is asked for the name of the client, of which it knows what is nested; `NODE/REST` for `REST`.
        nested = target.value.hop and self.route is not None and self.route.value.bare
        name = ("" if nested else self.rest) or end.model or target.value.model
        name = "" if name == self._model else name
        if self._filter is not None:
            return self._named.changed(self._data, self._filter, name)
        return self._named.renamed(self._data, name) if name else self._data

    # --- as Answered

    def answer_interim(self, status: int, headers: HeaderList) -> None:
        if not self._request.http10 and status != 100 and self._early is None:  # which the gateway has said itself
            self._out.append(answer_head(status, headers, b""))

    def answer_head(self, reader: ResponseReader) -> None:
        if reader.status >= 502 and self._unavailable(reader.status):
            return
        if reader.status == 404 and self._asked_for.api is Api.RESPONSE and self._asks_another():
            return
        self._learn()
        if self._early is not None:
            self._early.head(reader)
            self._chunked = self._early.streams
        else:
            keep = self._request.keep_alive and not self._plane.draining
            own = b"" if self._waiter is None else self._waiter.line()
            if self._account.admissions:
                own += b"".join(b"%b: %b\r\n" % one for one in self._rate_headers())
                head, self._chunked = framed(self._request, reader, keep, self._id, own, RATE_PREFIX)
            else:
                head, self._chunked = framed(self._request, reader, keep, self._id, own)
            self._out.append(head)
        if self._asked_for.api is Api.RESPONSE:
            self._plane.responses.seen(self._asked_for.name, self._request.method, reader.status)
        self._account.begin(reader, self._plane.now())
        self._started = True
        self._inbound.begun = True

    def _learn(self) -> None:
        """The target has answered, which its breaker is told, if there is anything to learn from it."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None and (breaker.failures or breaker.passes_from != ALWAYS):
            assert self.target is not None
            self.target.answered(breaker, self._generation, self._plane.now())

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
        if self._ids is not None and (found := self._ids.feed(piece)) is not None and self.target is not None:
            self._plane.stored(found, self.target, self._model)
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

    def answer_flush(self) -> None:
        out = self._out
        if out:
            if not self._chunked and self._early is not None:
                self._early.collect(out)
                return
            if self._times is None:  # nearly always, so it costs no call
                self.deadline = self._plane.now() + self._plane.silence_seconds
            else:
                self.deadline = self._next_due()
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

    def _asks_another(self) -> bool:
        """The target does not have the response. Return whether another one is asked for it instead."""
        connection, target, route = self._upstream, self.target, self.route
        assert target is not None
        assert route is not None
        failed = (*self._failed, target)
        if connection is None or not route.has_others(failed, self._plane.now()):
            return False
        self._upstream, self._failed = None, failed
        connection.abort()
        self._leave()
        self._choose(route.tried(failed))
        return True

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
            self._connect(target)
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
        """It has waited for too long, or the target has been silent for too long."""
        times = self._times
        if self._ends and self._plane.now() >= self._ends and times is not None:
            self._give_up()
            self._late(f"the request took longer than {times.whole:g} s")
        elif self._waiter is not None and self._waiter.is_next:
            self.deadline = 0.0  # another one that expired a moment ago has made way for it
        elif self._waiter is not None and self._waiter.deadline:
            error = self._waiter.overdue()
            if error is None:
                self.deadline = self._waiter.deadline
            else:
                self._give_up()
                self._refuse(error)
        else:
            self._give_up()
            self._blame(Attempt(number=self._tries, failure=Failure.TIMEOUT))
            silent = (None if times is None else times.first_byte) or self._plane.silence_seconds
            self._late(f"{self._model} sent nothing for {silent:g} s")

    def _late(self, text: str) -> None:
        if self._started:
            self._end()
            self._inbound.abort()
        else:
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
        headers = [*found[1], (b"x-request-id", self._id)]
        if self._waiter is not None and (waited := self._waiter.header()):
            headers.append((b"x-garrison-queue", waited))
        headers += self._rate_headers()
        self._end(number)
        if self._inbound.work is not self:
            return
        if self._early is None:
            self._inbound.answer(number, headers, found[2])
        else:
            self._inbound.send(self._early.failure(found[2]))
            self._inbound.next(self._early.keep)

    def _rate_headers(self) -> list[tuple[bytes, bytes]]:
        return self._plane.callers.rate_headers(self._who, self.route, self._plane.now())

    def _leave(self) -> None:
        """The target is not used any more. An attempt without an outcome was cancelled."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.cancelled(self._plane.now(), self._generation)
        target, self.target = self.target, None
        if target is not None and self._entered:
            self._entered = False
            self._plane.leave(target, self._using)

    def _end(self, status: int = CUT_OFF) -> None:
        """Everything is given back.

        Args:
            status: where the answer has not begun.
        """
        self._plane.ended(self)
        if self._waiter is not None:
            self._end_wait()
            self._waiter.done()
        account = self._account
        account.tries, account.target = self._tries, "" if self._end_asked is None else self._end_asked.target.id
        account.end(status, len(self._data))
        self._leave()


def _last_chunk(reader: ResponseReader) -> bytes:
    lines = [header_line(name.decode("latin-1"), value.decode("latin-1")) for name, value in reader.trailers]
    return b"0\r\n" + "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n"
