"""What there is: routes by name, and targets with their idle connections."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from garrison.gateway.choose.breaker import Breaker
from garrison.gateway.choose.candidate import Candidate
from garrison.gateway.choose.policy import Policy, policy_of
from garrison.gateway.choose.retry_budget import RetryBudget
from garrison.gateway.link.messages import RouteValue, Tables, TargetValue
from garrison.gateway.worker.affinity import Affinity
from garrison.net.origin import origin_of

if TYPE_CHECKING:
    from garrison.gateway.worker.outbound import Outbound

__all__ = ["End", "Route", "RouteTable", "Target"]

_UNIX = "unix:"


_AFFINITY = {"hash": Affinity.SESSION, "prefix": Affinity.PROMPT}


class Target:
    """One place where requests go.

    Attributes:
        value: as the control process tells it.
        open: requests may go there without asking the control process.
        running: requests in progress.
        told: whether the control process knows that `running` is not zero.
        idle: connections without a request, the one used last at the end.
        head: header lines that every request to it has.
        path: of its unix socket; None for TCP.
        breaker: of all its ends. A target that is told anew has a new one, since another process answers there.
        end: for its own model with the plain weight, in every route.
        ends: further ones, each of one route.
        recovered_at: when its breaker closed.
    """

    __slots__ = (
        "breaker", "end", "ends", "head", "host", "id", "idle", "open", "path", "port", "prefix", "recovered_at",
        "running", "tls", "told", "value",
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
        self.idle: list[Outbound] = []
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

    def answered(self, breaker: Breaker, generation: int, now: float) -> None:
        """Count an answer to a request that `breaker` has let through."""
        if breaker.succeeded(now, generation) and breaker is self.breaker:
            self.recovered_at = now
            for one in (self.end, *self.ends):
                one.recovered_at = now

    def _opened(self, is_open: bool) -> None:
        self.open = is_open
        if is_open:
            self.breaker = Breaker()
            self.recovered_at = None
        for one in (self.end, *self.ends):
            one.warm, one.breaker, one.recovered_at = is_open, self.breaker, self.recovered_at

    def drop_idle(self) -> None:
        idle, self.idle = self.idle, []
        for one in idle:
            one.close()


class End(Candidate):
    """A target as a route asks it: for its own model, or for another one, such as an adapter.

    Attributes:
        target: where the request goes.
        model: the name that it is asked for; empty for its own.
    """

    __slots__ = ("model", "target")

    def __init__(self, target: Target, model: str = "", weight: float = 1.0) -> None:
        name = f"{target.id}/{model}" if model else target.id
        super().__init__(name, weight, warm=target.open, breaker=target.breaker)
        self.target = target
        self.model = model
        self.outstanding = target.running
        self.recovered_at = target.recovered_at


class Route:
    """A public name: its value, and its ends in the declared order.

    Attributes:
        ends: replaced when one joins, leaves, or has another model or weight; never changed in place.
        only: the end of a route that has just one, which needs no policy.
        policy: None for a route of one end.
        affinity: what its policy needs to know of a request; None for nothing.
        budget: of retries to another end; None for a route of one end.
    """

    __slots__ = ("_shape", "affinity", "budget", "ends", "name", "only", "policy", "value")

    def __init__(self, value: RouteValue, targets: Mapping[str, Target]) -> None:
        self.ends: tuple[End, ...] = ()
        self._shape: tuple[tuple[Target, str, float], ...] = ()
        self.only: End | None = None
        self.policy: Policy | None = None
        self.affinity: Affinity | None = None
        self.budget: RetryBudget | None = None
        self.value = value
        self.name = value.name
        self._follow(targets)

    def set(self, value: RouteValue, targets: Mapping[str, Target]) -> None:
        """Take another value. What the policy remembers stays, unless it is another policy."""
        if value.policy != self.value.policy:
            self.policy = None
        self.value = value
        self._follow(targets)

    def leave(self) -> None:
        """The route is gone."""
        for one in self.ends:
            one.target.ends.discard(one)

    def tried(self, failed: Collection[Target]) -> tuple[End, ...]:
        """Return the ends of targets where a request has failed."""
        return tuple(one for one in self.ends if one.target in failed)

    def has_others(self, failed: Collection[Target], now: float) -> bool:
        """Whether there is another target that could be asked."""
        return any(now >= one.breaker.passes_from for one in self.ends if one.target not in failed)

    def _follow(self, targets: Mapping[str, Target]) -> None:
        value = self.value
        models = value.models or ("",) * len(value.targets)
        weights = value.weights or (1.0,) * len(value.targets)
        told = zip(value.targets, models, weights, strict=True)
        shape = tuple((targets[one], model, weight) for one, model, weight in told if one in targets)
        if shape != self._shape:
            self.leave()
            self._shape = shape
            self.ends = tuple(_end(*one) for one in shape)
            for one in self.ends:
                if one is not one.target.end:
                    one.target.ends.add(one)
        self.only = self.ends[0] if len(self.ends) == 1 else None
        if len(self.ends) > 1:
            self.policy = self.policy or policy_of(value.policy)
            self.budget = self.budget or RetryBudget()
        self.affinity = _AFFINITY.get(value.policy) if len(self.ends) > 1 else None


def _end(target: Target, model: str, weight: float) -> End:
    return target.end if not model and weight == 1.0 else End(target, model, weight)


class RouteTable:
    """Every route and target. Names cost one lookup, whatever their number is."""

    def __init__(self) -> None:
        self.targets: dict[str, Target] = {}
        self.routes: dict[str, Route] = {}
        self._through: dict[str, set[str]] = {}
        """Names of the routes of a target."""

    def find(self, model: str) -> tuple[Route, str] | None:
        """Return the route of a name, and the name that its targets are asked for; empty for their own.

        A name that stands in the table comes first, slashes or not; then `ROUTE/REST`, of a route that has more than
        one model behind it.
        """
        if (route := self.routes.get(model)) is not None:
            return route, route.value.rest
        name, slash, rest = model.partition("/")
        if slash and rest and (route := self.routes.get(name)) is not None and route.value.nested:
            return route, rest
        return None

    def apply(self, told: Tables) -> None:
        """Take what the control process tells. Targets are changed in place: requests in progress hold them."""
        gone_targets, gone_routes = set(told.gone_targets), set(told.gone_routes)
        if told.whole:
            gone_targets |= self.targets.keys() - {one.id for one in told.targets}
            gone_routes |= self.routes.keys() - {one.name for one in told.routes}
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
            found = self.routes[name]
            found.set(found.value, self.targets)

    def _put(self, value: RouteValue) -> None:
        known = self.routes.get(value.name)
        if known is None:
            self.routes[value.name] = Route(value, self.targets)
        else:
            self._forget(known)
            known.set(value, self.targets)
        for key in value.targets:
            self._through.setdefault(key, set()).add(value.name)

    def _drop(self, name: str) -> None:
        if (route := self.routes.pop(name, None)) is not None:
            self._forget(route)
            route.leave()

    def _forget(self, route: Route) -> None:
        for key in route.value.targets:
            through = self._through.get(key)
            if through is not None:
                through.discard(route.name)
                if not through:
                    del self._through[key]
