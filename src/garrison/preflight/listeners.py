"""The seam to the machine's sockets: the listeners on a port, and the addresses that a host name stands for."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from garrison.preflight.addresses import Address, conflicts

__all__ = ["Listener", "ScanError", "Sockets", "conflicting"]


class ScanError(Exception):
    """The socket table of this machine cannot be read."""


@dataclass(frozen=True)
class Listener:
    """A TCP socket that has a port: listening, or bound and not listening yet.

    Attributes:
        inode: the socket's inode; 0 for a socket of the kernel.
        uid: the socket's owner, according to the kernel; -1 where it is not known.
        pid: the process, where the table names it (psutil); otherwise it is found through the inode.
    """

    address: Address
    port: int
    inode: int
    uid: int
    pid: int | None = None
    listening: bool = True

    def __str__(self) -> str:
        where = f"{self.address}:{self.port}" if self.address.is_v4 else f"[{self.address}]:{self.port}"
        return where if self.listening else f"{where} (bound, not listening yet)"


class Sockets(Protocol):
    def listeners(self, port: int) -> tuple[Listener, ...]:
        """Every listener on `port`, on any address, and every socket bound to it that does not listen yet, where the
        system lists those. Raises ScanError.
        """

    def resolve(self, host: str) -> tuple[Address, ...]:
        """The addresses of a bind to `host`: one for an IP address, any number for a name. Raises OSError."""

    def can_bind(self, addresses: Iterable[Address], port: int) -> bool:
        """Whether a bind succeeds; it is undone at once. The last resort where the table cannot be read."""


def conflicting(wanted: Iterable[Address], held: Iterable[Listener]) -> tuple[Listener, ...]:
    """The listeners that conflict with a bind to any of `wanted`, in the order given."""
    wanted = tuple(wanted)
    return tuple(listener for listener in held if any(conflicts(address, listener.address) for address in wanted))
