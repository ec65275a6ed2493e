"""Which listeners stand in the way of a bind: the kernel's conflict rule as a function of two addresses.

The rule is Linux's `ipv6_rcv_saddr_equal` for two sockets of one port, without `SO_REUSEPORT`: with several API servers
vLLM sets that option, and the kernel would let it bind beside another vLLM and split the connections between the two.
"""

from dataclasses import dataclass

__all__ = ["Address", "conflicts", "from_packed"]

_MAPPED_PREFIX = bytes(10) + b"\xff\xff"


@dataclass(frozen=True)
class Address:
    """An address a socket is bound to, or is about to be.

    Attributes:
        packed: 4 bytes for IPv4, 16 for IPv6, in network order. A mapped address (`::ffff:a.b.c.d`) is held as IPv4.
        v6only: for IPv6 alone: the socket takes no IPv4 connections. Matters for the wildcard `::` only.
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
        import socket  # only for people who read a message

        return socket.inet_ntop(socket.AF_INET if self.is_v4 else socket.AF_INET6, self.packed)


def from_packed(packed: bytes, *, v6only: bool = False) -> Address:
    """4 or 16 bytes to an `Address`; mapped IPv6 becomes the IPv4 address it stands for."""
    if packed.startswith(_MAPPED_PREFIX) and len(packed) == 16:
        return Address(packed[12:])
    # The kernel marks every socket bound to a specific IPv6 address v6-only; it means something for `::` alone.
    return Address(packed, v6only and len(packed) == 16 and not any(packed))


def conflicts(wanted: Address, held: Address) -> bool:
    """Whether a bind to `wanted` meets a listener on `held`, both on one port. Symmetric."""
    if wanted.is_v4 == held.is_v4:
        return wanted.is_wildcard or held.is_wildcard or wanted.packed == held.packed
    six = held if wanted.is_v4 else wanted
    # Between the families only the IPv6 wildcard of a dual-stack socket reaches over.
    return six.is_wildcard and not six.v6only
