"""One simulated server in the caller's event loop. Hundreds fit into one loop.

async with Simulator(SimConfig(port=0, enable_lora=True, runtime_lora=True)) as sim:
    ...  # sim.url
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Coroutine
from types import TracebackType
from typing import Self

from garrison.base.errors import InvalidError
from garrison.sim.adapters import AdapterReader, DirectoryAdapters
from garrison.sim.api.routes import Routes
from garrison.sim.config import SimConfig
from garrison.sim.faults import Faults
from garrison.sim.http.server import HttpServer, Limits
from garrison.sim.metrics import Counters
from garrison.sim.state import ServerState, Sleep

__all__ = ["Simulator", "bind", "bind_file"]

_DEATH_SECONDS = 0.1
"""How long a server still answers (health 503) after its engine died: uvicorn checks for its end that often."""


def bind(host: str, port: int) -> socket.socket:
    """Bind a socket that does not listen yet, as vLLM does before it loads the model.

    Raises:
        OSError: the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio disables Nagle's algorithm only if the protocol is given; with Nagle, every stream stalls for 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def bind_file(path: str) -> socket.socket:
    """Bind a unix socket that does not listen yet.

    Raises:
        OSError: the file exists, which vLLM refuses too.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


class Simulator:
    """A simulated server.

    Args:
        adapters: reads adapters; from disk by default, `testing.adapter_reader` for fleets without files.
        sleep: waits for simulated delays; a test replaces it.

    Attributes:
        exited: set when the server has ended because its engine died.
        port: the port it listens on, known after `start`.

    Raises:
        ValueError: one of `lora_modules` cannot be loaded; vLLM does not start either.
    """

    def __init__(
        self, config: SimConfig, *, adapters: AdapterReader | None = None, sleep: Sleep = asyncio.sleep
    ) -> None:
        self.config = config
        self.exited = asyncio.Event()
        self.port = config.port
        self.state = ServerState(
            config, adapters or DirectoryAdapters(), sleep=sleep, died=self._died, restart=self._restart_from_afar
        )
        limits = Limits(
            head_bytes=config.max_head_bytes,
            body_bytes=config.max_body_bytes,
            idle_seconds=config.keep_alive_timeout,
            head_seconds=config.head_timeout,
        )
        self._http = HttpServer(Routes(self.state), limits)
        self._timer: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        scheme = "https" if self.config.ssl_certfile else "http"
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"{scheme}://{host}:{self.port}"

    @property
    def faults(self) -> Faults:
        return self.state.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self.state.set_faults(faults)

    @property
    def counters(self) -> Counters:
        return self.state.counters

    @property
    def open_connections(self) -> int:
        return len(self._http.connections)

    @property
    def accepted_connections(self) -> int:
        return self._http.accepted

    @property
    def aborted_requests(self) -> int:
        """Requests whose client disconnected before the answer was complete."""
        return self._http.aborted

    async def start(self, sock: socket.socket | None = None) -> None:
        """Listen, on `sock` if it is given. After `stop` it listens on the same port again, with the same engine unless
        `restart` is called.

        Raises:
            OSError: the port is taken.
            InvalidError: the certificate cannot be used.
        """
        if self.config.uds is not None:
            sock = sock or bind_file(self.config.uds)
        else:
            sock = sock or bind(self.config.host, self.port)
            self.port = sock.getsockname()[1]
        await self._http.start(sock, self._ssl())

    async def stop(self, drain: float = 0.0) -> None:
        """Stop listening, give running requests `drain` seconds, and close all connections."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in tuple(self._background):
            if task is not asyncio.current_task():
                task.cancel()
        await self._http.stop(drain)

    def restart(self) -> None:
        """Act as a new process at the same address: new start time, run-time adapters gone, caches empty, connections
        closed.

        Raises:
            ValueError: one of `lora_modules` cannot be loaded any more.
        """
        state = self.state
        state.engine = state.new_engine(max(time.time(), state.engine.started_at + 0.01))
        state.counters.restarts += 1
        self._http.drop_connections()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _died(self) -> None:
        if self.config.survive_engine_death or self._timer is not None:
            return
        self._timer = asyncio.get_running_loop().call_later(_DEATH_SECONDS, self._end)

    def _end(self) -> None:
        self._spawn(self._stop_for_good())

    async def _stop_for_good(self) -> None:
        await self.stop()
        self.exited.set()

    def _restart_from_afar(self, downtime: float) -> None:
        self._spawn(self._restart_after(downtime))

    async def _restart_after(self, downtime: float) -> None:
        await asyncio.sleep(0)  # the answer to the request for it goes out first
        if downtime:
            await self.stop()
            await self.state.sleep(downtime)
        try:
            self.restart()
        except ValueError:  # an adapter of the command line is gone: vLLM would not start either
            await self._stop_for_good()
            return
        if downtime:
            await self.start()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _ssl(self) -> ssl.SSLContext | None:
        if self.config.ssl_certfile is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.config.ssl_certfile, self.config.ssl_keyfile)
            if self.config.ssl_ca_certs is not None:
                context.load_verify_locations(self.config.ssl_ca_certs)
            context.verify_mode = ssl.VerifyMode(self.config.ssl_cert_reqs)
        except (OSError, ValueError) as error:
            raise InvalidError(f"the certificate cannot be used: {error}", hint="Check --ssl-certfile.") from None
        return context
