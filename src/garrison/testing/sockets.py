"""The twin of the machine's sockets: who listens on a port, and what a host name means."""

import errno
import os
import socket
from collections.abc import Callable, Iterable

from garrison.preflight.addresses import Address, from_packed
from garrison.preflight.listeners import Listener, ScanError, conflicting

__all__ = ["MemorySockets"]


class MemorySockets:
    """`Sockets` over a list.

    Attributes:
        table: the listeners; a test adds and removes them.
        readable: False for a machine whose socket table cannot be read.
        names: host name to addresses; any other name raises OSError. IP addresses need no entry.
        connected: the connections.
        errors: why a bind to a port fails, by port, although nothing conflicts.
        own_network: the pids of processes in another network namespace.
        before_read: called before each read of the table, so that a test can change it between two reads.
    """

    def __init__(self, table: Iterable[Listener] = (), *, readable: bool = True) -> None:
        self.table = list(table)
        self.readable = readable
        self.names: dict[str, tuple[Address, ...]] = {"localhost": (Address(b"\x7f\0\0\1"), Address(bytes(15) + b"\1"))}
        self.connected: list[Listener] = []
        self.errors: dict[int, int] = {}
        self.own_network: set[int] = set()
        self.before_read: Callable[[], None] = lambda: None

    def listeners(self, port: int) -> tuple[Listener, ...]:
        if not self.readable:
            raise ScanError("the socket table is closed")
        self.before_read()
        return tuple(listener for listener in self.table if listener.port == port)

    def resolve(self, host: str) -> tuple[Address, ...]:
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                return (from_packed(socket.inet_pton(family, host)),)
            except OSError:
                continue
        if host not in self.names:
            raise OSError(f"no such name: {host}")
        return self.names[host]

    def connections(self, port: int) -> tuple[Listener, ...]:
        if not self.readable:
            raise ScanError("the socket table is closed")
        return tuple(one for one in self.connected if one.port == port)

    def bind_error(self, addresses: Iterable[Address], port: int) -> OSError | None:
        held = [one for one in (*self.table, *self.connected) if one.port == port]
        code = errno.EADDRINUSE if conflicting(addresses, held) else self.errors.get(port)
        return None if code is None else OSError(code, os.strerror(code))

    def has_own_network(self, pid: int) -> bool:
        return pid in self.own_network
