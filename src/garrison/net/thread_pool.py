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
import weakref
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


class _Shared:
    """What the threads of a pool share. They do not hold the pool, so that one nobody uses can be collected."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[_Call[Any] | None] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.ended = threading.Condition(self.lock)
        self.threads = 0
        self.idle = 0
        self.running: dict[int, _Call[Any]] = {}
        self.closed = False

    def end(self) -> None:
        """Accept no more calls; each thread exits after those accepted."""
        with self.lock:
            self.closed = True
            for _ in range(self.threads):
                self.calls.put(None)

    def work(self) -> None:
        """Make one call after the other: the body of a thread."""
        own = threading.get_ident()
        while (one := self.calls.get()) is not None:
            report = None
            if not one.future.cancelled():
                one.begun = time.monotonic()
                self.running[own] = one
                report = _carry_out(one)
                del self.running[own]
            with self.lock:  # before the caller hears of it, or its next call would start another thread
                self.idle += 1
            if report is not None:
                report()
            del one, report  # or the result would stay in memory until the next call
        with self.lock:
            self.threads -= 1
            self.ended.notify_all()


class ThreadPool:
    """Up to `size` daemon threads, started when needed. They exit when the pool is closed or collected.

    The queue has no bound of its own: every entry has a caller that waits for it.
    """

    def __init__(self, name: str, size: int = 1) -> None:
        self.name = name
        self._size = size
        self._shared = shared = _Shared()
        # Not at exit: calls that the pool accepted may still be running, and daemon threads hold nothing up.
        weakref.finalize(self, shared.end).atexit = False

    async def run(self, call: Callable[[], T], what: str) -> T:
        """Return the result of `call`, or raise its exception.

        A caller that is cancelled leaves a running call behind; one that waits in the queue is dropped.

        Args:
            what: names the call in what `close` returns.

        Raises:
            OSError: the system has no room for the first thread.
            RuntimeError: the pool is closed.
        """
        shared = self._shared
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        one = _Call(call, what, loop, future)
        with shared.lock:
            if shared.closed:
                raise RuntimeError(f"{self.name} is closed")
            shared.calls.put(one)
            shared.idle -= 1
            more = shared.idle < 0 and shared.threads < self._size
            if more:
                shared.threads += 1
                shared.idle += 1
        if more:
            try:
                start_thread(shared.work, self.name)
            except OSError:
                with shared.lock:
                    shared.threads -= 1
                    shared.idle -= 1
                    alone = shared.threads == 0
                if alone:
                    future.cancel()
                    raise
        return await future

    def close(self, seconds: float) -> list[str]:
        """Accept no more calls, and wait up to `seconds` for those accepted.

        Returns the calls that are still running and are left behind, for example
        `garrison-disk: digest /mnt/adapters/sql, for 31 s`.
        """
        shared = self._shared
        shared.end()
        with shared.lock:
            shared.ended.wait_for(lambda: shared.threads == 0, timeout=seconds)
            now = time.monotonic()
            return [f"{self.name}: {one.what}, for {now - one.begun:.0f} s" for one in list(shared.running.values())]


def _carry_out(one: _Call[T]) -> Callable[[], None]:
    """Make the call; return what passes the result to the caller."""
    try:
        result = one.call()
    except StopIteration as error:  # a future takes any exception but this one
        failure = RuntimeError(f"{one.what} raised StopIteration")
        failure.__cause__ = error
        return functools.partial(_post, one, one.future.set_exception, failure)
    except BaseException as error:  # noqa: BLE001 - the outermost frame of a thread: the caller gets it
        return functools.partial(_post, one, one.future.set_exception, error)
    return functools.partial(_post, one, one.future.set_result, result)


def _post(one: _Call[T], resolve: Callable[[Any], None], value: object) -> None:
    def arrive() -> None:
        if not one.future.done():  # the caller may have been cancelled meanwhile
            resolve(value)

    with contextlib.suppress(RuntimeError):  # the loop is closed, so nothing waits
        one.loop.call_soon_threadsafe(arrive)
