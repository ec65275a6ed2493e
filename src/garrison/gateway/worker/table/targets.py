"""What there is: routes by name, and targets with their idle connections."""

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from garrison.gateway.choose.breaker import Breaker
from garrison.gateway.choose.candidate import Candidate
from garrison.gateway.choose.policy import Policy, policy_of
from garrison.gateway.choose.retry_budget import RetryBudget
from garrison.gateway.link.messages import RouteValue, Tables, TargetValue
from garrison.gateway.requests.rewrite import Rewrite
from garrison.gateway.worker.table.affinity import Affinity, affinity_of
from garrison.gateway.worker.table.carried import Carried, Shared
from garrison.gateway.worker.table.filters import filters_of
from garrison.gateway.worker.table.rates import rates_of
from garrison.net.origin import origin_of

if TYPE_CHECKING:
    from garrison.gateway.worker.connections.outbound import Outbound

__all__ = ["End", "Route", "RouteTable", "Target"]

_UNIX = "unix:"
_MOST_USED = 1000
"""Names of a second; those that are asked for by `TARGET/NAME` are the clients'."""


class Target:
    """One place where requests go.

    Attributes:
        value: as the control process tells it.
        open: requests may go there without asking the control process.
        running: requests in progress.
        told: whether the control process knows that `running` is not zero.
        using: requests in progress by the name that they ask for, where that is not its own.
        used: such names since the control process was last told.
        awaited: for such a name, the numbers of the messages that ask when its last request has ended.
        idle: connections without a request, the one used last at the end.
        head: header lines that every request to it has.
        path: of its unix socket; None for TCP.
        breaker: of all its ends. A target that is told anew has a new one, since another process answers there.
        end: for its own model with the plain weight, in every route.
        ends: further ones, each of one route.
        recovered_at: when its breaker closed.
        loading: where its start is, while requests wait for it.
    """

    __slots__ = (
        "awaited", "breaker", "end", "ends", "head", "host", "id", "idle", "loading", "open", "path", "port", "prefix",
        "recovered_at", "running", "tls", "told", "used", "using", "value",
    )  # fmt: skip

    def __init__(self, value: TargetValue) -> None:
        self.id = value.id
        self.running = 0
        self.breaker = Breaker()
        self.recovered_at: float | None = None
        self.ends: set[End] = set()
        self.open = False
        self.end = End(self)
        self.told = False
        self.using: dict[str, int] = {}
        self.used: set[str] = set()
        self.awaited: dict[str, list[int]] = {}
        self.idle: list[Outbound] = []
        self.loading: dict[str, Any] = {}
        self.set(value)

    def set(self, value: TargetValue) -> None:
        """Take another value. Connections to where it was before are of no use any more."""
        self.value = value
        self._opened(value.url is not None)
        self.host, self.port, self.tls, self.prefix = "", 0, False, b""
        self.path: str | None = None
        self.head = b""
        self.drop_idle()
        if value.url is None:
            return
        if value.url.startswith(_UNIX):
            self.path = value.url.removeprefix(_UNIX)
        else:
            origin = origin_of(value.url)
            self.host, self.port, self.tls = origin.host, origin.port, origin.tls
            self.prefix = origin.prefix.encode()
            self.head = b"host: " + origin.authority.encode() + b"\r\n"
        if value.key is not None:
            self.head += b"authorization: Bearer " + value.key.encode() + b"\r\n"
        if value.hop:
            self.head += b"x-garrison-hop: 1\r\n"

    def close(self) -> None:
        """Let no further request through."""
        self._opened(False)
        self.drop_idle()

    def count(self, requests: int) -> None:
        """Count them for the ends of single routes."""
        for one in self.ends:
            one.outstanding += requests

    def begin(self, model: str) -> None:
        """Count a request that asks for `model`."""
        self.using[model] = self.using.get(model, 0) + 1
        if len(self.used) < _MOST_USED:
            self.used.add(model)

    def end_of(self, model: str) -> list[int]:
        """Count its end. Returns the numbers of the messages that waited for this."""
        left = self.using.pop(model) - 1
        if left:
            self.using[model] = left
            return []
        return self.awaited.pop(model, [])

    def answered(self, breaker: Breaker, generation: int, now: float) -> None:
        """Count an answer to a request that `breaker` has let through."""
        if breaker.succeeded(now, generation) and breaker is self.breaker:
            self.recovered_at = now
            for one in (self.end, *self.ends):
                one.recovered_at = now

    def _opened(self, is_open: bool) -> None:
        self.open = is_open
        self.loading = {}
        if is_open:
            self.breaker = Breaker()
            self.recovered_at = None
        for one in (self.end, *self.ends):
            one.warm, one.breaker, one.recovered_at = is_open and one.loaded, self.breaker, self.recovered_at

    def drop_idle(self) -> None:
        idle, self.idle = self.idle, []
        for one in idle:
            one.close()


class End(Candidate):
    """A target as a route asks it: for its own model, or for another one, such as an adapter.

    Attributes:
        target: where the request goes.
        model: the name that it is asked for; empty for its own.
        adapter: the declared adapter that is asked for, as clients call it; empty for none.
        loaded: requests can be answered once the target is open.
    """

    __slots__ = ("adapter", "loaded", "model", "target")

    def __init__(self, target: Target, model: str = "", weight: float = 1.0, adapter: str = "") -> None:
        name = f"{target.id}/{adapter or model}" if adapter or model else target.id
        self.loaded = bool(model) or not adapter
        super().__init__(name, weight, warm=target.open and self.loaded, breaker=target.breaker)
        self.target = target
        self.model = model
        self.adapter = adapter
        self.outstanding = target.running
        self.recovered_at = target.recovered_at


class Route:
    """A public name: its value, and its ends in the declared order.

    Attributes:
        name: without the slash of a route that stands only for what is beneath its name.
        ends: replaced when one joins, leaves, or has another model or weight; never changed in place.
        only: the end of a route that has just one, which needs no policy.
        hop: whether one of its targets is another server.
        policy: None for a route of one end.
        affinity: what its policy needs to know of a request; None for nothing.
        filters: what changes in requests, by the name that they were sent to; None for nothing.
        budget: of retries to another end; None for a route of one end.
        line: of requests that wait for it.
        rates: limits of what it carries; None for none. They are counted by `limiter`. It may share both with others.
    """

    __slots__ = ("_carried", "_shape", "affinity", "budget", "ends", "filters", "hop", "limiter", "line", "name",
                 "only", "policy", "rates", "value")  # fmt: skip

    def __init__(self, value: RouteValue, targets: Mapping[str, Target], carried: Carried | None = None) -> None:
        self.ends: tuple[End, ...] = ()
        self._shape: tuple[tuple[Target, str, float, str], ...] = ()
        self.only: End | None = None
        self.hop = False
        self.policy: Policy | None = None
        self.affinity: Affinity | None = None
        self.filters: Mapping[str, Rewrite] | None = filters_of(value)
        self.budget: RetryBudget | None = None
        self._carry(carried or Carried(value))
        self.rates = rates_of(value)
        self.value = value
        self.name = value.name.removesuffix("/")
        self._follow(targets)

    def set(self, value: RouteValue, targets: Mapping[str, Target], carried: Carried | None = None) -> None:
        """Take another value. What the policy remembers stays, unless it is another policy.

        Requests that wait, or are in progress, stay with what counted them.
        """
        if carried is not None:
            self._carry(carried)
        if (value.policy, value.options) != (self.value.policy, self.value.options):
            self.policy = None
        if (value.queue, value.limits) != (self.value.queue, self.value.limits):
            self._carried.set(value)
            self.rates = rates_of(value)
        if value.filters != self.value.filters:
            self.filters = filters_of(value)
        self.value = value
        self._follow(targets)

    @property
    def warm(self) -> bool:
        """Whether there is a target that could be asked now."""
        return any(one.target.open for one in self.ends)

    @property
    def loading(self) -> dict[str, Any]:
        """Where the start of one of its targets is; empty where nothing is known of any."""
        return next((one.target.loading for one in self.ends if one.target.loading), {})

    def end_at(self, target: str, tried: Collection["End"], now: float) -> "End | None":
        """Return its end at a target, if that can be asked now, and let a request through its breaker."""
        for end in self.ends:
            if end.target.id == target and end.target.open and end not in tried and end.breaker.may_pass(now):
                return end
        return None

    def leave(self) -> None:
        """The route is gone."""
        for one in self.ends:
            one.target.ends.discard(one)

    def tried(self, failed: Collection[Target]) -> tuple[End, ...]:
        """Return the ends of targets where a request has failed."""
        return tuple(one for one in self.ends if one.target in failed)

    def loaded_at(self, target: Target) -> End | None:
        """Return the end at a target, if its adapter is loaded there."""
        return next((one for one in self.ends if one.target is target and one.loaded), None)

    def has_others(self, failed: Collection[Target], now: float) -> bool:
        """Whether there is another target that could be asked."""
        return any(now >= one.breaker.passes_from for one in self.ends if one.target not in failed)

    def _carry(self, carried: Carried) -> None:
        self._carried = carried
        self.line, self.limiter = carried.line, carried.limiter

    def _follow(self, targets: Mapping[str, Target]) -> None:
        value = self.value
        models = value.models or ("",) * len(value.targets)
        weights = value.weights or (1.0,) * len(value.targets)
        adapters = value.adapters or ("",) * len(value.targets)
        told = zip(value.targets, models, weights, adapters, strict=True)
        shape = tuple((targets[one], model, weight, of) for one, model, weight, of in told if one in targets)
        if shape != self._shape:
            self.leave()
            self._shape = shape
            self.ends = tuple(_end(*one) for one in shape)
            for one in self.ends:
                if one is not one.target.end:
                    one.target.ends.add(one)
        self.only = self.ends[0] if len(self.ends) == 1 else None
        self.hop = any(one.target.value.hop for one in self.ends)
        if len(self.ends) > 1:
            self.policy = self.policy or policy_of(value.policy, **value.options)
            self.budget = self.budget or RetryBudget()
        several = len(self.ends) > 1
        block = value.options.get("block", 0)
        self.affinity = affinity_of(value.policy, value.affinity, block=block) if several else None


def _end(target: Target, model: str, weight: float, adapter: str) -> End:
    plain = not model and not adapter and weight == 1.0
    return target.end if plain else End(target, model, weight, adapter)


class RouteTable:
    """Every route and target. Names cost one lookup, whatever their number is.

    Attributes:
        routes: by each name that requests can be sent to, aliases too.
    """

    def __init__(self) -> None:
        self.targets: dict[str, Target] = {}
        self.routes: dict[str, Route] = {}
        self._told: dict[str, Route] = {}
        """By the name that the control process tells."""
        self._beneath: dict[str, Route] = {}
        """Of names that other routes have."""
        self._through: dict[str, set[str]] = {}
        """Told names of the routes of a target."""
        self._shared = Shared()

    def find(self, model: str) -> tuple[Route, str] | None:
        """Return the route of a name, and the name that its targets are asked for; empty for their own.

        A name that stands in the table comes first, slashes or not; then `ROUTE/REST`, of a route that has more than
        one model behind it.
        """
        if (route := self.routes.get(model)) is not None and route.value.bare:
            return route, route.value.rest
        name, slash, rest = model.partition("/")
        if slash and rest:
            route = self._beneath.get(name) or self.routes.get(name)
            if route is not None and route.value.nested:
                names = route.value.names
                return (route, rest) if names is None or rest in names else None
        return None

    def through(self, target: Target) -> Iterator[Route]:
        """Yield the routes over a target."""
        return (self._told[name] for name in self._through.get(target.id, ()))

    def told(self, name: str) -> Route | None:
        """Return a route by the name that the control process tells."""
        return self._told.get(name)

    def apply(self, told: Tables) -> None:
        """Take what the control process tells. Targets are changed in place: requests in progress hold them."""
        gone_targets, gone_routes = set(told.gone_targets), set(told.gone_routes)
        if told.whole:
            gone_targets |= self.targets.keys() - {one.id for one in told.targets}
            gone_routes |= self._told.keys() - {one.name for one in told.routes}
        for name in gone_routes:
            self._drop(name)
        moved = set()
        for key in gone_targets:
            if (target := self.targets.pop(key, None)) is not None:
                target.close()
                moved.add(key)
        for value in told.targets:
            known = self.targets.get(value.id)
            if known is None:
                known = self.targets[value.id] = Target(value)
                moved.add(value.id)
            elif known.value != value or known.open != (value.url is not None):
                known.set(value)
        for route in told.routes:
            self._put(route)
        for name in {name for key in moved for name in self._through.get(key, ())}:
            found = self._told[name]
            found.set(found.value, self.targets)

    def _put(self, value: RouteValue) -> None:
        route = self._told.get(value.name)
        if route is None:
            route = self._told[value.name] = Route(value, self.targets, self._shared.of(value))
        else:
            self._forget(route)
            route.set(value, self.targets, self._shared.of(value))
        if value.name != route.name:
            self._beneath[route.name] = route
        else:
            self.routes[value.name] = route
            for alias in value.aliases:
                self.routes[alias] = route
        for key in value.targets:
            self._through.setdefault(key, set()).add(value.name)

    def _drop(self, name: str) -> None:
        if (route := self._told.pop(name, None)) is not None:
            self._forget(route)
            route.leave()

    def _forget(self, route: Route) -> None:
        """Take a route out of everything but what was told. A name may have another route by now."""
        value = route.value
        for names in (self.routes, self._beneath):
            for name in (route.name, *value.aliases):
                if names.get(name) is route:
                    del names[name]
        for key in value.targets:
            through = self._through.get(key)
            if through is not None:
                through.discard(value.name)
                if not through:
                    del self._through[key]
