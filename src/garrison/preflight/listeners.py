"""The seam to the machine's sockets: the listeners on a port, and the addresses that a host name stands for."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from garrison.preflight.addresses import Address, conflicts

__all__ = ["Listener", "ScanError", "Sockets", "conflicting", "place"]


class ScanError(Exception):
    """The socket table of this machine cannot be read."""


@dataclass(frozen=True)
class Listener:
    """A TCP socket that has a port: listening, bound and not listening yet, or connected.

    Attributes:
        inode: the socket's inode; 0 for a socket of the kernel.
        uid: the socket's owner, according to the kernel; -1 where it is not known.
        pid: the process, where the table names it (psutil); otherwise it is found through the inode.
        peer: the other end of a connection, `10.0.0.2:443`; None for the other two.
    """

    address: Address
    port: int
    inode: int
    uid: int
    pid: int | None = None
    listening: bool = True
    peer: str | None = None

    def __str__(self) -> str:
        where = place(self.address, self.port)
        if self.peer is not None:
            return f"{where} (connected to {self.peer})"
        return where if self.listening else f"{where} (bound, not listening yet)"


def place(address: Address, port: int) -> str:
    """`127.0.0.1:8000`, `[::1]:8000`."""
    return f"{address}:{port}" if address.is_v4 else f"[{address}]:{port}"


class Sockets(Protocol):
    def listeners(self, port: int) -> tuple[Listener, ...]:
        """Every listener on `port`, on any address, and every socket bound to it that does not listen yet, where the
        system lists those. Raises ScanError.
        """

    def resolve(self, host: str) -> tuple[Address, ...]:
        """The addresses of a bind to `host`: one for an IP address, any number for a name. Raises OSError."""

    def connections(self, port: int) -> tuple[Listener, ...]:
        """Every connection with this local port, also one that has ended and that the system keeps for a minute. Raises
        ScanError.
        """

    def bind_error(self, addresses: Iterable[Address], port: int) -> OSError | None:
        """Why a server could not bind the port, with SO_REUSEADDR as servers do; None if it could.

        The bind is undone at once. Of several addresses, those that this machine does not have are no error as long as
        it has one.
        """

    def has_own_network(self, pid: int) -> bool:
        """Whether a process is in another network namespace, whose sockets are not listed here."""


def conflicting(wanted: Iterable[Address], held: Iterable[Listener]) -> tuple[Listener, ...]:
    """The listeners that conflict with a bind to any of `wanted`, in the order given."""
    wanted = tuple(wanted)
    return tuple(listener for listener in held if any(conflicts(address, listener.address) for address in wanted))
