"""Sockets through psutil, for systems without `/proc`."""

import socket
from collections.abc import Iterable

import psutil

from garrison.preflight.addresses import Address, from_packed
from garrison.preflight.listeners import Listener, ScanError, place
from garrison.preflight.procnet import ProcNet

__all__ = ["PsutilSockets"]


class PsutilSockets(ProcNet):
    """Names and test binds work as on Linux; the table of listeners, with pids, comes from psutil."""

    def listeners(self, port: int) -> tuple[Listener, ...]:
        try:
            return tuple(self._found(port))
        except psutil.AccessDenied:
            raise ScanError("this system shows other processes' sockets to an administrator only") from None

    def connections(self, port: int) -> tuple[Listener, ...]:
        try:
            return tuple(self._found(port, connected=True))
        except psutil.AccessDenied:
            raise ScanError("this system shows other processes' sockets to an administrator only") from None

    def has_own_network(self, pid: int) -> bool:
        return False

    def _found(self, port: int, *, connected: bool = False) -> Iterable[Listener]:
        for one in psutil.net_connections(kind="tcp"):
            # psutil gives (ip, port), and an empty tuple for a socket that is not bound.
            if connected == (one.status == psutil.CONN_LISTEN) or not one.laddr or one.laddr.port != port:
                continue
            peer = place(_address(one.family, one.raddr.ip), one.raddr.port) if connected and one.raddr else None
            address = _address(one.family, one.laddr.ip)
            yield Listener(address, port, 0, -1, one.pid, listening=not connected, peer=peer)


def _address(family: int, text: str) -> Address:
    return from_packed(socket.inet_pton(family, text.partition("%")[0]))
