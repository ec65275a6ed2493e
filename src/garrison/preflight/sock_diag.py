"""TCP sockets by state, through sock_diag(7): quicker than `/proc/net/tcp`, which walks the kernel's whole table of
connections (4 to 5 ms a read), and with what that does not show: which IPv6 sockets accept only IPv6, and which sockets
are bound without listening.

vLLM binds its port at once, with SO_REUSEADDR, and listens when the model is loaded: a second one binds it too, loads
its model, and only then fails. Kernels from 6.8 on list such sockets.
"""

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["BOUND", "LISTENING", "DiagSocket", "dump", "parse_dump"]

LISTENING = 1 << 10
BOUND = 1 << 13
"""State masks: TCPF_LISTEN, TCPF_BOUND_INACTIVE. A kernel that does not know the latter lists nothing for it."""

_NETLINK_SOCK_DIAG = 4  # the socket module has no name for it
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_INET_DIAG_SKV6ONLY = 11


@dataclass(frozen=True)
class DiagSocket:
    """`packed` is the local address, 4 or 16 bytes."""

    packed: bytes
    port: int
    inode: int
    uid: int
    v6only: bool


def dump(family: int, states: int) -> tuple[DiagSocket, ...] | None:
    """Every TCP socket of `family` in one of `states`; None where the kernel does not answer (sandboxes)."""
    request = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, states) + bytes(48)
    header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0)
    found: list[DiagSocket] = []
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
            netlink.settimeout(1.0)
            netlink.sendall(header + request)
            while True:
                answer = netlink.recv(1 << 17)
                entries = list(parse_dump(answer))
                found += [entry for entry in entries if entry is not None]
                if not answer or None in entries:
                    return tuple(found)
    except OSError:
        return None


def parse_dump(answer: bytes) -> Iterator[DiagSocket | None]:
    """The `struct inet_diag_msg`s of one datagram; None at the end of the answer.

    Raises:
        OSError: the kernel rejected the request.
    """
    offset = 0
    while offset + 16 <= len(answer):
        length, kind = struct.unpack_from("=IH", answer, offset)
        if kind == _NLMSG_DONE:
            yield None
            return
        if kind == _NLMSG_ERROR or length < 16 + 72:
            raise OSError("the kernel rejected the request")
        message = answer[offset + 16 : offset + length]
        (port,) = struct.unpack_from("!H", message, 4)
        uid, inode = struct.unpack_from("=II", message, 64)
        packed = message[8:12] if message[0] == socket.AF_INET else message[8:24]
        yield DiagSocket(packed, port, inode, uid, _attribute(message[72:], _INET_DIAG_SKV6ONLY) == b"\1")
        offset += (length + 3) & ~3


def _attribute(attributes: bytes, wanted: int) -> bytes | None:
    offset = 0
    while offset + 4 <= len(attributes):
        length, kind = struct.unpack_from("=HH", attributes, offset)
        if length < 4:
            return None
        if kind == wanted:
            return attributes[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return None
