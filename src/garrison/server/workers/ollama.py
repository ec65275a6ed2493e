"""The process that serves Ollama's API: started where the settings give it a port, adopted, replaced when it ends.

Its listening socket belongs to this process too, so that connections wait while one process follows another. It needs
nothing else from here, so it goes on when this process is killed. The next one finds it by the record that it writes,
and takes it over if it was told the same; otherwise it finishes its requests and ends.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import garrison
from garrison.base.errors import GarrisonError, InvalidError, PortForeignError
from garrison.base.identity import ProcessId, start_time
from garrison.base.logs import logger
from garrison.base.settings import Settings
from garrison.gateway.ollama.told import RECORD_NAME, Record, Told, read_record
from garrison.launch.run.address import reachable
from garrison.net.thread_pool import ThreadPool
from garrison.processes.local import local_processes
from garrison.server.address import url_of
from garrison.server.listeners import bind_port, is_loopback
from garrison.server.workers.processes import start_ollama

__all__ = ["OllamaListener"]

_FREE_SECONDS = 1.0
"""For a process that was just started by a server that was killed to be on record."""
_HANDOVER_SECONDS = 5.0
"""For one that is told to end to give up the port."""
_AGAIN_SECONDS = (0.0, 0.2, 1.0, 5.0)
"""Before one that ended is replaced, by how many ended shortly before."""
_CALM_SECONDS = 10.0
_POLL_SECONDS = 0.5
_BIND_POLL_SECONDS = 0.05

_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class _Running:
    """A process, and what it was told. `child`: None for one that was adopted."""

    process: ProcessId
    told: Told
    child: asyncio.subprocess.Process | None = None

    async def ended(self) -> None:
        """Wait for its end."""
        if self.child is not None:
            await self.child.wait()
            return
        while start_time(self.process.pid) == self.process.start:  # noqa: ASYNC110 - processes of others tell nobody
            await asyncio.sleep(_POLL_SECONDS)

    def signal(self, number: int) -> None:
        with contextlib.suppress(PermissionError, ProcessLookupError):
            local_processes().signal(self.process, number)


class OllamaListener:
    """Ollama's API, for one server. Belongs to one event loop.

    Args:
        control_socket: of this process.
    """

    def __init__(self, settings: Settings, *, control_socket: Path, disk: ThreadPool) -> None:
        self._control_socket, self._disk = control_socket, disk
        self._began, self._settings = settings, settings
        self._host, self._gateway_host = settings.gateway_ollama_host, settings.server_host
        self._bound: socket.socket | None = None
        self._bound_to = ""
        self._running: _Running | None = None
        self._changed = asyncio.Event()
        self._supervising: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._ended = 0

    async def prepare(self, host: str, gateway_host: str) -> None:
        """See that the port can be had, or adopt the process that has it. Ends one that is not wanted any more.

        Args:
            host: where to listen.
            gateway_host: where the gateway listens.

        Raises:
            PortForeignError: somebody else has the port.
            InvalidError: the address cannot be used, or is the server's own.
        """
        self._host, self._gateway_host = host, gateway_host
        found = await self._record()
        port = self._began.gateway_ollama_port
        if port is None:
            if found is not None:
                self._end_later(_Running(found.process, found.told))
        elif port == self._began.server_port:
            raise InvalidError(
                f"port {port} is the server's own, so Ollama's API cannot be there",
                hint="Choose another one with GARRISON_GATEWAY_OLLAMA_PORT.",
            )
        elif found is not None and found.told == self._wanted():
            self._running = _Running(found.process, found.told)
            _log.info("the process for Ollama's API was adopted", pid=found.pid)
        else:
            await self._bind(found)

    def startup(self) -> None:
        """Have the port served from now on."""
        if self._began.gateway_ollama_port is not None:
            self._supervising = asyncio.create_task(self._supervise(), name="ollama")

    def reconfigure(self, fresh: Settings) -> None:
        """Take other settings, but for those that need another start of the server."""
        self._settings = fresh
        self._changed.set()

    def move(self, host: str, gateway_host: str) -> None:
        """Have it listen, or ask, elsewhere. Requests in progress are finished."""
        self._host, self._gateway_host = host, gateway_host
        self._changed.set()

    async def shutdown(self) -> None:
        """Finish the requests in progress within their limit, and end."""
        if self._supervising is not None:
            self._supervising.cancel()
            await asyncio.wait([self._supervising])
        if self._bound is not None:
            self._bound.close()
        if self._running is not None:
            self._end_later(self._running)
        if self._ending:
            await asyncio.wait(self._ending)
        path = self._began.data_dir / RECORD_NAME
        await self._disk.run(lambda: path.unlink(missing_ok=True), f"remove {path}")

    # ---

    async def _supervise(self) -> None:
        while True:
            try:
                if self._running is None or self._running.told != self._wanted():
                    await self._replace()
                await self._until_something_happens()
            except (OSError, GarrisonError) as error:
                _log.error("Ollama's API cannot be served", error=str(error))
                await asyncio.sleep(_AGAIN_SECONDS[-1])

    async def _replace(self) -> None:
        """Start a process, and have the one before finish its requests and end."""
        wanted, before = self._wanted(), self._running
        if self._bound is None or self._bound_to != wanted.address:
            bound = await self._bind(await self._record())
        else:
            bound = self._bound
        child = await start_ollama(self._began.data_dir, bound.fileno(), msgspec.json.encode(wanted).decode())
        started = start_time(child.pid)
        self._running = _Running(ProcessId(child.pid, started or 0), wanted, child)
        if before is not None:
            self._end_later(before)

    async def _until_something_happens(self) -> None:
        """Return when the settings have changed, or, after a while, when the process has ended."""
        running, loop = self._running, asyncio.get_running_loop()
        assert running is not None
        began = loop.time()
        ended, changed = asyncio.create_task(running.ended()), asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait((ended, changed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            changed.cancel()
        self._changed.clear()
        if not ended.done():
            return
        self._running = None
        self._ended = self._ended + 1 if loop.time() - began < _CALM_SECONDS else 0
        _log.warning("the process for Ollama's API ended", pid=running.process.pid)
        await asyncio.sleep(_AGAIN_SECONDS[min(self._ended, len(_AGAIN_SECONDS) - 1)])

    async def _bind(self, before: Record | None) -> socket.socket:
        """Bind the port, for which a process of a server before may have to give it up."""
        host, port = self._host, self._began.gateway_ollama_port
        assert port is not None
        if self._bound is not None:
            self._bound.close()
            self._bound = None
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            late = loop.time() - began > _HANDOVER_SECONDS
            if before is not None:
                _Running(before.process, before.told).signal(signal.SIGKILL if late else signal.SIGTERM)
            try:
                self._bound, self._bound_to = bind_port(host, port), f"{host}:{port}"
                return self._bound
            except PortForeignError:
                if loop.time() - began > (_FREE_SECONDS if before is None else 2 * _HANDOVER_SECONDS):
                    raise PortForeignError(
                        f"port {port} of {host} is taken, so Ollama's API cannot be there",
                        hint="Stop Ollama, if it runs, or choose another port with GARRISON_GATEWAY_OLLAMA_PORT.",
                        details={"port": port},
                    ) from None
            await asyncio.sleep(_BIND_POLL_SECONDS)
            before = before or await self._record()

    def _end_later(self, running: _Running) -> None:
        self._begin(self._end(running))

    async def _end(self, running: _Running) -> None:
        running.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._settings.drain_timeout + 2.0):
                await running.ended()
        except TimeoutError:
            running.signal(signal.SIGKILL)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="end ollama")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _record(self) -> Record | None:
        return await self._disk.run(lambda: read_record(self._began.data_dir), "read the record of Ollama's API")

    def _wanted(self) -> Told:
        began, values = self._began, self._settings
        certificate = None if began.tls_cert_file is None else str(began.tls_cert_file.absolute())
        key = None if began.tls_key_file is None else str(began.tls_key_file.absolute())
        public = not is_loopback(self._host)
        names = (*values.allowed_hosts, began.server_host, began.gateway_ollama_host)
        return Told(
            version=garrison.__version__,
            data_dir=str(began.data_dir.absolute()),
            control_socket=str(self._control_socket.absolute()),
            address=f"{self._host}:{began.gateway_ollama_port}",
            gateway=url_of(reachable(self._gateway_host), began.server_port, secure=certificate is not None),
            gateway_certificate=certificate,
            tls_cert=certificate if public else None,
            tls_key=key if public else None,
            hosts=tuple(one.lower() for one in names),
            origins=values.allowed_origins,
            max_body_bytes=began.max_body_mib * 2**20,
            drain_seconds=values.drain_timeout,
        )
