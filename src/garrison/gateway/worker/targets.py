"""What there is: routes by name, and targets with their idle connections."""

from typing import TYPE_CHECKING

from garrison.gateway.link.messages import RouteValue, Tables, TargetValue
from garrison.net.origin import origin_of

if TYPE_CHECKING:
    from garrison.gateway.worker.outbound import Outbound

__all__ = ["Route", "RouteTable", "Target"]

_UNIX = "unix:"


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
    """

    __slots__ = ("head", "host", "id", "idle", "open", "path", "port", "prefix", "running", "tls", "told", "value")

    def __init__(self, value: TargetValue) -> None:
        self.id = value.id
        self.running = 0
        self.told = False
        self.idle: list[Outbound] = []
        self.set(value)

    def set(self, value: TargetValue) -> None:
        """Take another value. Connections to where it was before are of no use any more."""
        self.value = value
        self.open = value.url is not None
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
        self.open = False
        self.drop_idle()

    def drop_idle(self) -> None:
        idle, self.idle = self.idle, []
        for one in idle:
            one.close()


class Route:
    """A public name: its value, and its targets in the same order."""

    __slots__ = ("models", "name", "targets", "value")

    def __init__(self, value: RouteValue, targets: list[Target]) -> None:
        self.value = value
        self.name = value.name
        self.targets = targets
        self.models = value.models or ("",) * len(targets)


class RouteTable:
    """Every route and target. Names cost one lookup, whatever their number is."""

    def __init__(self) -> None:
        self.version = 0
        self.targets: dict[str, Target] = {}
        self.routes: dict[str, Route] = {}

    def find(self, model: str) -> tuple[Route, str] | None:
        """Return the route of a name, and the name that its targets are asked for; empty for their own.

        A name that stands in the table comes first, slashes or not; then `ROUTE/REST`, of a route that has more than
        one model behind it.
        """
        if (route := self.routes.get(model)) is not None:
            return route, ""
        name, slash, rest = model.partition("/")
        if slash and rest and (route := self.routes.get(name)) is not None and route.value.nested:
            return route, rest
        return None

    def apply(self, told: Tables) -> list[Target]:
        """Take what the control process tells. Targets are changed in place: requests in progress hold them.

        Returns:
            Targets that are open now.
        """
        self.version = told.version
        gone_targets, gone_routes = set(told.gone_targets), set(told.gone_routes)
        if told.whole:
            gone_targets |= self.targets.keys() - {one.id for one in told.targets}
            gone_routes |= self.routes.keys() - {one.name for one in told.routes}
        for name in gone_routes:
            self.routes.pop(name, None)
        for key in gone_targets:
            if (target := self.targets.pop(key, None)) is not None:
                target.close()
        opened = []
        for value in told.targets:
            known = self.targets.get(value.id)
            if known is None:
                known = self.targets[value.id] = Target(value)
            elif known.value != value or known.open != (value.url is not None):
                known.set(value)
            if known.open:
                opened.append(known)
        for route in told.routes:
            found = [self.targets[one] for one in route.targets if one in self.targets]
            self.routes[route.name] = Route(route, found)
        return opened
