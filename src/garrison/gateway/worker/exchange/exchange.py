"""One request to a model, from its head to the last byte of its answer.

It is a chain of callbacks: `body_end` chooses a target; a connection takes the request; what the target answers is
written to the client as it arrives, one write for each read. A target that fails before the first byte went to the
client is replaced by another one, or asked again over a new connection.
"""

from random import getrandbits, random
from typing import TYPE_CHECKING

from garrison.access.identity import Identity
from garrison.base.errors import GarrisonError, NotFoundError, NotReadyError, UnauthenticatedError
from garrison.gateway.requests.errors import StoppedError
from garrison.gateway.requests.paths import Api, ModelIn
from garrison.gateway.requests.trace_context import trace_of
from garrison.gateway.worker.accounts.account import CLIENT_LEFT
from garrison.gateway.worker.accounts.capture import Capture
from garrison.gateway.worker.exchange.bodies import named_model
from garrison.gateway.worker.exchange.sending import Sending
from garrison.gateway.worker.table.filters import filter_for
from garrison.gateway.worker.table.stored_responses import IdReader, previous_response

if TYPE_CHECKING:
    from garrison.access.book import Refusal
    from garrison.gateway.worker.table.targets import End, Route, Target

__all__ = ["Exchange"]

_MOST_OF_STRANGERS = 64 * 1024
"""Bytes of the body of a request without a valid key; a longer one is refused before it ends."""


class Exchange(Sending):
    """`Work` for one request, and `Answered` by its target.

    Args:
        asked: what the request asks for.
        query: of its target, with the question mark.
        who: the caller, where it may see what there is; None where that has to be looked at again.
    """

    __slots__ = ()

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

    def cancel(self) -> None:
        """The client has gone: so does the request, at once."""
        self._give_up()
        self._end(CLIENT_LEFT, "client-left")

    def stop(self) -> None:
        """Somebody who may has it ended."""
        self._give_up()
        self.account.outcome = "stopped"
        if self._started:
            self._end()
            self._inbound.abort()
        else:
            self._refuse(StoppedError("the request was stopped by an operator of the server"))

    def pause(self, paused: bool) -> None:
        if self._upstream is not None:
            self._upstream.pause_reading(paused)

    # --- admission

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
        self.account.is_read()
        if self._plane.watches:
            self._trace()
        try:
            if self._who is None or self._synced:
                self._who = self._plane.require_caller(self._request)
            who = self._who
            if self._plane.watches:
                self._capture()
            self.account.key = who.key_id if isinstance(who, Identity) else None
            self.route = self._find_route(who)
            self.account.route = self.route.name
            self.account.admissions = self._plane.callers.count(who, self.route, self._plane.now())
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

    def _trace(self) -> None:
        settings, account = self._plane.settings, self.account
        if settings.traces is not None and account.trace is None:
            bits, sampled = getrandbits(192), random() < settings.traces  # noqa: S311 - no secrets
            account.trace = trace_of(self._request.headers, bits, sampled=sampled)

    def _capture(self) -> None:
        """Keep what the settings ask for, of callers that are known: strangers would push out all others."""
        settings, account = self._plane.settings, self.account
        if settings.captures and account.capture is None:
            account.capture = Capture(self._request, self._data, settings.capture_bytes)

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
            self.account.stream = self._named.stream
        self.account.model = self._model
        route, self.rest = self._plane.route_for(self._request, self._model)
        self._plane.callers.require(who, route.value, self._model)
        if asked.api is Api.RESPONSES:
            self._ids = IdReader()
            if route.policy is not None:
                self._follows = self._plane.responses.find(previous_response(self._data))
        return route

    # --- a target that does not run

    def _activate(self, target: "Target") -> None:
        """Wait for a target that does not run."""
        waiter = self._waits()
        try:
            waiter.load()
        except GarrisonError as error:
            self._refuse(error)
            return
        self.account.waits()
        self._begin_to_wait()
        self._wait = self._plane.activate(target, self, waiter.patience)

    @property
    def cold(self) -> "tuple[End, tuple[Target, ...]]":
        """What this request waits for, and where it has failed."""
        assert self._end_asked is not None
        return self._end_asked, self._failed

    def activated(self, target: "Target | None" = None, wake: float = 0.0) -> None:
        """A target is ready, and stays so until this request is counted. An adapter may have been loaded at another
        target of the route, and has a name only now.

        Args:
            wake: seconds that the start of the target took.
        """
        self._loaded(wake)
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

    def _loaded(self, wake: float = 0.0) -> None:
        """The target that was waited for is there, or will not be."""
        self._wait = None
        self.account.goes_on(wake)
        self._end_wait()
        if self._waiter is not None:
            self._waiter.loaded()
