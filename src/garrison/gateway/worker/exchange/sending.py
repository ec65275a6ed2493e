"""A target is chosen, and gets the request over an idle or a new connection."""

from typing import TYPE_CHECKING

from garrison.base.errors import GarrisonError, NotFoundError
from garrison.gateway.choose.failure import Failure
from garrison.gateway.choose.retry import Attempt
from garrison.gateway.requests.errors import LoopError
from garrison.gateway.requests.paths import LLAMA_ROUTER, Api, Kind, path_at, reaches
from garrison.gateway.worker.exchange.answering import Answering
from garrison.gateway.worker.exchange.bodies import NamedModel
from garrison.gateway.worker.heads.forwarded import lines_up
from garrison.gateway.worker.heads.heads import (
    framed_request,
)
from garrison.gateway.worker.table.affinity import key_of

if TYPE_CHECKING:
    from garrison.gateway.worker.connections.outbound import Outbound
    from garrison.gateway.worker.table.targets import End, Target

__all__ = ["Sending"]

_SMALL = 32 * 1024
"""Bytes that a connection takes at once."""
_WITH_STREAM_OPTIONS = frozenset((Api.CHAT, Api.COMPLETIONS))
_DECIDES_STREAM = frozenset(("stream", "stream_options"))
_TAKE_STREAM_OPTIONS = frozenset(("vllm", "sim", "mlx_lm"))
"""Engines that say what a stream used only when they are asked. llama.cpp always does; others might refuse a field that
they do not know."""


class Sending(Answering):
    """An exchange that asks a target."""

    __slots__ = ()

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

    def _path_at(self, target: "Target") -> bytes | None:
        """The path of the request at a target; None for one that does not have it, or not for whoever asks."""
        asked, engine = self._asked_for, target.value.engine
        if target.value.hop:  # another server, which decides by itself
            return self._request.target.partition(b"?")[0]
        if asked.kind is Kind.INFERENCE:
            return path_at(engine, asked)
        return asked.rest if reaches(engine, self._request.method, asked.rest, query=self._query) else None

    # --- sending

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
        self.account.waits(connects=True)
        self._plane.connect(target, self, None if self._times is None else self._times.connect)

    def connected(self, connection: "Outbound") -> None:
        """A new connection is there."""
        if self._is_current:
            self.account.goes_on()
            self._send(connection)
        else:  # the client has gone meanwhile
            connection.rest()

    def not_connected(self, reason: str) -> None:
        if self._is_current:
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
        if self.account.counts_tokens:
            self.account.ask(data, request.facts.content_type)
        read = self._early is not None or self._ids is not None or self._hides or self.account.counts_tokens
        lines += lines_up(request, self._inbound.peer, self._plane.settings, readable=read, trace=self.account.trace)
        path = target.prefix + (self._path or b"/") + self._query
        head = framed_request(request.method, path, lines, len(data))
        self._sent_at = self._plane.now()
        times = self._times
        self.deadline = self._sent_at + self._plane.silence_seconds if times is None else self._due(times.first_byte)
        self._plane.timed(self)
        connection.request(self, request.method.decode("latin-1"), head + data)
        self.account.is_sent()
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
            data = self._named.changed(self._data, self._filter, name)
        else:
            data = self._named.renamed(self._data, name) if name else self._data
        if self._named.stream:
            self._hides = self._plane.settings.stream_usage and self._asks_usage(self._named, target)
            if self._hides:
                return self._named.asking_usage(data)
        return data

    def _asks_usage(self, named: NamedModel, target: "Target") -> bool:
        """Whether a target is asked for the usage of a stream whose client did not ask."""
        if (
            named.wants_usage
            or named.continuous
            or self._request.http10
            or self._asked_for.api not in _WITH_STREAM_OPTIONS
        ):
            return False
        if self._filter is not None and not _DECIDES_STREAM.isdisjoint(self._filter.names):
            return False
        return self._engine_of(target) in _TAKE_STREAM_OPTIONS

    def _engine_of(self, target: "Target") -> str:
        """The engine that answers; that of another server is known if its route says it."""
        if not target.value.hop:
            return target.value.engine
        return "" if self.route is None else str(self.route.value.facts.get("engine", ""))

    def writable(self) -> None:
        """The target has read nearly all of the request, unless its connection is lost, when this is called as well."""
        if self._upstream is not None and self._upstream.alive:
            self._accepted = True
