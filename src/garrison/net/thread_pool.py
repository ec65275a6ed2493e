"""A pool of daemon threads for calls that block, each of which may hang.

`concurrent.futures` joins its threads when the interpreter exits, so that one read from a dead disk holds the process
for ever. The threads here are left behind instead, and `close` says in which call each of them hangs.
"""

import asyncio
import contextlib
import functools
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from garrison.net.threads import start_thread

__all__ = ["ThreadPool"]

T = TypeVar("T")


@dataclass(slots=True)
class _Call(Generic[T]):
    """One call. `what` names it; `begun` is in monotonic seconds."""

    call: Callable[[], T]
    what: str
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[T]"
    begun: float = 0.0


class ThreadPool:
    """Up to `size` daemon threads, started when needed.

    The queue has no bound of its own: every entry has a caller that waits for it.
    """

    def __init__(self, name: str, size: int = 1) -> None:
        self.name = name
        self._size = size
        self._calls: queue.SimpleQueue[_Call[Any] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._running: dict[int, _Call[Any]] = {}
        self._ended = threading.Condition(self._lock)
        self._closed = False

    async def run(self, call: Callable[[], T], what: str) -> T:
        """Return the result of `call`, or raise its exception.

        A caller that is cancelled leaves a running call behind; one that waits in the queue is dropped.

        Args:
            what: names the call in what `close` returns.

        Raises:
            OSError: the system has no room for the first thread.
            RuntimeError: the pool is closed.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        one = _Call(call, what, loop, future)
        with self._lock:
            if self._closed:
                raise RuntimeError(f"{self.name} is closed")
            self._calls.put(one)
            self._idle -= 1
            more = self._idle < 0 and self._threads < self._size
            if more:
                self._threads += 1
                self._idle += 1
        if more:
            try:
                start_thread(self._work, self.name)
            except OSError:
                with self._lock:
                    self._threads -= 1
                    self._idle -= 1
                    alone = self._threads == 0
                if alone:
                    future.cancel()
                    raise
        return await future

    def close(self, seconds: float) -> list[str]:
        """Accept no more calls, and wait up to `seconds` for those accepted.

        Returns the calls that are still running and are left behind, for example
        `garrison-disk: digest /mnt/adapters/sql, for 31 s`.
        """
        with self._lock:
            self._closed = True
            for _ in range(self._threads):
                self._calls.put(None)
            self._ended.wait_for(lambda: self._threads == 0, timeout=seconds)
            now = time.monotonic()
            return [f"{self.name}: {one.what}, for {now - one.begun:.0f} s" for one in list(self._running.values())]

    def _work(self) -> None:
        own = threading.get_ident()
        while (one := self._calls.get()) is not None:
            report = None
            if not one.future.cancelled():
                one.begun = time.monotonic()
                self._running[own] = one
                report = _carry_out(one)
                del self._running[own]
            with self._lock:  # before the caller hears of it, or its next call would start another thread
                self._idle += 1
            if report is not None:
                report()
            del one, report  # or the result would stay in memory until the next call
        with self._lock:
            self._threads -= 1
            self._ended.notify_all()


def _carry_out(one: _Call[T]) -> Callable[[], None]:
    """Make the call; return what passes the result to the caller."""
    try:
        result = one.call()
    except BaseException as error:  # noqa: BLE001 - the outermost frame of a thread: the caller gets it
        return functools.partial(_post, one, one.future.set_exception, error)
    return functools.partial(_post, one, one.future.set_result, result)


def _post(one: _Call[T], resolve: Callable[[Any], None], value: object) -> None:
    def arrive() -> None:
        if not one.future.done():  # the caller may have been cancelled meanwhile
            resolve(value)

    with contextlib.suppress(RuntimeError):  # the loop is closed, so nothing waits
        one.loop.call_soon_threadsafe(arrive)
