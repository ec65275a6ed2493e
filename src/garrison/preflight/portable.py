"""Sockets through psutil, for systems without `/proc`."""

import socket
from collections.abc import Iterable

import psutil

from garrison.preflight.addresses import from_packed
from garrison.preflight.listeners import Listener, ScanError
from garrison.preflight.procnet import ProcNet

__all__ = ["PsutilSockets"]


class PsutilSockets(ProcNet):
    """Names and test binds work as on Linux; the table of listeners, with pids, comes from psutil."""

    def listeners(self, port: int) -> tuple[Listener, ...]:
        try:
            return tuple(self._found(port))
        except psutil.AccessDenied:
            raise ScanError("this system shows other processes' sockets to an administrator only") from None

    def _found(self, port: int) -> Iterable[Listener]:
        for connection in psutil.net_connections(kind="tcp"):
            # psutil gives (ip, port), and an empty tuple for a socket that is not bound.
            if connection.status != psutil.CONN_LISTEN or not connection.laddr or connection.laddr.port != port:
                continue
            packed = socket.inet_pton(connection.family, connection.laddr.ip.partition("%")[0])
            yield Listener(from_packed(packed), port, 0, -1, connection.pid)
