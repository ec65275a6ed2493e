"""Sleep on real processes: the simulator below its shim, whose memory is that of a process."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from garrison.base.clock import SystemClock
from garrison.base.settings import Settings
from garrison.instances.engine_runner import EngineRunner
from garrison.instances.live import Lease
from garrison.instances.machine import MachineDevices
from garrison.instances.manager import InstanceManager
from garrison.instances.settings import ManagerSettings
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import State
from garrison.launch.run.detached import lives, read_status
from garrison.net.thread_pool import ThreadPool
from garrison.testing.instances import MemoryInstances

pytestmark = pytest.mark.system

_FIRST = 18700 + 10 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORTS = (_FIRST, _FIRST + 9)
"""Of this worker alone: two that look for a free port at the same time may find the same one."""
PROMPT = "The quick brown fox jumps over the lazy dog."
MIB = 256
IDLE = 1.0


class Machine:
    """A data directory, and the servers that come and go on it."""

    def __init__(self, root: Path, environ: Mapping[str, str]) -> None:
        self.sleep_timeout = 20.0
        self.store = MemoryInstances()
        self.pool = ThreadPool("instances", 8)
        self.settings, self.environ = Settings(data_dir=root), environ
        self.runner = EngineRunner(self.settings, environ, ports=PORTS, pool=self.pool)
        self.manager: InstanceManager

    async def server(self) -> None:
        settings = ManagerSettings(sleep_timeout=self.sleep_timeout, memory_timeout=2.0)
        devices = MachineDevices(self.pool, self.settings, self.environ, gpus=[])
        self.manager = InstanceManager(
            self.store, self.runner, devices, settings, clock=SystemClock(), pool=ThreadPool("store")
        )
        await self.manager.startup()

    async def create(self, model: Path, **fields: Any) -> None:
        options = {
            "model": str(model), "enable_sleep_mode": True, "memory_mib": MIB, "enable_lora": True,
            "allow_runtime_lora_updating": True, **fields.pop("options", {}),
        }  # fmt: skip
        fields = {"sleep_level": 2, "idle_seconds": IDLE, **fields}
        await self.manager.create(InstanceSpec(name="a", engine="sim", options=options, **fields))

    async def lease(self) -> Lease:
        return await self.manager.acquire("a", timeout=30)

    async def ask(self, model: str | None = None, *, lease: Lease | None = None) -> str:
        """The text of an answer."""
        body = {"model": model, "prompt": PROMPT, "max_tokens": 8, "temperature": 0}
        return str((await self.call("POST", "/v1/completions", body, lease=lease)).json()["choices"][0]["text"])

    async def call(self, method: str, path: str, body: Any = None, *, lease: Lease | None = None) -> httpx2.Response:
        held = lease or await self.lease()
        try:
            if isinstance(body, dict) and body.get("model", "") is None:
                body["model"] = held.upstream.model
            async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:
                headers = {"Authorization": f"Bearer {held.upstream.key}"}
                answer = await client.request(method, f"{held.upstream.url}{path}", json=body, headers=headers)
            assert answer.status_code == 200, answer.text
            return answer
        finally:
            if lease is None:
                held.release()

    def state(self) -> State:
        return self.manager.get("a").state

    def reason(self) -> str:
        return self.manager.get("a").record.condition.reason

    async def becomes(self, *states: State, seconds: float = 40.0) -> None:
        async with asyncio.timeout(seconds):
            while self.state() not in states:
                await self.manager.changed(0.1)

    async def can_sleep(self) -> None:
        async with asyncio.timeout(10):
            while self.manager.get("a").sleeper is None:
                await asyncio.sleep(0.02)

    async def ended(self) -> None:
        """Wait for the shims, which are children of this process, while its loop can still take note of their ends."""
        status = read_status(self.runner.directory("a"))
        async with asyncio.timeout(10):
            while status is not None and status.shim is not None and lives(status.shim):
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)

    def pid(self) -> int:
        engine = self.manager.get("a").engine
        assert engine is not None
        assert engine.pid is not None
        return engine.pid


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.fixture
async def machine(tmp_path: Path, clean_environ: Mapping[str, str]) -> AsyncIterator[Machine]:
    made = Machine(tmp_path / "data", dict(clean_environ))
    await made.server()
    yield made
    await made.manager.shutdown(stop=True)
    await made.ended()
    made.pool.close(5)


async def test_it_sleeps_without_its_memory_and_answers_as_before(
    machine: Machine, tiny_model: Path, adapter: Callable[..., Path]
) -> None:
    await machine.create(tiny_model)
    path = adapter("sql")
    await machine.call("POST", "/v1/load_lora_adapter", {"lora_name": "sql", "lora_path": str(path)})
    before = await machine.ask(), await machine.ask("sql")
    assert before[0] != before[1]
    pid = machine.pid()
    assert resident_mib(pid) > MIB
    await machine.becomes(State.SLEEPING)
    assert resident_mib(pid) < MIB
    live = machine.manager.get("a")
    assert (live.held or {})["host"] < MIB * 2**20
    assert (await machine.ask(), await machine.ask("sql")) == before
    assert machine.pid() == pid
    assert resident_mib(pid) > MIB
    assert "1 adapters were loaded again" in machine.reason()
    costs = live.record.costs
    assert costs.sleep_seconds is not None
    assert costs.wake_seconds is not None


async def test_a_stream_in_progress_is_not_lost_to_a_sleep_that_aborts(machine: Machine, tiny_model: Path) -> None:
    await machine.create(tiny_model, options={"sleep_aborts": True, "ttft": 2.0 * IDLE})
    lease = await machine.lease()
    await machine.can_sleep()
    asking = asyncio.create_task(machine.ask(lease=lease))
    await asyncio.sleep(1.2 * IDLE)
    assert machine.state() is State.RUNNING
    assert await asking
    lease.release()
    await machine.becomes(State.SLEEPING)


async def test_a_request_in_the_middle_of_it_is_served(machine: Machine, tiny_model: Path) -> None:
    await machine.create(tiny_model, options={"sleep_delay": 1.0})
    before = await machine.ask()
    await machine.can_sleep()
    pid = machine.pid()
    await machine.becomes(State.DRAINING)
    await asyncio.sleep(0.4)
    assert machine.state() is State.DRAINING
    assert await machine.ask() == before
    assert machine.pid() == pid


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("sleep_hangs", "did not fall asleep within 3 s"),
        ("sleep_keeps_memory", "has not given back its memory"),
    ],
)
async def test_a_sleep_that_fails_is_a_stop(machine: Machine, tiny_model: Path, fault: str, text: str) -> None:
    await machine.manager.shutdown()
    machine.sleep_timeout = 3.0
    await machine.server()
    await machine.create(tiny_model, options={fault: True})
    await machine.ask()
    await machine.can_sleep()
    await machine.becomes(State.STOPPED)
    assert text in machine.reason()
    assert machine.manager.get("a").record.sleep.quarantine
    assert await machine.ask(), "it is started again"


@pytest.mark.parametrize(
    ("fault", "text"), [("wake_fails", "500"), ("wake_wrong_answer", "does not answer as before its sleep")]
)
async def test_a_wake_that_fails_is_a_restart(machine: Machine, tiny_model: Path, fault: str, text: str) -> None:
    await machine.create(tiny_model, options={fault: True})
    before = await machine.ask()
    await machine.can_sleep()
    pid = machine.pid()
    await machine.becomes(State.SLEEPING)
    assert await machine.ask() == before
    assert machine.pid() != pid
    (why,) = machine.manager.get("a").record.sleep.quarantine.values()
    assert text in why


async def test_the_next_server_adopts_it_asleep_and_wakes_it(machine: Machine, tiny_model: Path) -> None:
    await machine.create(tiny_model)
    before = await machine.ask()
    await machine.can_sleep()
    pid = machine.pid()
    await machine.becomes(State.SLEEPING)
    await machine.manager.shutdown()
    await machine.server()
    assert machine.state() is State.SLEEPING
    assert await machine.ask() == before
    assert machine.pid() == pid


async def test_one_that_is_killed_in_its_sleep_is_started_by_the_next_request(
    machine: Machine, tiny_model: Path
) -> None:
    await machine.create(tiny_model)
    before = await machine.ask()
    await machine.can_sleep()
    await machine.becomes(State.SLEEPING)
    os.kill(machine.pid(), signal.SIGKILL)
    await machine.becomes(State.STOPPED)
    assert "killed by SIGKILL" in machine.reason()
    assert await machine.ask() == before
