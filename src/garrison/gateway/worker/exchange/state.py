"""What is known of one request, its times, and its end, by which everything is given back."""

from typing import TYPE_CHECKING

from garrison.access.identity import Identity
from garrison.base.errors import GarrisonError
from garrison.gateway.requests.hidden_usage import HiddenUsage
from garrison.gateway.requests.paths import Asked
from garrison.gateway.worker.accounts.account import CUT_OFF, Account
from garrison.gateway.worker.exchange.bodies import NamedModel
from garrison.gateway.worker.exchange.early_stream import Comments, EarlyStream
from garrison.gateway.worker.exchange.waiter import Waiter
from garrison.gateway.worker.table.stored_responses import IdReader

if TYPE_CHECKING:
    import asyncio

    from garrison.access.book import Refusal
    from garrison.gateway.choose.breaker import Breaker
    from garrison.gateway.link.route_settings import TimeoutsValue
    from garrison.gateway.requests.rewrite import Rewrite
    from garrison.gateway.worker.connections.inbound import Inbound, Request
    from garrison.gateway.worker.connections.outbound import Outbound
    from garrison.gateway.worker.plane import Plane
    from garrison.gateway.worker.table.stored_responses import StoredAt
    from garrison.gateway.worker.table.targets import End, Route, Target

__all__ = ["ExchangeState"]


class ExchangeState:
    """What all steps of an exchange share.

    Args:
        asked: what the request asks for.
        query: of its target, with the question mark.
        who: the caller, where it may see what there is; None where that has to be looked at again.
    """

    __slots__ = (
        "_accepted", "_again", "_asked_for", "_breaker", "_chunked", "_comments", "_data", "_early", "_end_asked",
        "_ends", "_entered", "_failed", "_failure", "_filter", "_follows", "_generation", "_hidden", "_hides", "_id",
        "_ids", "_inbound", "_made_id", "_model", "_named", "_out", "_path", "_pieces", "_plane", "_query",
        "_rechecked", "_request", "_sent_at", "_size", "_started", "_synced", "_times", "_tries", "_upstream",
        "_using", "_wait", "_waiter", "_who", "account", "deadline", "rest", "route", "target",
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
        own, given = plane.new_id(), request.facts.request_id
        self._id = given or own
        self._made_id = not given
        self.account = Account(plane, asked, request.at, own, self._id, inbound.peer)
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
        self._hides = False
        self._hidden: HiddenUsage | None = None
        self.route: Route | None = None
        self.target: Target | None = None
        self.rest = ""
        self.deadline = 0.0

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

    # --- the end

    @property
    def _is_current(self) -> bool:
        """Whether the client still waits for this request."""
        work: object = self._inbound.work
        return work is self

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
        self._end(number, error.code)
        if not self._is_current:
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

    def _end(self, status: int = CUT_OFF, outcome: str = "cut-off") -> None:
        """Everything is given back.

        Args:
            status: where the answer has not begun.
            outcome: where it is not complete.
        """
        self._plane.ended(self)
        if self._waiter is not None:
            self._end_wait()
            self._waiter.done()
        account = self.account
        account.tries, account.target = self._tries, "" if self._end_asked is None else self._end_asked.target.id
        account.end(status, outcome, len(self._data))
        self._leave()

    def _end_wait(self) -> None:
        self.deadline = 0.0
        if self._comments is not None:
            self._comments.stop()
            self._comments = None

    # --- what later steps do

    def expired(self) -> None:
        """As `Timed.expired`."""
        raise NotImplementedError

    def _choose(self, tried: tuple["End", ...] = ()) -> None:
        """Ask a target that is not among `tried`."""
        raise NotImplementedError

    def _connect(self, target: "Target") -> None:
        """Ask over a new connection."""
        raise NotImplementedError

    def _activate(self, target: "Target") -> None:
        """Wait for a target that does not run."""
        raise NotImplementedError
