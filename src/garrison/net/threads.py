"""Run calls that may hang in threads that the process does not wait for when it exits."""

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
    """The result of `call`, or its exception. A caller that leaves early leaves the thread behind.

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
    """Wait for a thread's future. Leaving early leaves the future to others who wait for it."""
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def done(_: "Future[T]") -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(wake)

    future.add_done_callback(done)
    await waiter
    return future.result()
