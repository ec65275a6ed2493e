"""What all connections of a worker share: settings, tables, callers, and the limits of time."""

import asyncio
import math
import os
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Protocol

from garrison.access.book import Refusal
from garrison.access.identity import Identity
from garrison.access.limiter import Admission
from garrison.base.clock import Clock
from garrison.base.errors import GarrisonError, InvalidError, NotFoundError, NotReadyError, UnreachableError
from garrison.gateway.choose.breaker import ALWAYS
from garrison.gateway.link.messages import Settings, Tables, TargetValue
from garrison.gateway.requests.errors import Answer, error_answer, speaks_anthropic
from garrison.gateway.requests.near import near_names
from garrison.gateway.requests.paths import Asked, Kind
from garrison.gateway.worker.callers import Callers
from garrison.gateway.worker.exchange import Exchange
from garrison.gateway.worker.heads import KEPT_FOR_CONTROL
from garrison.gateway.worker.inbound import Inbound, Request, Work
from garrison.gateway.worker.listing import Listing
from garrison.gateway.worker.outbound import Outbound, connect
from garrison.gateway.worker.passing import Passing
from garrison.gateway.worker.router import Feed, LoadCall, loaded_alone, status_of
from garrison.gateway.worker.stats import Stats
from garrison.gateway.worker.targets import End, Route, RouteTable, Target
from garrison.net.http1.known_heads import KnownHeads

__all__ = ["ControlLink", "Plane"]

_CONNECT_SECONDS = 10.0
_HEAD_SECONDS = 20.0
"""For a head, from its first byte to its last."""
_BODY_SECONDS = 60.0
"""Between two pieces of a body."""
_IDLE_SECONDS = 75.0
"""For an idle connection of a client."""
_SWEEP_SECONDS = 0.5
CONTROL = "control"


class _Connecting(Protocol):
    def connected(self, connection: Outbound) -> None: ...
    def not_connected(self, reason: str) -> None: ...


class _Timed(Protocol):
    deadline: float

    def expired(self) -> None: ...


class ControlLink(Protocol):
    """What the plane needs of the connection to the control process."""

    def activate(self, target: Target, exchange: Exchange) -> int:
        """Ask for a cold target; the exchange is told."""

    def abandon(self, number: int) -> None:
        """Nobody waits for that any more."""

    def sync(self, then: Callable[[], None]) -> bool:
        """Have everything told that has changed, and call `then`, at the latest after half a second. False: not now."""

    def load(self, targets: list[tuple[str, str]], *, load: bool, then: Callable[[GarrisonError | None], None]) -> bool:
        """Have targets started or stopped, or the one of their models that is named, and call `then` when that has
        begun. False: there is nobody to ask."""

    def busy(self, target: Target) -> None:
        """The first request to a target has begun."""

    def idle(self, target: Target) -> None:
        """The last request to a target has ended."""


class Plane:
    """The shared state. Belongs to one event loop.

    Attributes:
        inbound: connections of clients.
        heads: of their requests, as far as they repeat.
        feeds: of clients that watch the models.
        draining: no request follows the one in progress on any connection.
    """

    def __init__(self, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self.now: Callable[[], float] = loop.time
        self.settings = Settings(host="", port=0, control_socket="")
        self.table = RouteTable()
        self.callers = Callers(clock)
        self.heads = KnownHeads()
        self.link: ControlLink | None = None
        self.inbound: set[Inbound] = set()
        self.draining = False
        self.feeds: set[Feed] = set()
        self.silence_seconds = 3600.0
        self.stats = Stats()
        self._ids_begin = os.urandom(6).hex().encode()
        self._ids = count(1)
        self._loop = loop
        self._control = Target(TargetValue(id=CONTROL))
        self._timed: set[_Timed] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    def set_settings(self, told: Settings) -> None:
        self.settings = told
        self.callers.set_open(infers=told.open_inference, manages=told.open_management)
        self._control.set(TargetValue(id=CONTROL, url=f"unix:{told.control_socket}"))

    # --- requests

    def work_for(self, inbound: Inbound, request: Request) -> Work | None:
        """Return what answers a request; None if it is answered.

        Raises:
            GarrisonError: it is refused.
        """
        asked = request.facts.asked
        kind = asked.kind
        if kind is Kind.CONTROL or kind is Kind.PROXY:
            return self._pass_on(inbound, request)
        if request.upgrade and not _offers_http2(request):
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
        return Exchange(self, inbound, request, asked, request.facts.query, who)

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
        asked = [(one.target.id, loaded_alone(one, rest)) for one in route.ends[:1]]
        if self.link is None or not self.link.load(asked, load=load, then=then):
            raise NotReadyError("the server that starts models does not answer", details={"retry_after": 1})

    def sees(self, request: Request, model: str) -> bool:
        """Whether a caller may use a model."""
        found = self.table.find(model)
        return found is not None and self.callers.may_use(self.callers.identify(request.facts), found[0].value)

    def apply(self, told: Tables) -> None:
        """Take what the control process tells, and report it to whoever watches."""
        before = {
            one.name: known.value.facts.get("state")
            for one in told.routes
            if (known := self.table.routes.get(one.name))
        }
        self.table.apply(told)
        for feed in list(self.feeds):
            for one in told.routes:
                if not one.only_nested and before.get(one.name, "") != one.facts.get("state"):
                    feed.changed(one.name, one.facts.get("state"))
            for name in told.gone_routes:
                feed.gone(name)

    def _pass_on(self, inbound: Inbound, request: Request) -> Work:
        lines = b"x-forwarded-for: " + inbound.peer.encode() + b"\r\n"
        lines += b"x-forwarded-proto: " + (b"https" if self.settings.tls_cert else b"http") + b"\r\n"
        work = Passing(self, inbound, request, self._control, request.target, lines, KEPT_FOR_CONTROL)
        inbound.work = work
        work.begin()
        return work

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
        if found is not None and any(one.target.value.hop for one in found[0].ends) and _hopped(request):
            found = None  # another server has sent it here: two that know each other would go round in circles
        if found is None:
            raise self._unknown(request, model)
        return found

    def admit(self, who: Identity | Refusal, route: Route, model: str) -> Admission | None:
        """Check that a caller may use a route, and count its request.

        Raises:
            UnauthenticatedError, DeniedError, RateLimitedError: it may not.
        """
        self.callers.require(who, route.value, model)
        return self.callers.begin(who, self.now())

    def limiter_end(self, admission: Admission) -> None:
        self.callers.limiter.end(admission, self.now())

    def limiter_spend(self, admission: Admission, tokens: int) -> None:
        self.callers.limiter.spend(admission, self.now(), tokens)

    def error_answer(self, error: GarrisonError, target: bytes) -> Answer:
        """Return status, headers and body for an error, as the clients of a path read it."""
        return error_answer(error, anthropic=speaks_anthropic(target))

    def not_answered(self, target: Target | None, reason: str) -> GarrisonError:
        if target is self._control:
            return UnreachableError("the management server does not answer", hint="Requests to models go on.")
        return UnreachableError(f"it did not answer: {reason}", hint="Send the request again.")

    def models(self, request: Request, asked: Asked) -> Mapping[str, Any]:
        """Return what is listed for a caller. Raises GarrisonError."""
        who = self.require_caller(request)
        routes = self.table.routes
        if asked.kind is Kind.MODELS:
            every = (one for one in routes.values() if not one.value.only_nested)
            return {"object": "list", "data": [_entry(one) for one in every if self.callers.may_use(who, one.value)]}
        found = routes.get(asked.name)
        if found is None or not self.callers.may_use(who, found.value):
            raise self._unknown(request, asked.name)
        return _entry(found)

    def _unknown(self, request: Request, model: str) -> NotFoundError:
        who = self.callers.identify(request.facts)
        names = [one.name for one in self.table.routes.values() if self.callers.may_use(who, one.value)]
        near = near_names(model, names)
        hint = f"Did you mean {' or '.join(near)}?" if near else "GET /v1/models lists those that exist."
        return NotFoundError(f"there is no model {model!r}", hint=hint)

    # --- targets

    def new_id(self) -> bytes:
        """Return an id for a request that has none."""
        return b"%b-%x" % (self._ids_begin, next(self._ids))

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

    def enter(self, target: Target) -> None:
        """Count a request to a target."""
        target.running += 1
        target.end.outstanding += 1
        if target.ends:
            target.count(1)
        if target.running == 1 and self.link is not None:
            self.link.busy(target)

    def leave(self, target: Target) -> None:
        """Count its end."""
        target.running -= 1
        target.end.outstanding -= 1
        if target.ends:
            target.count(-1)
        if target.running == 0 and self.link is not None:
            self.link.idle(target)

    def activate(self, target: Target, exchange: Exchange) -> int | None:
        """Ask the control process for a cold target."""
        if self.link is None:
            exchange.refused(UnreachableError("the management server does not answer", hint="Send it again later."))
            return None
        return self.link.activate(target, exchange)

    def abandon(self, number: int) -> None:
        if self.link is not None:
            self.link.abandon(number)

    def later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Call after a while."""
        return self._loop.call_later(seconds, call)

    def connect(self, target: Target, owner: _Connecting) -> None:
        """Open a connection in a task of its own; whoever asked is told, unless it has gone."""
        task = self._loop.create_task(self._connect(target, owner))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, target: Target, owner: _Connecting) -> None:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                made = await connect(target)
        except TimeoutError:
            owner.not_connected(f"no connection within {_CONNECT_SECONDS:g} s")
        except (OSError, ValueError) as error:  # a name that cannot be looked up is a ValueError
            owner.not_connected(getattr(error, "strerror", None) or str(error))
        else:
            owner.connected(made)

    # --- times

    def timed(self, one: _Timed) -> None:
        """Have it expire at its deadline."""
        self._timed.add(one)

    def ended(self, one: _Timed) -> None:
        self._timed.discard(one)

    async def sweep(self) -> None:
        """End what takes too long. Each is a comparison, so that thousands of connections cost little."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = self.now()
            for one in [one for one in self._timed if one.deadline and one.deadline < now]:
                one.expired()
            least = min(_BODY_SECONDS, _IDLE_SECONDS)
            for client in [one for one in self.inbound if one.ends or one.head_at or now - one.at > least]:
                _end_if_late(client, now)


def _end_if_late(client: Inbound, now: float) -> None:
    silent = now - client.at
    if client.ends:
        if now > client.ends:
            client.end(now)
    elif client.quiet():
        if silent > _IDLE_SECONDS or (client.head_at and now - client.head_at > _HEAD_SECONDS):
            client.close()
    elif client.in_body and silent > _BODY_SECONDS and not client.paused:
        client.close()


def _hopped(request: Request) -> bool:
    return any(len(name) == 14 and name.lower() == b"x-garrison-hop" for name, _ in request.headers)


def _offers_http2(request: Request) -> bool:
    """Whether that is all: Java's client offers it with every request, and takes an answer in HTTP/1.1."""
    return request.method != b"CONNECT" and all(
        value.strip().lower() == b"h2c" for name, value in request.headers if name.lower() == b"upgrade"
    )


def _entry(route: Route) -> dict[str, Any]:
    value = route.value
    told = {"id": value.name, "object": "model", "created": value.created, "owned_by": value.owned_by, **value.facts}
    return told | {"status": status_of(value.facts.get("state"))}
