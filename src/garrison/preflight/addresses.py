"""Which listeners conflict with a bind: the kernel's rule as a function of two addresses. Pure.

The rule is Linux's `ipv6_rcv_saddr_equal` for two sockets of one port, without `SO_REUSEPORT`. With several API servers
vLLM sets that option, and the kernel would let it bind beside another vLLM and split the connections between them.
"""

from dataclasses import dataclass

__all__ = ["Address", "conflicts", "from_packed"]

_MAPPED_PREFIX = bytes(10) + b"\xff\xff"


@dataclass(frozen=True)
class Address:
    """An address that a socket is bound to, or will be.

    Attributes:
        packed: 4 bytes for IPv4, 16 for IPv6, in network order. A mapped address (`::ffff:a.b.c.d`) is kept as IPv4.
        v6only: the socket accepts no IPv4 connections. It matters only for the IPv6 wildcard `::`.
    """

    packed: bytes
    v6only: bool = False

    @property
    def is_v4(self) -> bool:
        return len(self.packed) == 4

    @property
    def is_wildcard(self) -> bool:
        return not any(self.packed)

    def __str__(self) -> str:
        import socket  # needed only for messages

        return socket.inet_ntop(socket.AF_INET if self.is_v4 else socket.AF_INET6, self.packed)


def from_packed(packed: bytes, *, v6only: bool = False) -> Address:
    """Make an `Address` of 4 or 16 bytes; a mapped IPv6 address becomes the IPv4 address it stands for."""
    if packed.startswith(_MAPPED_PREFIX) and len(packed) == 16:
        return Address(packed[12:])
    # The kernel marks every socket on a specific IPv6 address as v6-only; only for `::` does it change anything.
    return Address(packed, v6only and len(packed) == 16 and not any(packed))


def conflicts(wanted: Address, held: Address) -> bool:
    """Whether a bind to `wanted` conflicts with a listener on `held`, both on one port. Symmetric."""
    if wanted.is_v4 == held.is_v4:
        return wanted.is_wildcard or held.is_wildcard or wanted.packed == held.packed
    six = held if wanted.is_v4 else wanted
    # Of the IPv6 addresses, only the wildcard of a dual-stack socket accepts IPv4.
    return six.is_wildcard and not six.v6only
