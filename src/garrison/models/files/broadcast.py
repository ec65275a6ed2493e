"""Progress for any number of listeners, none of which can slow the work down or end it.

Each listener of a `Broadcast` is called in a thread of its own, from a bounded queue. Bytes that arrive while it is
busy are added up to one call. When its queue is full, what waits is dropped and counted, and the listener continues
with the current state; a listener that joins in the middle of a transfer starts with that state too.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from garrison.base.redaction import redacted
from garrison.models.files.progress import Progress

__all__ = ["Broadcast", "Guarded", "Subscription"]

_MOST_EVENTS = 256
_CLOSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Transfer:
    files: int
    total: int
    done: int
    doing: str


_Event = _Step | _Transfer | int | None
"""A step, the start of a transfer, bytes that arrived, or (None) the end of the transfer."""


def _deliver(listener: Progress, event: _Event) -> None:
    match event:
        case _Step(name, facts):
            listener.step(name, **facts)
        case _Transfer(files, total, done, doing):
            listener.started(files, total, done, doing=doing)
        case int(count):
            listener.advanced(count)
        case None:
            listener.finished()


class Guarded:
    """A `Progress` around one listener, called in the thread that works: an error that it raises is logged, and it is
    not called again."""

    def __init__(self, listener: Progress) -> None:
        self._listener = listener
        self._failed = False

    def step(self, name: str, **facts: Any) -> None:
        self._tell(_Step(name, facts))

    def started(self, files: int, total: int, done: int = 0, *, doing: str = "downloading") -> None:
        self._tell(_Transfer(files, total, done, doing))

    def advanced(self, count: int) -> None:
        self._tell(count)

    def finished(self) -> None:
        self._tell(None)

    def _tell(self, event: _Event) -> None:
        if self._failed:
            return
        try:
            _deliver(self._listener, event)
        except Exception as error:  # noqa: BLE001 - a listener is the caller's code: a terminal that went away, a bug
            self._failed = True
            _log_failure(self._listener, error)


class Broadcast:
    """A `Progress` that passes everything on to its listeners. Close it, or use it in a `with` statement."""

    def __init__(self, *listeners: Progress, most_events: int = _MOST_EVENTS) -> None:
        self._lock = threading.Lock()
        self._most_events = most_events
        self._subscriptions: list[Subscription] = []
        self._transfer: _Transfer | None = None
        self._closed = False
        for listener in listeners:
            self.subscribe(listener)

    def __enter__(self) -> "Broadcast":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def subscribe(self, listener: Progress) -> "Subscription":
        """Add a listener, at any time. A transfer that runs is announced to it with what is done so far; after `close`
        nothing is."""
        subscription = Subscription(listener, self._most_events)
        with self._lock:
            if self._closed:
                subscription.end()
                return subscription
            self._subscriptions.append(subscription)
            if self._transfer is not None:
                subscription.add(self._transfer, self._transfer)
        return subscription

    def close(self, within: float = _CLOSE_SECONDS) -> None:
        """Let the listeners finish what waits for them; after `within` seconds those that hang are left behind."""
        with self._lock:
            subscriptions, self._subscriptions = self._subscriptions, []
            self._closed = True
        deadline = time.monotonic() + within
        for subscription in subscriptions:
            subscription.end()
        for subscription in subscriptions:
            subscription.wait(deadline - time.monotonic())

    def step(self, name: str, **facts: Any) -> None:
        with self._lock:
            self._tell(_Step(name, facts))

    def started(self, files: int, total: int, done: int = 0, *, doing: str = "downloading") -> None:
        with self._lock:
            self._transfer = _Transfer(files, total, done, doing)
            self._tell(self._transfer)

    def advanced(self, count: int) -> None:
        with self._lock:
            if self._transfer is not None:
                self._transfer = replace(self._transfer, done=self._transfer.done + count)
            self._tell(count)

    def finished(self) -> None:
        with self._lock:
            self._transfer = None
            self._tell(None)

    def _tell(self, event: _Event) -> None:
        for subscription in self._subscriptions:
            subscription.add(event, self._transfer)


class Subscription:
    """One listener of a `Broadcast`, with its queue and its thread.

    Attributes:
        dropped: events that the listener was too slow for.
        error: what the listener raised; it is not called again after that.
    """

    def __init__(self, listener: Progress, most_events: int) -> None:
        self.dropped = 0
        self.error: Exception | None = None
        self._listener = listener
        self._most_events = most_events
        self._waiting: deque[_Event] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"progress-{type(listener).__name__}", daemon=True)
        self._thread.start()

    def add(self, event: _Event, transfer: _Transfer | None) -> None:
        """Queue an event; never waits. `transfer` is the state after the event."""
        with self._changed:
            if self._ended:
                return
            waiting = self._waiting
            if isinstance(event, int) and waiting and isinstance(waiting[-1], int):
                waiting[-1] += event
                return
            if len(waiting) >= self._most_events:
                self.dropped += len(waiting) + 1
                waiting.clear()
                event = transfer
            waiting.append(event)
            self._changed.notify()

    def end(self) -> None:
        """Accept no more events. The thread ends once it has delivered what waits."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def wait(self, seconds: float) -> None:
        """Wait for the thread, at most so long."""
        self._thread.join(max(0.0, seconds))

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._ended:
                        return
                    self._changed.wait()
                event = self._waiting.popleft()
            try:
                _deliver(self._listener, event)
            except Exception as error:  # noqa: BLE001 - the outermost frame of this thread; logged, and kept in `error`
                self.error = error
                _log_failure(self._listener, error)
                self.end()
                return


def _log_failure(listener: Progress, error: Exception) -> None:
    import logging  # most models are found on disk, without a need for it

    reason = redacted(repr(error))
    logging.getLogger("garrison.models.progress").warning(
        "progress listener %s failed and is not called again: %s", type(listener).__name__, reason
    )
