"""Opens the fleet for a command, and runs the command's work so that Ctrl-C reaches it."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from garrison.cli.options import settings
from garrison.cli.signals import Wishes
from garrison.fleet.adapter_traffic import NoGateway
from garrison.fleet.context import Fleet

if TYPE_CHECKING:
    from garrison.base.settings import Settings
    from garrison.cli.server.adapter_traffic import TrafficOfServer
    from garrison.cli.server.stack_instances import InstancesOfServer
    from garrison.declared.recorded import RecordedInstances
    from garrison.fleet.management.operations import Operations, StackOperations
    from garrison.store.sql.store import SqlStore

__all__ = ["INTERRUPTED", "Stop", "open_fleet", "open_operations", "open_stacks", "run"]

T = TypeVar("T")

INTERRUPTED = 130
"""Exit code of a command ended by Ctrl-C."""


@dataclass(slots=True)
class Stop:
    """Stop requests (Ctrl-C or SIGTERM) to a command, shared with its view.

    A first request while targets are being changed only asks that nothing new be started. Any other cancels the work.

    Attributes:
        working: whether targets are being changed.
        asked: whether a stop was requested.
        tell: called when a request lets work in progress finish, to say so.
        wishes: counts the requests.
    """

    working: bool = False
    asked: bool = False
    tell: Callable[[], None] = lambda: None
    wishes: Wishes = field(default_factory=Wishes)

    def stopping(self) -> bool:
        """Return whether a stop was requested, in the form that operations take."""
        return self.asked


@contextmanager
def open_fleet() -> Iterator[Fleet]:
    """Open the store, the adapter files and the network as configured; close them afterwards.

    Raises:
        GarrisonError: the database cannot be opened.
    """
    from garrison.fleet.artifacts.disk import DiskArtifacts
    from garrison.fleet.instance_dialer import InstanceDialer
    from garrison.net.client import HttpDialer
    from garrison.store.sql.store import open_store

    values = settings("fleet", "server", "instances")
    store = open_store(values.database)
    artifacts = DiskArtifacts(values.data_dir, store.identity(), record=store)
    instances, traffic = _beside_a_server(values) or (_recorded(store, values), NoGateway())
    dialer = InstanceDialer(HttpDialer(), instances)
    fleet = Fleet(store=store, dialer=dialer, artifacts=artifacts, instances=instances, traffic=traffic)
    try:
        yield fleet
    finally:
        if left := fleet.close():
            from garrison.cli.views.page import plain

            for call in left:
                print(f"abandoned, because it does not return: {plain(call)}", file=sys.stderr)


def _beside_a_server(values: "Settings") -> "tuple[InstancesOfServer, TrafficOfServer] | None":
    """The instances and the gateway of the server that runs on this data directory; None if none does."""
    if not (values.data_dir / "server.sock").exists():
        return None
    from garrison.cli.server.adapter_traffic import TrafficOfServer
    from garrison.cli.server.client import ServerClient
    from garrison.cli.server.stack_instances import InstancesOfServer
    from garrison.net.thread_pool import ThreadPool

    def client() -> ServerClient:
        return ServerClient(replace(values, server_url=None))

    with client() as asked:
        if not asked.answers():
            return None
    pool = ThreadPool("garrison-instances", 4)
    return InstancesOfServer(client, values, pool), TrafficOfServer(client, pool)


def _recorded(store: "SqlStore", values: "Settings") -> "RecordedInstances":
    """The instances where no server runs."""
    from garrison.declared.recorded import RecordedInstances
    from garrison.net.thread_pool import ThreadPool

    return RecordedInstances(store, values, ThreadPool("garrison-instances", 4))


@contextmanager
def open_operations() -> "Iterator[Operations]":
    """Open the fleet as configured, as `open_fleet` does, and yield its management verbs.

    Raises:
        GarrisonError: the database cannot be opened.
    """
    from garrison.fleet.management.local import LocalOperations

    with open_fleet() as fleet:
        yield LocalOperations(fleet)


@contextmanager
def open_stacks(server: str | None) -> "Iterator[StackOperations]":
    """Yield the verbs of the server at that URL, or at the configured one; without any, those of `open_operations`.

    Raises:
        InvalidError: the URL is no address.
        GarrisonError: the database cannot be opened.
    """
    values = settings("server", server_url=server)
    if values.server_url is None:
        with open_operations() as operations:
            yield operations
        return
    from garrison.cli.fleet.server_operations import ServerOperations
    from garrison.cli.server.client import ServerClient

    with ServerClient(values) as client:
        yield ServerOperations(client)


def run(work: Coroutine[Any, Any, T], stop: Stop | None = None) -> T:
    """Run `work` to its end in an event loop of its own, with SIGINT and SIGTERM going to `stop`.

    Raises:
        KeyboardInterrupt: a signal cancelled the work.
    """
    asked = stop or Stop()

    async def guarded() -> T:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None

        def signalled() -> None:
            if not asked.wishes.heard():
                return
            ends = asked.asked or not asked.working  # before `asked` is set: it tells a second request from a first
            asked.asked = True
            if ends:
                task.cancel()
            else:
                asked.tell()

        for number in (signal.SIGINT, signal.SIGTERM):
            # Only the main thread can handle signals; elsewhere, as in a test, the work runs without.
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
