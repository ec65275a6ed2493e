"""psutil's side of the seams, on a machine that has both."""

import signal
import socket
from typing import Any

import pytest

from garrison.base.identity import ProcessId
from garrison.preflight.addresses import Address
from garrison.preflight.check import PreflightRequest, check
from garrison.preflight.policy import RECLAIM
from garrison.preflight.portable import PsutilSockets
from garrison.processes.portable import PsutilProcesses
from garrison.processes.procfs import Procfs

pytestmark = pytest.mark.system


def test_a_listener_has_its_pid() -> None:
    import os

    with socket.create_server(("127.0.0.1", 0)) as listening:
        (found,) = PsutilSockets().listeners(listening.getsockname()[1])
    assert (found.address, found.pid) == (Address(b"\x7f\0\0\1"), os.getpid())


def test_a_connection_has_its_peer() -> None:
    import os

    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        port, peer = client.getsockname()[1], server.getsockname()[1]
        assert PsutilSockets().listeners(port) == ()
        (found,) = PsutilSockets().connections(port)
    assert (found.address, found.pid, found.peer) == (Address(b"\x7f\0\0\1"), os.getpid(), f"127.0.0.1:{peer}")


def test_it_tells_what_proc_tells(stage: Any) -> None:
    child = stage.start(["sleep", "600"])
    portable, linux = PsutilProcesses().read(child.pid), Procfs().read(child.pid)
    assert portable is not None
    assert linux is not None
    for field in ("parent", "uid", "exe", "argv"):
        assert getattr(portable, field) == getattr(linux, field)
    assert PsutilProcesses().snapshot()[child.pid].id == portable.id


def test_a_signal_goes_to_the_process_and_not_the_pid(stage: Any) -> None:
    child = stage.start(["sleep", "600"])
    processes = PsutilProcesses()
    found = processes.read(child.pid)
    assert found is not None
    assert not processes.signal(ProcessId(child.pid, found.id.start - 1), signal.SIGKILL)
    assert child.poll() is None
    assert processes.signal(found.id, signal.SIGTERM)
    assert child.wait(20) == -signal.SIGTERM
    assert processes.read(child.pid) is None


def test_the_whole_preflight_through_psutil(stage: Any, port: int, tmp_path: Any) -> None:
    pid = stage.serve(stage.vllm, port)
    request = PreflightRequest(host="0.0.0.0", port=port, skip_gpu=True, lockfile=tmp_path / "lock")
    report = check(request, RECLAIM, processes=PsutilProcesses(), sockets=PsutilSockets(), say=lambda _: None)
    assert report.reclaimed_roots == (pid,)
