"""The sockets of the server: one port for everybody with a key, one unix socket for the owner of the data directory."""

import asyncio
import contextlib
import ipaddress
import os
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from garrison.base.errors import InvalidError, PortForeignError
from garrison.base.settings import Settings

__all__ = ["CONTROL_NAME", "SOCKET_NAME", "Listener", "bind_port", "bind_socket", "is_loopback"]

SOCKET_NAME = "server.sock"
CONTROL_NAME = "control.sock"
"""Where the workers of the gateway send what is not for a model. Its requests need keys, as those of TCP do."""
_BACKLOG = 2048
_UCRED = struct.Struct("3i")


class Listener:
    """One uvicorn server, whose life belongs to ours.

    Args:
        local: requests come from the owner of the data directory.
        behind: requests come through workers of the gateway, which say from where.
        drain_seconds: for requests in progress at the end.
    """

    def __init__(
        self, app: ASGIApp, bound: socket.socket, settings: Settings, *, local: bool = False, behind: bool = False,
        drain_seconds: float,
    ) -> None:  # fmt: skip
        protocol = _OwnersOnly if local or behind else HttpToolsProtocol
        secure = not local and not behind and settings.tls_cert_file is not None
        config = uvicorn.Config(
            _Local(app) if local else app,
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=behind,
            forwarded_allow_ips="*",  # with `behind` only: they write what a client may not
            timeout_keep_alive=75,
            timeout_graceful_shutdown=max(1, round(drain_seconds)),
            ssl_certfile=str(settings.tls_cert_file) if secure else None,
            ssl_keyfile=str(settings.tls_key_file) if secure and settings.tls_key_file is not None else None,
        )
        self._server = _Server(config)
        self._bound = bound
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Begin to accept connections.

        Raises:
            InvalidError: the certificate or its key cannot be used.
        """
        try:
            self._server.config.load()
        except (OSError, ssl.SSLError) as error:
            raise InvalidError(
                f"the certificate cannot be used: {error}", hint="Check GARRISON_TLS_CERT_FILE and _KEY."
            ) from None
        self._bound.listen(_BACKLOG)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._bound]))
        await self._server.listening.wait()

    def accept_no_more(self) -> None:
        """Accept no more connections; those that there are go on."""
        for one in self._server.servers:
            one.close()
        self._bound.close()

    async def shutdown(self) -> None:
        """Accept no more, and return when the requests in progress have ended, or are cut."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.wait([self._task])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the daemon's


class _Local:
    """Marks requests of the owner."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["garrison.local"] = True
        await self._app(scope, receive, send)


class _OwnersOnly(HttpToolsProtocol):
    """Closes connections of other users than the server's own and root, whatever the mode of the socket's file is."""

    def connection_made(self, transport: Any) -> None:
        peer = peer_uid(transport.get_extra_info("socket"))
        if peer is not None and peer not in (0, os.geteuid()):
            transport.close()
            return
        super().connection_made(transport)


def peer_uid(connection: Any) -> int | None:
    """The user at the other end of a unix socket; None where the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except OSError:
        return None
    uid: int = _UCRED.unpack(raw)[1]
    return uid


def bind_port(host: str, port: int) -> socket.socket:
    """Bind the port of the server, without listening yet.

    Raises:
        PortForeignError: it is taken.
        InvalidError: the address cannot be used.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, proto)
    except OSError as error:
        raise InvalidError(f"the address {host!r} cannot be used: {error.strerror or error}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        if error.errno in (98, 48):
            raise PortForeignError(
                f"port {port} of {host} is taken", hint="Stop its holder, or choose another port with --port.",
                details={"port": port},
            ) from None  # fmt: skip
        raise InvalidError(f"port {port} of {host} cannot be used: {error.strerror}") from None
    return bound


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind_socket(path: Path) -> socket.socket:
    """Bind the owner's socket, mode 0600. One that an earlier server left is replaced: the caller holds the lock.

    Raises:
        InvalidError: it cannot be made.
    """
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        with _short(path) as name:
            before = os.umask(0o177)
            try:
                bound.bind(name)
            finally:
                os.umask(before)
    except OSError as error:
        bound.close()
        raise InvalidError(f"the socket {path} cannot be made: {error}", hint="Check the data directory.") from None
    return bound


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of `path` that fits into the address of a socket, which holds about 100 bytes."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
