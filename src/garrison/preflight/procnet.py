"""The sockets on a port of a Linux machine: through sock_diag(7), or from `/proc/net/tcp` and `/proc/net/tcp6` where
the kernel does not answer that, as in some sandboxes.

Format of the tables: https://docs.kernel.org/networking/proc_net_tcp.html. They list every listening socket before the
first established one, so reading stops there.
"""

import errno
import itertools
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from garrison.preflight import sock_diag
from garrison.preflight.addresses import Address, from_packed
from garrison.preflight.listeners import Listener, ScanError, place

__all__ = ["ProcNet", "parse_connections", "parse_listeners"]

_LISTEN = b"0A"
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def parse_listeners(lines: Iterable[bytes], port: int, v6only: Iterable[int] = ()) -> Iterator[Listener]:
    """The listeners on `port` in the lines of one table, header included.

    Args:
        v6only: inodes of the sockets that are known to take IPv6 alone; the table does not say it.
    """
    rows = iter(lines)
    next(rows, None)
    suffix = b":%04X" % port
    for row in rows:
        fields = row.split(None, 10)
        if len(fields) < 10:
            continue
        if fields[3] != _LISTEN:
            return
        if not fields[1].endswith(suffix):
            continue
        inode = int(fields[9])
        packed = _packed(fields[1][: -len(suffix)])
        yield Listener(from_packed(packed, v6only=inode in v6only), port, inode, int(fields[7]))


def parse_connections(lines: Iterable[bytes], port: int) -> Iterator[Listener]:
    """The connections with the local port `port` in the lines of one table, header included."""
    suffix = b":%04X" % port
    for row in itertools.islice(lines, 1, None):
        fields = row.split(None, 10)
        if len(fields) >= 10 and fields[3] != _LISTEN and fields[1].endswith(suffix):
            host, _, remote = fields[2].partition(b":")
            peer = place(from_packed(_packed(host)), int(remote, 16))
            local = from_packed(_packed(fields[1][: -len(suffix)]))
            yield Listener(local, port, int(fields[9]), int(fields[7]), listening=False, peer=peer)


def _packed(text: bytes) -> bytes:
    """The table prints each 32-bit word of an address as this machine's integer."""
    words = bytes.fromhex(text.decode("ascii"))
    if sys.byteorder == "big":
        return words
    return b"".join(words[start : start + 4][::-1] for start in range(0, len(words), 4))


class ProcNet:
    """`Sockets` of the running Linux machine."""

    def __init__(self, root: str = "/proc") -> None:
        self._root = root

    def listeners(self, port: int) -> tuple[Listener, ...]:
        if self._root == "/proc":
            tables = [sock_diag.dump(family, sock_diag.LISTENING) for family in _FAMILIES]
            if None not in tables:
                known = (one for table in tables if table is not None for one in table if one.port == port)
                return (*(_listener(one, listening=True) for one in known), *self._bound(port))
        return self._from_tables(port)

    def _from_tables(self, port: int) -> tuple[Listener, ...]:
        found = list(self._read("tcp", port, ()))
        six = tuple(self._read("tcp6", port, ()))
        if any(listener.address.is_wildcard and not listener.address.is_v4 for listener in six):
            v6only = {one.inode for one in sock_diag.dump(socket.AF_INET6, sock_diag.LISTENING) or () if one.v6only}
            six = tuple(self._read("tcp6", port, v6only))
        return (*found, *six, *self._bound(port))

    def resolve(self, host: str) -> tuple[Address, ...]:
        address = host.partition("%")[0]
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                packed = socket.inet_pton(family, address)
            except OSError:
                continue
            return (from_packed(packed, v6only=family == socket.AF_INET6 and self._bind_v6only()),)
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        texts = dict.fromkeys((family, str(name[0]).partition("%")[0]) for family, _, _, _, name in answers)
        return tuple(from_packed(socket.inet_pton(family, text)) for family, text in texts)

    def connections(self, port: int) -> tuple[Listener, ...]:
        if self._root == "/proc":
            dumps = [sock_diag.dump(family, sock_diag.CONNECTED, port) for family in _FAMILIES]
            if None not in dumps:
                found = (one for dump in dumps if dump is not None for one in dump if one.port == port)
                return tuple(_connection(one) for one in found)
        return (*self._read("tcp", port, (), connected=True), *self._read("tcp6", port, (), connected=True))

    def bind_error(self, addresses: Iterable[Address], port: int) -> OSError | None:
        errors = [_bind_error(address, port) for address in addresses]
        absent = [one for one in errors if one is not None and one.errno in _ABSENT]
        present = [one for one in errors if one not in absent]
        return next((one for one in (present or absent) if one is not None), None)

    def has_own_network(self, pid: int) -> bool:
        try:
            links = [Path(self._root, name, "ns", "net").readlink() for name in ("self", str(pid))]
        except OSError:  # it ended, or is another user's
            return False
        return links[0] != links[1]

    def _read(self, table: str, port: int, v6only: Iterable[int], *, connected: bool = False) -> Iterator[Listener]:
        try:
            with open(os.path.join(self._root, "net", table), "rb") as lines:
                yield from parse_connections(lines, port) if connected else parse_listeners(lines, port, v6only)
        except FileNotFoundError:
            if table == "tcp":
                raise ScanError(f"{self._root}/net/tcp does not exist") from None
        except OSError as error:
            raise ScanError(f"{self._root}/net/{table}: {error.strerror}") from None

    def _bound(self, port: int) -> Iterator[Listener]:
        for family in _FAMILIES:
            for one in sock_diag.dump(family, sock_diag.BOUND) or ():
                if one.port == port:
                    yield _listener(one, listening=False)

    def _bind_v6only(self) -> bool:
        """Whether a new IPv6 socket accepts only IPv6. By default it accepts IPv4 too."""
        try:
            with open(os.path.join(self._root, "sys/net/ipv6/bindv6only"), "rb") as setting:
                return setting.read().strip() == b"1"
        except OSError:
            return False


def _listener(found: sock_diag.DiagSocket, *, listening: bool) -> Listener:
    address = from_packed(found.packed, v6only=found.v6only)
    return Listener(address, found.port, found.inode, found.uid, listening=listening)


def _connection(found: sock_diag.DiagSocket) -> Listener:
    peer = place(from_packed(found.remote), found.remote_port)
    return Listener(from_packed(found.packed), found.port, found.inode, found.uid, listening=False, peer=peer)


def _bind_error(address: Address, port: int) -> OSError | None:
    family = socket.AF_INET if address.is_v4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if address.v6only:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((str(address), port))
    except OSError as error:
        return None if error.errno == errno.EINVAL else error  # a link-local address, whose interface is not known here
    return None
