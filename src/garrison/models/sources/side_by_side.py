"""Calls that may hang, in threads that can be left behind when the work is stopped.

Not a pool of `concurrent.futures`: the interpreter waits for such threads when it exits, and one that waits for a
silent hub would keep Ctrl-C waiting for as long.
"""

import contextvars
import logging
import threading
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from garrison.models.files.stop_token import StoppedError, StopToken, join_all

__all__ = ["aside", "side_by_side"]

T = TypeVar("T")
R = TypeVar("R")

_LOG = logging.getLogger("garrison.models.sources")
_ERROR_SECONDS = 60.0
"""How long the other threads may take to end after an error in one: longer than the time-outs of their requests."""


def side_by_side(
    items: Iterable[T],
    work: Callable[[T, StopToken], None],
    stop: StopToken,
    *,
    workers: int,
    name: str,
    writes: bool = True,
) -> None:
    """Call `work(item, token)` for each item in up to `workers` threads, each in a copy of the caller's context.

    The token stops when `stop` does, and after the first error. The threads have ended when this function returns or
    raises, except those that hang beyond the deadline of a stop, and after Ctrl-C.

    Args:
        writes: False where `work` has no effect that outlives it; then a stop waits for no thread.

    Raises:
        StoppedError: `stop` was called; names the threads that were left behind.
        Exception: the first error of `work`.
    """
    crew = _Crew(items, work, stop)
    threads = _threads(crew.run, min(workers, crew.count), name)
    withdraw = stop.on_stop(lambda: crew.done.put(StoppedError()))
    try:
        for thread in threads:
            thread.start()
        for _ in range(crew.count):
            if error := crew.done.get():
                raise error
    except KeyboardInterrupt:
        crew.stop.stop(0)
        raise
    except BaseException:
        crew.stop.stop(_ERROR_SECONDS if writes else 0)
        left = join_all(threads, crew.stop)
        if not stop.stopped:
            raise
        if left:
            _LOG.warning("left behind, waiting for the network: %s", ", ".join(left))
        raise StoppedError(left) from None
    finally:
        withdraw()
    join_all(threads, crew.stop)


class _Crew(Generic[T]):
    """What the threads share: the items, a token of their own, and a result (None or the error) for each item."""

    def __init__(self, items: Iterable[T], work: Callable[[T, StopToken], None], stop: StopToken) -> None:
        self.stop = StopToken(parent=stop)
        self.done: SimpleQueue[BaseException | None] = SimpleQueue()
        self.count = 0
        self._work = work
        self._todo: SimpleQueue[T] = SimpleQueue()
        for item in items:
            self._todo.put(item)
            self.count += 1

    def run(self) -> None:
        while not self.stop.stopped:
            try:
                item = self._todo.get_nowait()
            except Empty:
                return
            try:
                self._work(item, self.stop)
            except BaseException as error:  # noqa: BLE001 - not dropped: the thread that waits raises it
                self.done.put(error)
                return
            self.done.put(None)


def aside(call: Callable[[], R], stop: StopToken, name: str) -> R:
    """Call `call`, which only asks and changes nothing, in a thread of its own and return its result.

    Raises as `side_by_side`; a stop does not wait for the call.
    """
    results: list[R] = []
    side_by_side([call], lambda item, _: results.append(item()), stop, workers=1, name=name, writes=False)
    return results[0]


def _threads(run: Callable[[], None], count: int, name: str) -> list[threading.Thread]:
    # One copy of the context each: a context cannot be entered by two threads at once.
    return [
        threading.Thread(target=contextvars.copy_context().run, args=(run,), name=f"{name}-{number}", daemon=True)
        for number in range(count)
    ]
