"""What a route carries, by which its limits are kept. Routes that stand in for another one share what it has."""

from weakref import WeakValueDictionary

from garrison.access.limiter import Limiter
from garrison.gateway.link.messages import RouteValue
from garrison.gateway.link.route_settings import QueueValue
from garrison.gateway.worker.table.line import Line

__all__ = ["Carried", "Shared"]

_QUEUE = QueueValue()


class Carried:
    """Of one route, or of all that share its limits.

    Attributes:
        line: of requests that wait.
        limiter: counts those that have begun.
    """

    __slots__ = ("__weakref__", "limiter", "line")

    def __init__(self, value: RouteValue) -> None:
        self.line = Line(value.queue or _QUEUE, _places(value))
        self.limiter = Limiter()

    def set(self, value: RouteValue) -> None:
        """Take other limits. What is counted stays."""
        self.line.set(value.queue or _QUEUE, _places(value))


class Shared:
    """What each route carries, as long as a route holds it."""

    __slots__ = ("_by_name",)

    def __init__(self) -> None:
        self._by_name: WeakValueDictionary[str, Carried] = WeakValueDictionary()

    def of(self, value: RouteValue) -> Carried:
        """Return what a route has, or shares with the one that it stands in for."""
        name = value.shares or value.name
        found = self._by_name.get(name)
        if found is None:
            found = self._by_name[name] = Carried(value)
        return found


def _places(value: RouteValue) -> int | None:
    return None if value.limits is None else value.limits.concurrent
