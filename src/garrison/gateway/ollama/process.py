"""The process: startup, main_loop, shutdown. It goes on when the control process is killed, and is adopted by the next.

It ends by SIGTERM, after the requests in progress; and by itself, when another process is on record, when its data
directory is gone, or when there has been no control process for an hour.
"""

import asyncio
import contextlib
import logging
import socket
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from garrison.base.identity import this_process
from garrison.base.logs import logger
from garrison.gateway.ollama.application import Application
from garrison.gateway.ollama.door import Door
from garrison.gateway.ollama.told import Told, read_record

__all__ = ["make_server", "serve"]

_HEAD_BYTES = 64 * 1024
_HEAD_SECONDS = 20.0
"""For a head, from the connection or the answer before to its last byte."""
_IDLE_SECONDS = 75
_MOST_CONNECTIONS = 4096
_LOOK_SECONDS = 5.0
_ALONE_SECONDS = 3600.0
_log = logger(__name__)


async def serve(told: Told, bound: socket.socket) -> None:
    """Serve until told to end.

    Args:
        bound: listens already.

    Raises:
        OSError: the certificate cannot be used.
    """
    door = Door(told.gateway, None if told.gateway_certificate is None else Path(told.gateway_certificate))
    server = make_server(told, door)
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # clients that leave are no errors
    watching = asyncio.create_task(_watch(told, server), name="watch")
    try:
        await server.serve(sockets=[bound])
    finally:
        watching.cancel()
        door.close()


def make_server(told: Told, door: Door) -> uvicorn.Server:
    """Return the HTTP server, which does not listen yet."""
    config = uvicorn.Config(
        Application(told, door),
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=max(1, round(told.drain_seconds)),
        h11_max_incomplete_event_size=_HEAD_BYTES,
        ssl_certfile=told.tls_cert,
        ssl_keyfile=told.tls_key,
    )
    return uvicorn.Server(config)


class _Protocol(H11Protocol):
    """Closes a connection whose first head does not arrive; uvicorn itself looks after those that follow."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._first = self.loop.call_later(_HEAD_SECONDS, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._first.cancel()
        super().connection_lost(exc)

    def _late(self) -> None:
        cycle: Any = self.cycle
        if cycle is None:  # there was no request yet
            self.transport.close()


async def _watch(told: Told, server: uvicorn.Server) -> None:
    """End the server when nobody needs it any more."""
    loop = asyncio.get_running_loop()
    seen = loop.time()
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        if await _answers(told.control_socket):
            seen = loop.time()
        if not await asyncio.to_thread(_is_on_record, told) or loop.time() - seen > _ALONE_SECONDS:
            _log.info("nobody needs this process any more", address=told.address)
            server.should_exit = True


def _is_on_record(told: Told) -> bool:
    found, this = read_record(Path(told.data_dir)), this_process()
    return found is not None and (found.pid, found.start) == (this.pid, this.start)


async def _answers(path: str) -> bool:
    """Whether somebody listens on a unix socket."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_LOOK_SECONDS):
            _, writer = await asyncio.open_unix_connection(path)
        writer.close()
        return True
    return False
