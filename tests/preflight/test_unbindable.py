"""A port on which nothing listens, and that cannot be bound all the same."""

import errno
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import InvalidError, PortForeignError, PortStuckError, PortUnattributableError
from garrison.base.identity import ProcessId
from garrison.preflight import unbindable
from garrison.preflight.addresses import Address
from garrison.preflight.check import PreflightReport, PreflightRequest, check
from garrison.preflight.listeners import Listener
from garrison.preflight.policy import RECLAIM, REFUSE
from garrison.processes.process import Process
from garrison.testing.clock import FakeClock
from garrison.testing.processes import MemoryProcesses
from garrison.testing.sockets import MemorySockets

LOOPBACK = Address(b"\x7f\0\0\1")
CONNECTION = Listener(LOOPBACK, 8000, 77, 1000, listening=False, peer="10.0.0.2:443")
ENDED = replace(CONNECTION, inode=0, uid=0)


class Bench:
    """A vLLM, pid 100, with one connection from port 8000, and nothing else on that port."""

    def __init__(self, *connections: Listener, owner: int | None = 100) -> None:
        argv = ("python", "/v/bin/vllm", "serve", "x", "--port", "9000")
        self.processes = MemoryProcesses([Process(ProcessId(100, 5), 1, 1000, "/usr/bin/python3", argv)])
        self.processes.sockets = {77: {owner}} if owner else {}
        self.sockets = MemorySockets()
        self.sockets.connected = list(connections)
        self.clock = FakeClock()

    def check(self, policy: Any = RECLAIM, host: str = "127.0.0.1", port: int = 8000) -> PreflightReport:
        request = PreflightRequest(host=host, port=port, skip_gpu=True, lockfile=Path("/tmp/x"), stop_timeout=2)
        return check(
            request, policy, processes=self.processes, sockets=self.sockets, clock=self.clock, say=lambda _: None
        )


@pytest.mark.parametrize("policy", [RECLAIM, REFUSE, replace(RECLAIM, dry_run=True)], ids=["reclaim", "refuse", "dry"])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_connection_is_named_and_its_process_never_stopped(policy: Any, host: str) -> None:
    """Not even if it is the user's own vLLM, which serves on another port."""
    bench = Bench(CONNECTION)
    with pytest.raises(PortForeignError) as caught:
        bench.check(policy, host)
    assert "is the local port of a connection" in caught.value.message
    assert "127.0.0.1:8000 (connected to 10.0.0.2:443) of pid 100" in caught.value.message
    assert (caught.value.exit_code, caught.value.details["pids"]) == (2, [100])
    assert bench.processes.sent == []


def test_a_connection_from_another_address_is_not_in_the_way() -> None:
    assert Bench(CONNECTION).check(host="127.0.0.2").port_action == "noop"


@pytest.mark.parametrize(
    ("bench", "said"),
    [
        (lambda: Bench(ENDED), "has ended and that the system keeps for a minute"),
        (lambda: Bench(CONNECTION, owner=None), "no visible process has"),
    ],
    ids=["ended", "of nobody visible"],
)
def test_a_connection_without_a_process(bench: Any, said: str) -> None:
    with pytest.raises(PortUnattributableError, match=said) as caught:
        bench().check()
    assert caught.value.exit_code == 4


def test_nothing_that_can_be_seen() -> None:
    bench = Bench()
    bench.sockets.errors[8000] = errno.EADDRINUSE
    with pytest.raises(PortUnattributableError, match="no socket that holds it can be seen"):
        bench.check()


@pytest.mark.parametrize("port", [8000, 41000])
def test_only_ports_for_outgoing_connections_are_said_to_be_that(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unbindable, "_numbers", lambda _: (32768, 60999))
    with pytest.raises(PortForeignError) as caught:
        Bench(replace(CONNECTION, port=port)).check(port=port)
    assert ("an outgoing connection" in caught.value.message) is (port == 41000)
    assert ("outside 32768 to 60999" in str(caught.value.hint)) is (port == 41000)


@pytest.mark.parametrize(
    ("number", "port", "said"),
    [
        (errno.EADDRNOTAVAIL, 8000, "'127.0.0.1' is not an address of this machine"),
        (errno.EACCES, 80, "port 80 is reserved: this user may bind ports from 1024 on"),
        (errno.EACCES, 8000, "127.0.0.1 port 8000 cannot be bound: Permission denied"),
        (errno.EPERM, 8000, "127.0.0.1 port 8000 cannot be bound: Operation not permitted"),
        (errno.EAFNOSUPPORT, 8000, "cannot be bound: Address family not supported"),
    ],
)
def test_what_no_server_could_bind(number: int, port: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unbindable, "_numbers", lambda _: ())
    bench = Bench()
    bench.sockets.errors[port] = number
    with pytest.raises(InvalidError, match=re.escape(said)):
        bench.check(port=port)


def test_nothing_is_stopped_for_a_port_that_could_not_be_bound() -> None:
    bench = Bench()
    bench.sockets.table.append(Listener(LOOPBACK, 8000, 77, 1000))
    bench.sockets.bind_error = lambda *_: OSError(errno.EADDRNOTAVAIL, "x")  # type: ignore[method-assign]
    with pytest.raises(InvalidError):
        bench.check()
    assert bench.processes.sent == []


def test_connections_that_a_stopped_server_left_are_waited_for() -> None:
    bench = Bench()
    bench.sockets.table.append(Listener(LOOPBACK, 8000, 77, 1000))

    def closes(_: Process) -> None:
        bench.sockets.table.clear()
        bench.sockets.connected.append(ENDED)

    bench.processes.on_death = closes
    with pytest.raises(PortStuckError) as caught:
        bench.check()
    assert "Only its connections are left" in str(caught.value.hint)
    assert caught.value.details["listeners"] == ["127.0.0.1:8000 (connected to 10.0.0.2:443)"]


def free(host: str, port: int) -> PreflightReport:
    request = PreflightRequest(host=host, port=port, skip_gpu=True, lockfile=Path("/tmp/x"))
    return check(request, RECLAIM, say=lambda _: None)


@pytest.fixture
def client() -> Iterator[int]:
    """The local port of an outgoing connection."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as connected,
    ):
        yield connected.getsockname()[1]


@pytest.mark.system
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
def test_an_outgoing_connection_of_a_real_process(client: int, host: str) -> None:
    with pytest.raises(PortForeignError, match=f"local port of an outgoing connection.*of pid {os.getpid()} "):
        free(host, client)


@pytest.mark.system
def test_an_accepted_connection_whose_listener_is_closed() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection(server.getsockname()), server.accept()[0]:
            server.close()
            with pytest.raises(PortForeignError, match=f"of pid {os.getpid()} "):
                free("127.0.0.1", port)


@pytest.mark.system
def test_a_connection_that_has_ended() -> None:
    """The kernel keeps it where it was closed first."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        port = client.getsockname()[1]
        accepted = server.accept()[0]
        client.close()
        assert accepted.recv(1) == b""
        accepted.close()
    with pytest.raises(PortUnattributableError, match="that has ended"):
        free("127.0.0.1", port)


@pytest.mark.system
@pytest.mark.parametrize("listens", [True, False])
def test_a_neighbour_with_so_reuseport(listens: bool) -> None:
    """A server with that option could bind beside it, and the kernel would split the clients between them."""
    with socket.socket() as neighbour:
        neighbour.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        neighbour.bind(("127.0.0.1", 0))
        if listens:
            neighbour.listen()
        with pytest.raises(PortForeignError, match=f"pid {os.getpid()} "):
            free("127.0.0.1", neighbour.getsockname()[1])


MOVES = """
import ctypes, os, socket, sys, time
before = socket.create_server(("127.0.0.1", 0))
if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
    sys.exit(f"unshare: {os.strerror(ctypes.get_errno())}")
after = socket.socket()
after.bind(("0.0.0.0", 0))
after.listen()
print(before.getsockname()[1], after.getsockname()[1], flush=True)
time.sleep(600)
"""


@pytest.mark.system
def test_a_socket_belongs_to_the_network_in_which_it_was_made() -> None:
    """Its process may have moved to another one since; and what that binds there is in nobody's way here."""
    with subprocess.Popen([sys.executable, "-c", MOVES], stdout=subprocess.PIPE, text=True) as moved:
        assert moved.stdout is not None
        try:
            before, after = map(int, moved.stdout.readline().split())
            with pytest.raises(PortForeignError, match=f"pid {moved.pid} "):
                free("127.0.0.1", before)
            assert free("127.0.0.1", after).port_action == "noop"
        finally:
            moved.kill()


@pytest.mark.system
def test_an_address_of_another_machine(port: int) -> None:
    with pytest.raises(InvalidError, match=r"'192\.0\.2\.1' is not an address of this machine"):
        free("192.0.2.1", port)


@pytest.mark.system
def test_a_port_below_1024_is_said_to_a_user_without_the_right() -> None:
    """In a forked child, as the user nobody."""
    readable, writable = os.pipe()
    if (child := os.fork()) == 0:
        said = ""
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            free("127.0.0.1", 1)
        except Exception as error:  # noqa: BLE001 - what it is, the parent sees
            said = str(error)
        finally:
            os.write(writable, said.encode())
            os._exit(0)
    os.close(writable)
    with open(readable) as file:
        said = file.read()
    os.waitpid(child, 0)
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    assert said == ("" if first <= 1 else f"port 1 is reserved: this user may bind ports from {first} on")
