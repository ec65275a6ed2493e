"""Runs calls that may hang in threads for which the process does not wait when it exits."""

import asyncio
import contextlib
import errno
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["call_in_thread", "outcome", "start_thread"]

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


async def call_in_thread(call: Callable[[], T], name: str) -> T:
    """Return the result of `call`, or raise its exception. A cancelled caller leaves the thread behind.

    Raises:
        OSError: the system has no room for another thread.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - the outermost frame of a thread: the caller gets it
            future.set_exception(error)
        else:
            future.set_result(result)

    start_thread(work, name)
    return await outcome(future)


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
