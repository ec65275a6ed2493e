"""Sockets by state, through sock_diag(7). For TCP it is quicker than `/proc/net/tcp`, which walks the kernel's whole
table of connections (4 to 5 ms a read), and has what that does not show: which IPv6 sockets accept only IPv6, and which
sockets are bound without listening.

vLLM binds its port at once, with SO_REUSEADDR, and listens when the model is loaded: a second one binds it too, loads
its model, and only then fails. Kernels from 6.8 on list such sockets.
"""

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["BOUND", "CONNECTED", "LISTENING", "DiagSocket", "ask", "attribute", "dump", "parse_dump"]

LISTENING = 1 << 10
BOUND = 1 << 13
"""State masks: TCPF_LISTEN, TCPF_BOUND_INACTIVE. A kernel that does not know the latter lists nothing for it."""
CONNECTED = 0b1011_0111_0110
"""State mask of connections, from SYN_SENT to those that the kernel keeps for a while after their end."""

_NETLINK_SOCK_DIAG = 4  # the socket module has no name for it
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_INET_DIAG_BYTES = 72
_INET_DIAG_SKV6ONLY = 11


@dataclass(frozen=True)
class DiagSocket:
    """`packed` is the local address, 4 or 16 bytes, and `remote` the other end's; `state` is a number of the kernel's
    `tcp_states.h`."""

    packed: bytes
    port: int
    inode: int
    uid: int
    v6only: bool
    state: int = 0
    remote: bytes = b""
    remote_port: int = 0


def dump(family: int, states: int, port: int = 0) -> tuple[DiagSocket, ...] | None:
    """Every TCP socket of `family` in one of `states`, with this local port if it is not 0; None where the kernel does
    not answer (sandboxes)."""
    request = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, states) + struct.pack("!H46x", port)
    messages = ask(request, least=_INET_DIAG_BYTES)
    return None if messages is None else tuple(map(_tcp, messages))


def ask(request: bytes, *, least: int) -> tuple[bytes, ...] | None:
    """The messages that the kernel answers a dump with, of at least so many bytes; None where it does not answer."""
    if not hasattr(socket, "AF_NETLINK"):
        return None
    header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0)
    found: list[bytes] = []
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
            netlink.settimeout(1.0)
            netlink.sendall(header + request)
            while True:
                answer = netlink.recv(1 << 17)
                messages = list(_split(answer, least))
                found += [message for message in messages if message is not None]
                if not answer or None in messages:
                    return tuple(found)
    except OSError:
        return None


def parse_dump(answer: bytes) -> Iterator[DiagSocket | None]:
    """The `struct inet_diag_msg`s of one datagram; None at the end of the answer.

    Raises:
        OSError: the kernel rejected the request.
    """
    for message in _split(answer, _INET_DIAG_BYTES):
        yield None if message is None else _tcp(message)


def attribute(attributes: bytes, wanted: int) -> bytes | None:
    """The value of the attribute of kind `wanted`; None where it is missing."""
    offset = 0
    while offset + 4 <= len(attributes):
        length, kind = struct.unpack_from("=HH", attributes, offset)
        if length < 4:
            return None
        if kind == wanted:
            return attributes[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return None


def _split(answer: bytes, least: int) -> Iterator[bytes | None]:
    """The messages of one datagram without their headers; None at the end of the answer."""
    offset = 0
    while offset + 16 <= len(answer):
        length, kind = struct.unpack_from("=IH", answer, offset)
        if kind == _NLMSG_DONE:
            yield None
            return
        if kind == _NLMSG_ERROR or length < 16 + least:
            raise OSError("the kernel rejected the request")
        yield answer[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def _tcp(message: bytes) -> DiagSocket:
    local, remote = struct.unpack_from("!HH", message, 4)
    uid, inode = struct.unpack_from("=II", message, 64)
    size = 4 if message[0] == socket.AF_INET else 16
    v6only = attribute(message[_INET_DIAG_BYTES:], _INET_DIAG_SKV6ONLY) == b"\1"
    return DiagSocket(message[8 : 8 + size], local, inode, uid, v6only, message[1], message[24 : 24 + size], remote)
