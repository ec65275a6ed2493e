"""All workers: as many as the settings say, started, adopted from the server before, and replaced when they end."""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import garrison
from garrison.access.keys import Keys
from garrison.base.clock import Clock
from garrison.base.errors import GarrisonError, InvalidError, PortForeignError, UnreachableError
from garrison.base.identity import ProcessId
from garrison.base.logs import logger
from garrison.base.settings import Settings
from garrison.gateway.link import messages
from garrison.gateway.link.messages import TargetValue
from garrison.instances.manager import InstanceManager
from garrison.instances.routers import Routers
from garrison.net.thread_pool import ThreadPool
from garrison.nodes.watch import Nodes
from garrison.processes.local import local_processes
from garrison.server.adapters.loads import AdapterLoads
from garrison.server.listeners import bind_port, bind_socket
from garrison.server.node_activation import node_upstream
from garrison.server.workers.declared_routes import DeclaredRoutes
from garrison.server.workers.door import Report, WorkerDoor
from garrison.server.workers.guarded import Guarded
from garrison.server.workers.processes import LINK_NAME, LOG_NAME, start_worker
from garrison.server.workers.records import RECORD_NAME, WorkerRecord, read_workers, write_workers
from garrison.server.workers.routes import InstanceValues, Known, known
from garrison.server.workers.told import told_keys, told_settings, via_of
from garrison.server.workers.traffic import Traffic
from garrison.store.usage_store import UsageStore

__all__ = ["Workers"]

_READY_SECONDS = 20.0
_ADOPT_SECONDS = 2.0
_AGAIN_SECONDS = (0.0, 0.2, 1.0, 5.0)
"""Before a worker that ended is replaced, by how many ended shortly before."""
_SETTLE_SECONDS = 0.02
_MOST_SETTLE_SECONDS = 0.5
_NODES_SECONDS = 5.0

_log = logger(__name__)


class Workers:
    """The workers of one server. Belongs to one event loop.

    Args:
        secret: with which tokens are digested.
        control_socket: where workers send what is not for a model.
        declared: what stacks declare for the gateway.
        adapters: where requests wait for an adapter.
        routers: the models of instances that have none of their own.
        early: a worker that was started ahead.

    Attributes:
        traffic: what the workers carry.
    """

    def __init__(
        self,
        instances: InstanceManager,
        nodes: Nodes,
        keys: Keys,
        settings: Settings,
        *,
        secret: bytes,
        control_socket: Path,
        pool: ThreadPool,
        disk: ThreadPool,
        declared: DeclaredRoutes,
        adapters: AdapterLoads,
        routers: Routers,
        store: UsageStore,
        clock: Clock,
        early: asyncio.subprocess.Process | None = None,
    ) -> None:
        self._instances, self._nodes, self._keys = instances, nodes, keys
        self._settings, self._secret, self._disk = settings, secret, disk
        self._control_socket = control_socket.absolute()
        self._via = via_of(secret, self._control_socket)
        self._declared = declared
        self._adapters, self._routers = adapters, routers
        self._address = (settings.server_host, settings.server_port)
        self.traffic = Traffic(
            store, lambda: self._settings, pool=pool, disk=disk, clock=clock, doors=lambda: self._doors,
            targets=lambda: self._known().targets,
        )  # fmt: skip
        self._values = InstanceValues()
        self._before: list[WorkerRecord] = []
        self._doors: list[WorkerDoor] = []
        self._children: dict[int, asyncio.subprocess.Process] = {}
        self._waits: dict[int, asyncio.Task[None]] = {}
        self._listening: set[int] = set()
        self._failure: GarrisonError | None = None
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._ended = 0
        self._closing = self._is_up = False
        if early is not None:
            self._follow_child(early)

    async def prepare(self, host: str, port: int) -> None:
        """See that the port can be had, and start the workers that are missing. They connect when `startup` listens.

        Raises:
            PortForeignError: somebody else has the port.
            InvalidError: the address cannot be used.
        """
        self._address = (host, port)
        self._before = await self._disk.run(
            lambda: read_workers(self._path(RECORD_NAME)), "read the record of the workers"
        )
        if not any(one.address == f"{host}:{port}" for one in self._before):
            bind_port(host, port).close()
        for _ in range(self._settings.gateway_workers - len(self._before) - len(self._children)):
            await self._spawn()

    async def startup(self) -> None:
        """Adopt the workers of the server before, have the new ones begin, and return when they listen.

        Called when the instances are known: an adopted worker has requests in progress to some.

        Raises:
            PortForeignError: somebody else has the port.
            InvalidError: the address or the certificate cannot be used.
            UnreachableError: no worker listens in time.
        """
        loop = asyncio.get_running_loop()
        bound = bind_socket(self._path(LINK_NAME))
        bound.setblocking(False)
        self._server = await loop.create_unix_server(self._door, sock=bound)
        await self._adopted(self._before)
        for _ in range(self._missing()):
            await self._spawn()
        self._begin(self._follow(), "tables")
        deadline = loop.time() + _READY_SECONDS
        while not self._listening:
            if self._failure is not None:
                raise self._failure
            left = deadline - loop.time()
            if left <= 0:
                raise UnreachableError(
                    f"no worker of the gateway listens after {_READY_SECONDS:g} s", hint=f"See {self._path(LOG_NAME)}."
                )
            await self._wait(left)
        self._is_up = True
        self._begin(self._record(), "record the workers")

    def move(self, host: str, port: int) -> None:
        """Have the workers listen elsewhere; connections that there are go on. One that leaves listens nowhere."""
        self._address = (host, port)
        for door in self._doors:
            if not door.leaves:
                door.peer.send(self._told_settings())

    def reconfigure(self, fresh: Settings) -> None:
        """Take other settings. Workers that are too many finish what is in progress; those that are missing start."""
        self._settings = fresh
        self.traffic.reconfigure()
        for door in self._doors:
            door.peer.send(self._told_settings())
        for door in self._ours()[fresh.gateway_workers :]:
            door.leave(fresh.drain_timeout)
        for _ in range(self._missing()):
            self._replace()

    def keys_changed(self) -> None:
        """Tell the workers."""
        told = self._told_keys()
        for door in self._doors:
            door.peer.send(told)

    async def shutdown(self) -> None:
        """Have the workers finish what is in progress, and end. Those that take longer are ended."""
        self._closing = True
        for task in tuple(self._tasks):
            task.cancel()
        seconds = self._settings.drain_timeout
        connected = {one.process.pid for one in self._doors if one.process is not None}
        for pid, child in self._children.items():
            if pid not in connected:
                child.terminate()
        for door in self._doors:
            door.leave(seconds)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds + 2.0
        while self._doors and (left := deadline - loop.time()) > 0:
            await self._wait(left)
        for door in self._doors:
            _signal(door.process, signal.SIGKILL)
        if self._server is not None:
            self._server.close()
        if self._waits:
            await asyncio.wait(self._waits.values(), timeout=2.0)
        for child in self._children.values():
            child.kill()
        for name in (LINK_NAME, RECORD_NAME):
            path = self._path(name)
            await self._disk.run(lambda path=path: path.unlink(missing_ok=True), f"remove {path}")  # type: ignore[misc]  # a default in a lambda

    # ---

    def _path(self, name: str) -> Path:
        return self._settings.data_dir / name

    def _door(self) -> asyncio.Protocol:
        door = WorkerDoor(
            self._instances, self._routers, self._known, self._fresh, self._node, self._adapters, self._greeted,
            self._told, self._lost,
        )  # fmt: skip
        self._doors.append(door)
        return Guarded(door)

    def _ours(self) -> list[WorkerDoor]:
        return [one for one in self._doors if one.process is not None and not one.leaves]

    def _missing(self) -> int:
        """How many workers have to be started; those that are on their way count."""
        leaving = {one.process.pid for one in self._doors if one.process is not None and one.leaves}
        present = {one.process.pid for one in self._ours() if one.process is not None}
        return self._settings.gateway_workers - len(present | (self._children.keys() - leaving))

    async def _adopted(self, before: list[WorkerRecord]) -> None:
        """Wait for the workers of the server before; end those that do not connect."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _ADOPT_SECONDS
        wanted = {one.process for one in before}
        while wanted - {one.process for one in self._doors} and (left := deadline - loop.time()) > 0:
            await self._wait(left)
        for process in wanted - {one.process for one in self._doors}:
            _log.warning("a worker of the gateway that does not connect is ended", pid=process.pid)
            _signal(process, signal.SIGKILL)

    def _greeted(self, door: WorkerDoor, hello: messages.Hello) -> None:
        if len(self._ours()) > self._settings.gateway_workers:
            _log.info("a worker of the gateway too many ends", pid=hello.pid)
            door.leave(self._settings.drain_timeout)
            return
        if hello.protocol != messages.PROTOCOL or hello.version != garrison.__version__:
            _log.info("a worker of another version is replaced", pid=hello.pid, version=hello.version)
            door.leave(self._settings.drain_timeout)
            self._replace()
            return
        door.begin(self._told_settings(), self._told_keys(), self._known())
        if (hello.host, hello.port) == self._address:
            door.address = f"{hello.host}:{hello.port}"
            self._listening.add(hello.pid)
            _log.info("a worker of the gateway was adopted", pid=hello.pid)
        self._tell()

    def _told(self, door: WorkerDoor, message: messages.Listening | messages.Failed | messages.Stored | Report) -> None:
        if isinstance(message, messages.Listening) and door.process is not None:
            self._listening.add(door.process.pid)
            door.address = f"{self._address[0]}:{message.port}"
            _log.info("a worker of the gateway listens", pid=door.process.pid, port=message.port)
            if self._is_up:
                self._begin(self._record(), "record the workers")
        elif isinstance(message, messages.Stored):
            for other in self._doors:
                if other is not door:
                    other.peer.send(message)
            return
        elif isinstance(message, messages.Failed):
            host, port = self._address
            if message.taken:
                self._failure = PortForeignError(
                    f"port {port} of {host} is taken", hint="Stop its holder, or choose another port with --port.",
                    details={"port": port},
                )  # fmt: skip
            else:
                self._failure = InvalidError(
                    f"the gateway cannot listen on port {port} of {host}: {message.message}",
                    hint="Check the address, GARRISON_TLS_CERT_FILE and GARRISON_TLS_KEY_FILE.",
                )
        elif not isinstance(message, messages.Listening):
            self.traffic.received(door, message)
            return
        self._tell()

    def _lost(self, door: WorkerDoor) -> None:
        self._doors.remove(door)
        self.traffic.lost(door)
        if door.process is not None:
            self._listening.discard(door.process.pid)
            if door.process.pid not in self._children and not self._closing:  # adopted, so nobody waits for its end
                self._replace()
        self._tell()

    async def _spawn(self) -> None:
        try:
            process = await start_worker(self._settings.data_dir)
        except OSError as error:
            raise InvalidError(
                f"a worker of the gateway cannot be started: {error.strerror or error}",
                hint=f"Check {self._settings.data_dir}.",
            ) from None
        self._follow_child(process)

    def _follow_child(self, process: asyncio.subprocess.Process) -> None:
        self._children[process.pid] = process
        self._waits[process.pid] = asyncio.create_task(self._watch(process), name="worker")

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        status = await process.wait()
        self._children.pop(process.pid, None)
        self._waits.pop(process.pid, None)
        self._tell()
        if not self._closing:
            _log.warning("a worker of the gateway ended", pid=process.pid, status=status)
            self._replace()

    def _replace(self) -> None:
        if self._failure is not None and not self._listening:
            return  # it would fail again; the start says why
        delay = _AGAIN_SECONDS[min(self._ended, len(_AGAIN_SECONDS) - 1)]
        self._ended += 1
        self._begin(self._replace_later(delay), "replace a worker")

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _replace_later(self, delay: float) -> None:
        await asyncio.sleep(delay)
        if not self._closing and self._missing() > 0:
            await self._spawn()
            await asyncio.sleep(10.0)
            self._ended = max(0, self._ended - 1)

    async def _follow(self) -> None:
        """Tell the workers what changes about instances and nodes."""
        loop, took = asyncio.get_running_loop(), 0.0
        while True:
            await self._instances.changed(_NODES_SECONDS)
            # A tenth of the time at most, but for the largest servers.
            await asyncio.sleep(min(max(_SETTLE_SECONDS, 9 * took), _MOST_SETTLE_SECONDS))
            began = loop.time()
            self.update()
            took = loop.time() - began

    def update(self) -> None:
        """Tell the workers what has changed."""
        found = self._known()
        for door in self._doors:
            door.update(found)

    async def _record(self) -> None:
        found = [WorkerRecord(one.process, one.address) for one in self._ours() if one.process is not None]
        with contextlib.suppress(OSError):
            await self._disk.run(lambda: write_workers(self._path(RECORD_NAME), found), "record the workers")

    async def left(self, target: str, model: str) -> bool:
        """Return when no worker has a request to a target in progress that asks for `model`.

        What they were told before counts for requests that come later. False: that is not known, since a worker is
        missing, or on its way out.
        """
        heard = {one.process.pid for one in self._doors if one.process is not None}
        if not self._is_up or self._children.keys() - heard:
            return False
        return all(await asyncio.gather(*(one.left(target, model) for one in self._doors)))

    def _known(self) -> Known:
        self._declared.follow_engines()
        instances = self._values.of(self._instances.list(), self._settings.idle_timeout)
        return known(instances, self._nodes.list(), self._declared.now, models=self._routers.known())

    async def _fresh(self) -> None:
        await asyncio.gather(self._declared.fresh(), self._keys.fresh())

    def _node(self, name: str) -> TargetValue:
        upstream = node_upstream(self._nodes.get(name))
        return TargetValue(id=f"node:{name}", url=upstream.url, key=upstream.key, hop=True, counted=False)

    def _told_settings(self) -> messages.Settings:
        return told_settings(self._settings, self._address, self._control_socket, self._via)

    def _told_keys(self) -> messages.Keys:
        return told_keys(self._keys.book, self._secret, self._settings.management_keys)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()


def _signal(process: ProcessId | None, number: int) -> None:
    if process is not None:
        with contextlib.suppress(PermissionError, ProcessLookupError):
            local_processes().signal(process, number)
