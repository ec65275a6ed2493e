"""An in-process event bus. Publishing never waits, and a subscriber that does not keep up loses its oldest events.

    bus = EventBus[Event]()
    bus.publish(event)                                  # from any thread
    with bus.subscribe() as events:                     # in an event loop
        async for event, missed in events: ...
    listener = bus.listen(print, missed=count)          # the same with callbacks, on the loop's next iterations

Whoever publishes and whoever subscribes know the bus and the type of its events, not each other.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, NamedTuple, Self, TypeVar

__all__ = ["Delivery", "EventBus", "Listener", "Subscription"]

E = TypeVar("E")

_LIMIT = 1024
_AT_ONCE = 64
"""Callbacks in one iteration of the loop, so that a burst of events does not stop everything else."""


class Delivery(NamedTuple, Generic[E]):
    """An event, and the number of events lost between the previous delivery and this one."""

    event: E
    missed: int


class EventBus(Generic[E]):
    """Hands every published event to every subscriber, in the order of publication."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscribers: tuple[_Subscriber[E], ...] = ()

    def publish(self, event: E) -> None:
        """Hand `event` to the subscribers and return at once. May be called from any thread."""
        for one in self._subscribers:
            one.offer(event)

    def subscribe(self, *, wants: Callable[[E], bool] | None = None, limit: int = _LIMIT) -> "Subscription[E]":
        """Return the events from now on, to be read in the running event loop.

        Args:
            wants: selects events. It runs in the publisher, so it must be quick and must not raise.
            limit: maximum number of events that wait to be read.
        """
        return self._add(Subscription(self, wants, limit))

    def listen(
        self,
        deliver: Callable[[E], None],
        *,
        missed: Callable[[int], None] = lambda _count: None,
        wants: Callable[[E], bool] | None = None,
        limit: int = _LIMIT,
    ) -> "Listener[E]":
        """Call `deliver` with each event from now on, from the running event loop, never from within `publish`.

        Args:
            deliver: must return at once. An exception goes to the loop's exception handler and costs that event only.
            missed: called with the number of lost events before the next one is delivered.
            wants, limit: as for `subscribe`.
        """
        return self._add(Listener(self, deliver, missed, wants, limit))

    async def settled(self) -> None:
        """Return once the listeners of this loop have been given, or have lost, everything published before."""
        for one in self._subscribers:
            if isinstance(one, Listener):
                await one.settled()

    def remove(self, subscriber: "_Subscriber[E]") -> None:
        """Stop handing events to `subscriber`. Called by its `close`."""
        with self._lock:
            self._subscribers = tuple(one for one in self._subscribers if one is not subscriber)

    def _add(self, subscriber: "S") -> "S":
        with self._lock:
            self._subscribers = (*self._subscribers, subscriber)
        return subscriber


class _Subscriber(Generic[E]):
    """A bounded queue that any thread fills and one event loop empties."""

    def __init__(self, bus: EventBus[E], wants: Callable[[E], bool] | None, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"a limit of {limit} events keeps none")
        self._bus = bus
        self._wants = wants
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._waiting: deque[E] = deque()
        self._missed = 0
        self._offered = 0
        self._handled = 0
        """Taken or lost."""
        self._woken = False
        self._closed = False

    def offer(self, event: E) -> None:
        """Queue `event`, if it is wanted. The oldest one goes if there is no room."""
        if self._wants is not None and not self._wants(event):
            return
        with self._lock:
            if self._closed:
                return
            if len(self._waiting) >= self._limit:
                self._waiting.popleft()
                self._missed += 1
                self._handled += 1
            self._waiting.append(event)
            self._offered += 1
            wake, self._woken = not self._woken, True
        if wake:
            self._schedule()

    def close(self) -> None:
        """Take no more events. What is queued is dropped. May be called more than once."""
        self._bus.remove(self)
        with self._lock:
            self._closed = True
            self._waiting.clear()
            self._handled = self._offered
        self._schedule()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self) -> Delivery[E] | None:
        """Return the oldest event; None, and ask to be woken by the next one, if there is none."""
        with self._lock:
            if not self._waiting:
                self._woken = False
                return None
            missed, self._missed = self._missed, 0
            self._handled += 1
            return Delivery(self._waiting.popleft(), missed)

    def _schedule(self) -> None:
        if _is_running(self._loop):
            self._loop.call_soon(self._wake)
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        raise NotImplementedError


class Subscription(_Subscriber[E]):
    """Events to be read with `async for`, by one reader. Ends when it is closed."""

    def __init__(self, bus: EventBus[E], wants: Callable[[E], bool] | None, limit: int) -> None:
        super().__init__(bus, wants, limit)
        self._arrived = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery[E]:
        while (found := self._take()) is None:
            if self._closed:
                raise StopAsyncIteration
            await self._arrived.wait()
            self._arrived.clear()
        return found

    def _wake(self) -> None:
        self._arrived.set()


class Listener(_Subscriber[E]):
    """A callback for events; see `EventBus.listen`."""

    def __init__(
        self,
        bus: EventBus[E],
        deliver: Callable[[E], None],
        missed: Callable[[int], None],
        wants: Callable[[E], bool] | None,
        limit: int,
    ) -> None:
        super().__init__(bus, wants, limit)
        self._deliver = deliver
        self._tell_missed = missed

    async def settled(self) -> None:
        """Return once everything offered before has been delivered or lost. Only for the loop that it belongs to."""
        offered = self._offered
        # Each iteration of the loop runs the callbacks that are due.
        while self._handled < offered and not self._closed and _is_running(self._loop):  # noqa: ASYNC110
            await asyncio.sleep(0)

    def _wake(self) -> None:
        try:
            for _ in range(_AT_ONCE):
                if (found := self._take()) is None:
                    return
                if found.missed:
                    self._tell_missed(found.missed)
                self._deliver(found.event)
        except BaseException:
            self._schedule()  # the events behind it are delivered all the same
            raise
        self._schedule()


S = TypeVar("S", bound=_Subscriber)  # type: ignore[type-arg]  # bound to any type of events


def _is_running(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether this code runs in `loop`."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
