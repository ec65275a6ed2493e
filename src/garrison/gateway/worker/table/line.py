"""The requests of one route that wait, and, where the route has places, those that are in progress. No I/O."""

import math
from collections.abc import Hashable, Mapping
from typing import Protocol

from garrison.base.errors import BusyError, NotReadyError
from garrison.gateway.choose.fair_queue import FairQueue, Place
from garrison.gateway.link.route_settings import QueueValue

__all__ = ["Line", "Queued"]

_LEAST_RETRY, _UNKNOWN, _MOST_RETRY = 1, 5, 60
"""Seconds after which a refused request may be sent again."""
_WEIGHT = 0.2
"""Of one request in the mean of how long they take."""


class Queued(Protocol):
    """A request that waits for a place."""

    def place_given(self) -> None:
        """It has one, and goes on in a later step."""


class Line:
    """The line of one route.

    Args:
        places: requests that may be in progress at once; None for any number.

    Attributes:
        running: requests that have a place.
        waiting, size: requests that wait, for a place or for a target, and bytes of their bodies.
    """

    __slots__ = ("_mean", "_queue", "places", "running", "settings", "size", "waiting")

    def __init__(self, settings: QueueValue, places: int | None) -> None:
        self.settings, self.places = settings, places
        self.running = self.waiting = self.size = 0
        self._queue: FairQueue[Queued] = FairQueue(settings.ageing)
        self._mean = 0.0

    def set(self, settings: QueueValue, places: int | None) -> None:
        """Take other limits; they hold for whoever comes, and at the next end of a request."""
        self.settings, self.places = settings, places
        self._queue.ageing = settings.ageing

    def take(self) -> bool:
        """Take a place if one is free and nobody waits for it."""
        if self.places is not None and (self.running >= self.places or self._queue):
            return False
        self.running += 1
        return True

    def join(self, who: Queued, holder: Hashable, priority: int, now: float) -> Place[Queued]:
        """Wait for a place. The caller has asked `hold` before."""
        return self._queue.put(who, holder, priority, now)

    def quit(self, place: Place[Queued]) -> None:
        """Leave the queue, without a place."""
        self._queue.remove(place)

    def hold(self, size: int, most: int, loading: Mapping[str, object] | None) -> int:
        """Count a request that begins to wait, and return its position.

        Args:
            size: of its body.
            most: requests that may wait, where the route does not say.
            loading: as in `refusal`.

        Raises:
            BusyError, NotReadyError: as many wait as may.
        """
        settings = self.settings
        full = self.waiting >= (most if settings.length is None else settings.length)
        if full or (self.waiting and self.size + size > settings.bytes):
            what = f"{self.waiting} requests" if full else f"{self.size} bytes of requests"
            raise self.refusal(f"{what} wait for it already", loading)
        self.waiting += 1
        self.size += size
        return self.waiting

    def drop(self, size: int) -> None:
        """A request waits no longer."""
        self.waiting -= 1
        self.size -= size

    def leave(self, seconds: float, now: float) -> None:
        """Give a place back, and give those that are free to the requests whose turn it is.

        Args:
            seconds: for which it was taken.
        """
        self.running -= 1
        self._mean += (seconds - self._mean) * (_WEIGHT if self._mean else 1.0)
        while (self.places is None or self.running < self.places) and (who := self._queue.next(now)) is not None:
            self.running += 1
            who.place_given()

    def refusal(self, why: str, loading: Mapping[str, object] | None) -> BusyError | NotReadyError:
        """The error of a request that does not wait, or not any more.

        Args:
            loading: where the start of a target is; None where one could be asked, but for the places.
        """
        hint = "Send the request again later."
        if loading is None:
            return BusyError(f"the route is busy: {why}", hint=hint, details={"retry_after": self._retry_after()})
        left = loading.get("remaining")
        details: dict[str, object] = {"retry_after": _bounded(left) if isinstance(left, int | float) else _UNKNOWN}
        if loading:
            details["loading"] = dict(loading)
        return NotReadyError(f"nothing that serves the route runs: {why}", hint=hint, details=details)

    def _retry_after(self) -> int:
        """Seconds until those who wait now have had their turn, as far as the last requests tell."""
        return _bounded((self.waiting + 1) / (self.places or 1) * self._mean)


def _bounded(seconds: float) -> int:
    return max(_LEAST_RETRY, min(_MOST_RETRY, math.ceil(seconds)))
