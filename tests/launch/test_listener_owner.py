import pytest

from garrison.base.identity import ProcessId
from garrison.engines.engine import Endpoint
from garrison.launch.run.listener_owner import stranger_on
from garrison.preflight.addresses import Address
from garrison.preflight.listeners import Listener
from garrison.preflight.machine import Machine
from garrison.processes.process import Process
from garrison.testing.processes import MemoryProcesses
from garrison.testing.sockets import MemorySockets

LOOPBACK, OTHER = Address(b"\x7f\0\0\1"), Address(b"\x7f\0\0\2")
WHERE = Endpoint("127.0.0.1", 8000)


def machine(*holders: int, address: Address = LOOPBACK, readable: bool = True, listening: bool = True) -> Machine:
    """One listener on port 8000, held by these pids."""
    processes = MemoryProcesses([Process(ProcessId(pid, 5), 1, 1000, "/x", ("x",)) for pid in (100, 101, 200)])
    processes.sockets = {77: set(holders)}
    sockets = MemorySockets([Listener(address, 8000, 77, 1000, listening=listening)], readable=readable)
    return Machine(lambda _: None, processes=processes, sockets=sockets)


CASES = {
    "the engine": (WHERE, machine(100), None),
    "a worker of it": (WHERE, machine(101), None),
    "another": (WHERE, machine(200), 200),
    "both": (WHERE, machine(100, 200), None),
    "nobody is seen to": (WHERE, machine(), None),
    "another, on another address": (WHERE, machine(200, address=OTHER), None),
    "another, that does not listen": (WHERE, machine(200, listening=False), None),
    "the table cannot be read": (WHERE, machine(200, readable=False), None),
    "a name that means nothing": (Endpoint("no-such-host", 8000), machine(200), None),
    "a socket file": (Endpoint("127.0.0.1", 8000, "/run/v.sock"), machine(200), None),
    "headless": (Endpoint("127.0.0.1", 8000, protocol="none"), machine(200), None),
    "health on another port": (Endpoint("127.0.0.1", 1, health_port=8000), machine(200), 200),
}


@pytest.mark.parametrize(("endpoint", "machine", "pid"), CASES.values(), ids=CASES)
def test_stranger(endpoint: Endpoint, machine: Machine, pid: int | None) -> None:
    assert stranger_on(endpoint, {100, 101}, machine) == pid
