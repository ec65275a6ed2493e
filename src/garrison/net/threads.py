"""Runs calls that may hang in threads for which the process does not wait when it exits."""

import asyncio
import contextlib
import errno
import functools
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["SharedCalls", "outcome", "start_thread"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


def start_thread(work: Callable[[], None], name: str) -> None:
    """Start a daemon thread.

    Raises:
        OSError: the system has no room for another thread.
    """
    try:
        threading.Thread(target=work, name=name, daemon=True).start()
    except RuntimeError:
        raise OSError(errno.EAGAIN, "no thread can be started") from None


class SharedCalls(Generic[K, T]):
    """Calls in threads of their own, one at a time for each key. For one event loop.

    Whoever calls while a call for the same key is in progress waits for that one. So a disk that hangs costs one thread
    for each file on it, however often somebody asks and gives up.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._running: dict[K, Future[T]] = {}

    async def call(self, key: K, call: Callable[[], T]) -> T:
        """Return the result of `call`, or raise its exception. A cancelled caller leaves the thread behind.

        Raises:
            OSError: the system has no room for another thread.
        """
        running = self._running.get(key)
        if running is None or running.done():
            running = self._running[key] = Future()
            try:
                start_thread(functools.partial(_carry_out, call, running), self._name)
            except OSError:
                del self._running[key]
                raise
        try:
            return await outcome(running)
        finally:
            if running.done() and self._running.get(key) is running:
                del self._running[key]


def _carry_out(call: Callable[[], T], future: "Future[T]") -> None:
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - the outermost frame of a thread: the caller gets it
        future.set_exception(error)
    else:
        future.set_result(result)


async def outcome(future: "Future[T]") -> T:
    """Wait for a thread's future. Cancellation does not cancel the future: others may wait for it, too."""
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def done(_: "Future[T]") -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, so no task waits any more
            loop.call_soon_threadsafe(wake)

    future.add_done_callback(done)
    await waiter
    return future.result()
