"""How commands come by a fleet, and how Ctrl-C reaches what they run."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from garrison.cli.options import settings
from garrison.cli.signals import Wishes
from garrison.fleet.context import Fleet

__all__ = ["INTERRUPTED", "Stop", "open_fleet", "run"]

T = TypeVar("T")

INTERRUPTED = 130
"""The exit code of a command that was ended by Ctrl-C."""


@dataclass(slots=True)
class Stop:
    """What a first Ctrl-C (or SIGTERM) does: while work is under way it asks that nothing new be begun; otherwise, and
    the second time, it cancels.

    Attributes:
        working: targets are being changed.
        asked: somebody wants it to end.
        tell: says so, where what is under way goes on.
        wishes: the signals, counted.
    """

    working: bool = False
    asked: bool = False
    tell: Callable[[], None] = lambda: None
    wishes: Wishes = field(default_factory=Wishes)

    def stopping(self) -> bool:
        return self.asked


@contextmanager
def open_fleet() -> Iterator[Fleet]:
    """The store, the adapter files and the network, as the settings say.

    Raises:
        GarrisonError: the database cannot be had.
    """
    from garrison.fleet.disk_artifacts import DiskArtifacts
    from garrison.net.client import HttpDialer
    from garrison.store.sql.store import open_store

    values = settings("fleet")
    store = open_store(values.database)
    artifacts = DiskArtifacts(values.data_dir, store.identity(), record=store)
    fleet = Fleet(store=store, dialer=HttpDialer(), artifacts=artifacts)
    try:
        yield fleet
    finally:
        fleet.close()


def run(work: Coroutine[Any, Any, T], stop: Stop | None = None) -> T:
    """To its end, in an event loop of its own.

    Raises:
        KeyboardInterrupt: it was cancelled by a signal.
    """
    asked = stop or Stop()

    async def guarded() -> T:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None

        def signalled() -> None:
            if not asked.wishes.heard():
                return
            ends = asked.asked or not asked.working
            asked.asked = True
            if ends:
                task.cancel()
            else:
                asked.tell()

        for number in (signal.SIGINT, signal.SIGTERM):
            # Only the main thread has signals; elsewhere (a test) there is nothing to be told.
            with contextlib.suppress(ValueError, RuntimeError):
                loop.add_signal_handler(number, signalled)
        try:
            return await work
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
