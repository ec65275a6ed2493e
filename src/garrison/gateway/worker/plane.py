"""What all connections of a worker share: settings, tables, callers, and the limits of time."""

import asyncio
import math
import os
from collections.abc import Callable
from itertools import count
from typing import Protocol

from garrison.access.book import Refusal
from garrison.access.identity import Identity
from garrison.access.limiter import Admission
from garrison.base.clock import Clock
from garrison.base.errors import GarrisonError, InvalidError, NotFoundError, NotReadyError, UnreachableError
from garrison.gateway.choose.breaker import ALWAYS
from garrison.gateway.link.messages import Settings, Tables, TargetValue
from garrison.gateway.requests.errors import Answer, error_answer, speaks_anthropic
from garrison.gateway.requests.near import near_names
from garrison.gateway.requests.nested import needs_one_of
from garrison.gateway.requests.paths import Asked, Kind
from garrison.gateway.worker.accounts.account import Account
from garrison.gateway.worker.accounts.finished import FinishedRequests
from garrison.gateway.worker.accounts.stats import Stats
from garrison.gateway.worker.connections.inbound import Inbound, Request, Work
from garrison.gateway.worker.connections.metered import Metered
from garrison.gateway.worker.connections.outbound import Outbound, connect
from garrison.gateway.worker.connections.passing import Passing
from garrison.gateway.worker.control_link import ControlLink
from garrison.gateway.worker.exchange.exchange import Exchange
from garrison.gateway.worker.exchange.upgrade import Upgrade, wants_upgrade
from garrison.gateway.worker.heads.heads import KEPT_FOR_CONTROL
from garrison.gateway.worker.sweeping import Timed, sweep
from garrison.gateway.worker.table.callers import Callers
from garrison.gateway.worker.table.listing import Listing
from garrison.gateway.worker.table.response_routes import response_route
from garrison.gateway.worker.table.router import Feed, LoadCall, loaded_alone
from garrison.gateway.worker.table.stored_responses import StoredAt, StoredResponses
from garrison.gateway.worker.table.targets import End, Route, RouteTable, Target
from garrison.net.http1.known_heads import KnownHeads

__all__ = ["Plane"]

_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 86400.0
"""For an answer of which nothing comes, unless its route says. A target that is gone is noticed by its connection."""
CONTROL = "control"


class _Connecting(Protocol):
    def connected(self, connection: Outbound) -> None: ...
    def not_connected(self, reason: str) -> None: ...


class Plane:
    """The shared state. Belongs to one event loop.

    Attributes:
        inbound: connections of clients.
        heads: of their requests, as far as they repeat.
        feeds: of clients that watch the models.
        responses: where those are that were made.
        watches: something is kept of requests that costs more than a look at the clock.
        draining: no request follows the one in progress on any connection.
        via_line: the header by which this server recognises requests that it has sent to targets.
        name: of this process, at random.
    """

    def __init__(self, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self.now: Callable[[], float] = loop.time
        self.settings = Settings(host="", port=0, control_socket="")
        self._via = self.settings.via.encode()
        self.via_line = b""
        self.table = RouteTable()
        self.callers = Callers(clock)
        self.heads = KnownHeads()
        self.link: ControlLink | None = None
        self.inbound: set[Inbound] = set()
        self.draining = False
        self.feeds: set[Feed] = set()
        self.silence_seconds = _SILENCE_SECONDS
        self.stats = Stats()
        self.responses = StoredResponses()
        self.finished = FinishedRequests()
        self.watches = False
        self.name = os.urandom(6).hex().encode()
        self._ids = count(1)
        self._loop = loop
        self._control = Target(TargetValue(id=CONTROL, counted=False))
        self._timed: set[Timed] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    def set_settings(self, told: Settings) -> None:
        self.settings = told
        self.finished.wanted = told.report_requests
        self.finished.capture(told.captures)
        self.watches = bool(told.captures) or told.traces is not None
        self.callers.set_open(infers=told.open_inference, manages=told.open_management)
        self._control.set(TargetValue(id=CONTROL, url=f"unix:{told.control_socket}", counted=False))
        self._via = told.via.encode()
        self.via_line = b"via: 1.1 " + self._via + b"\r\n"

    # --- requests

    def work_for(self, inbound: Inbound, request: Request) -> Work | None:
        """Return what answers a request; None if it is answered.

        Raises:
            GarrisonError: it is refused.
        """
        asked = request.facts.asked
        kind = asked.kind
        if kind is Kind.CONTROL or kind is Kind.PROXY:
            return self._pass_on(inbound, request, asked)
        upgrade = wants_upgrade(request)
        if upgrade and kind is not Kind.UPSTREAM:
            raise InvalidError("this path speaks no other protocol", hint="Send the request without Upgrade.")
        if kind is Kind.MODELS or kind is Kind.MODEL:
            return Listing(self, inbound, request, asked)
        if kind is Kind.ROUTER:
            return self._router_work(inbound, request, asked)
        try:
            who = self.require_caller(request)
        except GarrisonError:  # its key may just have been made
            who = None
        inbound.go_on()
        work = Upgrade if upgrade else Exchange
        return work(self, inbound, request, asked, request.facts.query, who)

    def _router_work(self, inbound: Inbound, request: Request, asked: Asked) -> Work:
        if asked.name == "list":
            return Listing(self, inbound, request, Asked(Kind.MODELS))
        if asked.name == "sse":
            return Feed(self, inbound, request)
        self.require_caller(request)
        inbound.go_on()
        return LoadCall(self, inbound, request, load=asked.name == "load")

    def load(self, request: Request, model: str, *, load: bool, then: Callable[[GarrisonError | None], None]) -> None:
        """Have a model loaded or unloaded.

        Args:
            then: is told once that has begun, or why it cannot.

        Raises:
            NotFoundError, UnauthenticatedError, DeniedError: it is unknown, or the caller may not.
            NotReadyError: the control process does not answer.
        """
        route, rest = self.route_for(request, model)
        who = self.callers.identify(request.facts)
        self.callers.require(who, route.value, model)
        if not load:
            self.callers.require_manager(who)
        if not route.ends:
            raise self.not_served(route)
        end = route.ends[0]
        adapter = route.name if end.adapter else ""
        one = loaded_alone(end, rest)
        if self.link is None or not self.link.load(end.target.id, load=load, then=then, route=adapter, model=one):
            raise NotReadyError("the server that starts models does not answer", details={"retry_after": 1})

    def sees(self, request: Request, model: str) -> bool:
        """Whether a caller may use a model."""
        found = self.table.find(model)
        return found is not None and self.callers.may_use(self.callers.identify(request.facts), found[0].value, model)

    def apply(self, told: Tables) -> None:
        """Take what the control process tells, and report it to whoever watches."""
        before = {
            one.name: known.value.facts.get("state") for one in told.routes if (known := self.table.told(one.name))
        }
        saw = {feed: [name for name in told.gone_routes if self._shows(feed, name)] for feed in self.feeds}
        self.table.apply(told)
        shown = [one for one in told.routes if one.listed]
        for feed, gone in saw.items():
            for one in shown:
                if before.get(one.name, "") != one.facts.get("state"):
                    feed.changed(one.name, one.facts.get("state"))
            for name in gone:
                feed.gone(name)

    def _shows(self, feed: Feed, name: str) -> bool:
        """Whether a route is one of the models that a feed's reader may see."""
        route = self.table.told(name)
        return route is not None and route.value.listed and feed.sees(name)

    def _pass_on(self, inbound: Inbound, request: Request, asked: Asked) -> Work:
        """Pass a request to the control process. One to an instance counts, if its key has limits."""
        work: Passing
        lines = b"x-forwarded-for: " + inbound.peer.encode() + b"\r\n"
        lines += b"x-forwarded-proto: " + (b"https" if self.settings.tls_cert else b"http") + b"\r\n"
        admission = self._begun_by(request) if asked.kind is Kind.PROXY else None
        if admission is not None:
            own = self.new_id()
            account = Account(self, asked, request.at, own, request.facts.request_id or own, inbound.peer)
            account.admissions = (admission,)
            work = Metered(self, inbound, request, self._control, lines, KEPT_FOR_CONTROL, account)
        else:
            work = Passing(self, inbound, request, self._control, request.target, lines, KEPT_FOR_CONTROL)
        inbound.work = work
        work.begin()
        return work

    def _begun_by(self, request: Request) -> Admission | None:
        """Count a request for its key. Raises RateLimitedError."""
        return self.callers.begin(self.callers.identify(request.facts), self.now())

    def require_caller(self, request: Request) -> Identity | Refusal:
        """Return who makes a request, and may see what there is.

        Raises:
            UnauthenticatedError, DeniedError, NotReadyError: it may not, or no keys are known yet.
        """
        who = self.callers.identify(request.facts)
        self.callers.require(who, None)
        return who

    def sync(self, then: Callable[[], None]) -> bool:
        """Before something unknown is refused, ask for what has changed. False: there is nobody to ask, or too many
        do."""
        return self.link is not None and self.link.sync(then)

    def route_for(self, request: Request, model: str) -> tuple[Route, str]:
        """Return the route of a model, and the name for its targets. Raises NotFoundError."""
        found = self.table.find(model)
        if found is not None and found[0].hop and _hopped(request):
            found = None  # another server has sent it here: two that know each other would go round in circles
        if found is None:
            raise self.unknown(request, model)
        return found

    def stored(self, id: str, target: Target, model: str) -> None:
        """Remember where a response was made, under which name of its model."""
        at = StoredAt(target.id, model)
        self.responses.remember(id, at)
        if self.link is not None:
            self.link.stored(id, at)

    def response_route(self, who: Identity | Refusal, asked: Asked) -> Route:
        """Return a route over the targets that have, or may have, a stored response. Raises NotFoundError."""
        return response_route(self.table, self.callers, self.responses, who, asked)

    def has_sent(self, request: Request) -> bool:
        """Whether this server has sent a request itself, to a target that has sent it back."""
        return any(len(name) == 3 and self._via in value and name.lower() == b"via" for name, value in request.headers)

    def error_answer(self, error: GarrisonError, target: bytes) -> Answer:
        """Return status, headers and body for an error, as the clients of a path read it."""
        return error_answer(error, anthropic=speaks_anthropic(target))

    def not_answered(self, target: Target | None, reason: str) -> GarrisonError:
        if target is self._control:
            return UnreachableError("the management server does not answer", hint="Requests to models go on.")
        return UnreachableError(f"it did not answer: {reason}", hint="Send the request again.")

    def unknown(self, request: Request, model: str) -> NotFoundError:
        """Return why a request for `model` is refused, with names that may have been meant."""
        who = self.callers.identify(request.facts)
        known = ((name, one.value) for name, one in self.table.routes.items() if one.value.bare)
        names = [name for name, value in known if self.callers.may_use(who, value, name)]
        near = near_names(model, names)
        hint = f"Did you mean {' or '.join(near)}?" if near else "GET /v1/models lists those that exist."
        return NotFoundError(f"there is no model {model!r}", hint=hint)

    def needs_model(self, request: Request, router: str) -> InvalidError:
        """Return why a request that names a router alone is refused, with the models that may have been meant."""
        who = self.callers.identify(request.facts)
        known = ((name, one.value) for name, one in self.table.routes.items() if name.startswith(f"{router}/"))
        return needs_one_of(router, [name for name, value in known if self.callers.may_use(who, value, name)])

    # --- targets

    def new_id(self) -> bytes:
        """Return an id that no other request has."""
        return b"%b-%x" % (self.name, next(self._ids))

    def choose(self, route: Route, key: bytes | None, tried: tuple[End, ...]) -> End | None:
        """Return the end of a route for a request, and let it through its breaker; None if there is none for it.

        Args:
            key: what it has in common with those that belong together.
            tried: ends that are not chosen again.
        """
        only = route.only
        if only is not None:  # nearly always, so it costs no call
            breaker = only.breaker
            if tried or (breaker.passes_from != ALWAYS and not breaker.may_pass(self.now())):
                return None
            return only
        policy = route.policy
        if policy is None:
            return None
        found: End | None = policy.order(route.ends, key, self.now(), tried)  # type: ignore[assignment]  # one of these
        return found

    def not_served(self, route: Route) -> GarrisonError:
        """Why a route has no target for a request, and when to ask again."""
        if not route.ends:
            text = f"nothing serves {route.name!r} now"
            return NotReadyError(text, hint="Send the request again later.", details={"retry_after": 5})
        wait = min(one.breaker.passes_from for one in route.ends) - self.now()
        return NotReadyError(
            f"{route.name!r} has failed several times in a row and is left alone for a moment",
            hint="Send the request again later; `garrison status` and the log of the engine say what is wrong.",
            details={"retry_after": max(1, math.ceil(wait))},
        )

    def enter(self, target: Target, model: str = "") -> None:
        """Count a request to a target. `model`: what it asks for, if that is not the target's own."""
        target.running += 1
        if model:
            target.begin(model)
        target.end.outstanding += 1
        if target.ends:
            target.count(1)
        if target.running == 1 and self.link is not None:
            self.link.busy(target)

    def leave(self, target: Target, model: str = "") -> None:
        """Count its end."""
        target.running -= 1
        if model and (asked := target.end_of(model)) and self.link is not None:
            for number in asked:
                self.link.left(number)
        target.end.outstanding -= 1
        if target.ends:
            target.count(-1)
        if target.running == 0 and self.link is not None:
            self.link.idle(target)

    def activate(self, target: Target, exchange: Exchange, seconds: float | None) -> int | None:
        """Ask the control process for a cold target, as `ControlLink.activate`."""
        if self.link is None:
            exchange.refused(UnreachableError("the management server does not answer", hint="Send it again later."))
            return None
        return self.link.activate(target, exchange, seconds)

    def abandon(self, number: int) -> None:
        if self.link is not None:
            self.link.abandon(number)

    def soon(self, call: Callable[[], None]) -> None:
        """Call in a later step."""
        self._loop.call_soon(call)

    def later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Call after a while."""
        return self._loop.call_later(seconds, call)

    def connect(self, target: Target, owner: _Connecting, seconds: float | None = None) -> None:
        """Open a connection in a task of its own; whoever asked is told, unless it has gone."""
        task = self._loop.create_task(self._connect(target, owner, seconds or _CONNECT_SECONDS))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, target: Target, owner: _Connecting, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                made = await connect(target)
        except TimeoutError:
            owner.not_connected(f"no connection within {seconds:g} s")
        except (OSError, ValueError) as error:  # a name that cannot be looked up is a ValueError
            owner.not_connected(getattr(error, "strerror", None) or str(error))
        else:
            owner.connected(made)

    # --- times

    def timed(self, one: Timed) -> None:
        """Have it expire at its deadline."""
        self._timed.add(one)

    def ended(self, one: Timed) -> None:
        self._timed.discard(one)

    async def sweep(self) -> None:
        """End what takes too long."""
        await sweep(self.now, self._timed, self.inbound)


def _hopped(request: Request) -> bool:
    return any(len(name) == 14 and name.lower() == b"x-garrison-hop" for name, _ in request.headers)
