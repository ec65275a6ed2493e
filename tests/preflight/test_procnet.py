import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from garrison.preflight import sock_diag
from garrison.preflight.addresses import Address
from garrison.preflight.listeners import ScanError
from garrison.preflight.procnet import ProcNet, parse_listeners

HEADER = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def row(local: str, state: str, uid: int, inode: int) -> bytes:
    """A line as the kernel prints it."""
    remote = "0" * len(local.partition(":")[0]) + ":0000"
    queues = "00000000:00000000 00:00000000 00000000"
    return f"   0: {local} {remote} {state} {queues} {uid:5}        0 {inode} 1 0 100 0 0 10 0\n".encode()


V4 = [
    HEADER,
    row("0100007F:1F90", "0A", 1000, 60442),
    row("00000000:0050", "0A", 0, 60448),
    row("0100007F:1F90", "01", 1000, 60999),
    row("00000000:1F90", "0A", 0, 1),
]
V6 = [
    HEADER,
    row("00000000000000000000000001000000:1F90", "0A", 1000, 7001),
    row("0000000000000000FFFF00000100007F:1F90", "0A", 1000, 7002),
    row("00000000000000000000000000000000:1F90", "0A", 1000, 7003),
]
little_endian = pytest.mark.skipif(sys.byteorder == "big", reason="the sample is of a little-endian machine")


@little_endian
def test_v4_line_by_line() -> None:
    (found,) = parse_listeners(V4, 8080)
    assert found.address == Address(b"\x7f\0\0\1")
    assert (found.port, found.inode, found.uid) == (8080, 60442, 1000)
    assert str(found) == "127.0.0.1:8080"


@little_endian
def test_reading_stops_at_the_first_connection() -> None:
    def lines() -> Iterator[bytes]:
        yield from V4[:4]
        raise AssertionError("read on")

    assert [one.inode for one in parse_listeners(lines(), 8080)] == [60442]


@little_endian
def test_v6_mapped_and_v6only() -> None:
    loopback, mapped, wildcard = parse_listeners(V6, 8080, v6only={7003})
    assert loopback.address == Address(bytes(15) + b"\1")
    assert mapped.address == Address(b"\x7f\0\0\1")
    assert wildcard.address == Address(bytes(16), v6only=True)
    assert str(wildcard) == "[::]:8080"


def test_empty_and_torn_tables() -> None:
    assert list(parse_listeners([], 80)) == []
    assert list(parse_listeners([HEADER, b"\n", b"  0: 0100\n"], 80)) == []


def test_a_machine_without_ipv6(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_bytes(HEADER)
    assert ProcNet(str(tmp_path)).listeners(80) == ()


def test_no_table_is_an_error_and_not_a_free_port(tmp_path: Path) -> None:
    with pytest.raises(ScanError):
        ProcNet(str(tmp_path)).listeners(80)


def test_addresses_and_names() -> None:
    sockets = ProcNet()
    assert sockets.resolve("0.0.0.0") == (Address(bytes(4)),)
    assert sockets.resolve("::ffff:127.0.0.1") == (Address(b"\x7f\0\0\1"),)
    assert sockets.resolve("fe80::1%eth0") == (Address(b"\xfe\x80" + bytes(13) + b"\1"),)
    assert Address(b"\x7f\0\0\1") in sockets.resolve("localhost")
    with pytest.raises(OSError):
        sockets.resolve("no-such-host.invalid")


@pytest.mark.parametrize(("setting", "v6only"), [("1", True), ("0", False), (None, False)])
def test_a_new_v6_socket_follows_the_machine(tmp_path: Path, setting: str | None, v6only: bool) -> None:
    if setting is not None:
        (tmp_path / "sys/net/ipv6").mkdir(parents=True)
        (tmp_path / "sys/net/ipv6/bindv6only").write_text(setting + "\n")
    assert ProcNet(str(tmp_path)).resolve("::") == (Address(bytes(16), v6only=v6only),)


@pytest.mark.system
@pytest.mark.parametrize("v6only", [True, False])
def test_the_kernel_is_asked_whether_a_socket_is_v6only(v6only: bool) -> None:
    with socket.socket(socket.AF_INET6) as listening:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(v6only))
        listening.bind(("::", 0))
        listening.listen()
        (found,) = ProcNet().listeners(listening.getsockname()[1])
    assert found.address == Address(bytes(16), v6only=v6only)


@pytest.mark.system
def test_a_bind_is_tried() -> None:
    sockets = ProcNet()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        error = sockets.bind_error([Address(bytes(4))], port)
        assert error is not None
        assert error.errno == errno.EADDRINUSE
    assert sockets.bind_error([Address(bytes(4)), Address(bytes(16))], port) is None


@pytest.mark.system
def test_an_address_of_another_machine_is_an_error_if_there_is_no_other(port: int) -> None:
    """A name may stand for IPv4 and IPv6, on a machine that has one of them."""
    here, elsewhere = Address(b"\x7f\0\0\1"), Address(bytes([192, 0, 2, 1]))
    error = ProcNet().bind_error([elsewhere], port)
    assert error is not None
    assert error.errno == errno.EADDRNOTAVAIL
    assert ProcNet().bind_error([elsewhere, here], port) is None


@pytest.fixture(params=["sock_diag", "tables"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ProcNet:
    """Sockets as the kernel answers, and as the tables of a machine say on which it does not."""
    if request.param == "tables":
        monkeypatch.setattr(sock_diag, "dump", lambda *_: None)
    return ProcNet()


@pytest.mark.system
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_local_port_of_a_connection(either_way: ProcNet, family: int) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with (
        socket.create_server((host, 0), family=family) as server,
        socket.create_connection(server.getsockname()[:2]) as client,
    ):
        number, peer = client.getsockname()[1], server.getsockname()[1]
        inode = os.fstat(client.fileno()).st_ino
        # Another process may have a connection from the same port to another peer.
        (found,) = (one for one in either_way.connections(number) if one.inode == inode)
        assert either_way.listeners(number) == ()
        error = either_way.bind_error([found.address], number)
        assert error is not None
        assert error.errno == errno.EADDRINUSE
    assert (found.address, found.listening) == (either_way.resolve(host)[0], False)
    shown = host if family == socket.AF_INET else f"[{host}]"
    assert str(found) == f"{shown}:{number} (connected to {shown}:{peer})"


@pytest.mark.system
def test_a_process_with_a_network_of_its_own() -> None:
    code = "import ctypes, time; ctypes.CDLL(None).unshare(0x40000000); print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as moved:
        try:
            assert moved.stdout is not None
            moved.stdout.readline()
            assert ProcNet().has_own_network(moved.pid)
        finally:
            moved.kill()
    assert not ProcNet().has_own_network(os.getpid())
    assert not ProcNet().has_own_network(2**22 + 1)


def kernel_lists_bound_sockets() -> bool:
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor)) >= (6, 8)


@pytest.mark.system
@pytest.mark.skipif(not kernel_lists_bound_sockets(), reason="kernels before 6.8 do not list bound sockets")
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_socket_that_is_bound_and_does_not_listen_yet(host: str) -> None:
    """As a vLLM that loads its model."""
    sockets = ProcNet()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as bound:
        bound.bind((host, 0))
        port = bound.getsockname()[1]
        (found,) = sockets.listeners(port)
        assert (found.address, found.listening) == (sockets.resolve(host)[0], False)
        assert found.inode == os.fstat(bound.fileno()).st_ino
        assert "not listening yet" in str(found)
        bound.listen()
        (found,) = sockets.listeners(port)
        assert found.listening


@pytest.mark.system
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_the_kernel_and_its_tables_say_the_same(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        port = listening.getsockname()[1]
        asked = ProcNet().listeners(port)
        assert [one.inode for one in asked] == [os.fstat(listening.fileno()).st_ino]
        assert asked == ProcNet("/proc/self/../").listeners(port), "the tables, by another name of the directory"
        monkeypatch.setattr("garrison.preflight.sock_diag.dump", lambda *_: None)
        found = ProcNet().listeners(port)
        assert [one.inode for one in found] == [one.inode for one in asked], "a sandbox: the kernel does not answer"
