"""The seam to the machine's sockets: who listens on a port, and what a host name means for a bind."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from garrison.preflight.addresses import Address, conflicts

__all__ = ["Listener", "ScanError", "Sockets", "conflicting"]


class ScanError(Exception):
    """The socket table of this machine cannot be read."""


@dataclass(frozen=True)
class Listener:
    """A TCP socket that has a port: in state LISTEN, or bound and about to be.

    Attributes:
        inode: the socket's inode; 0 for a socket of the kernel's own.
        uid: owner of the socket, as the kernel has it.
        pid: the owner where the table says so itself (psutil); else it is found through the inode.
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
        """Every listener on `port`, whatever its address, and every socket that is bound to it and does not listen yet,
        where the system tells. Raises ScanError.
        """

    def resolve(self, host: str) -> tuple[Address, ...]:
        """The addresses a bind to `host` means: one for an IP address, any number for a name. Raises OSError."""

    def can_bind(self, addresses: Iterable[Address], port: int) -> bool:
        """Try it and let go at once: the answer of last resort where the table cannot be read."""


def conflicting(wanted: Iterable[Address], held: Iterable[Listener]) -> tuple[Listener, ...]:
    """The listeners that a bind to any of `wanted` would meet, in the order given."""
    wanted = tuple(wanted)
    return tuple(listener for listener in held if any(conflicts(address, listener.address) for address in wanted))
