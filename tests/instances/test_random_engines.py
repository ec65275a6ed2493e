"""A short random life of real processes: what holds for the twins holds for the simulator below its shims."""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx2
import pytest

from garrison.base.clock import SystemClock
from garrison.base.errors import GarrisonError
from garrison.base.settings import Settings
from garrison.instances.engine_runner import EngineRunner
from garrison.instances.manager import InstanceManager
from garrison.instances.room.values import Limits
from garrison.instances.settings import ManagerSettings
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import State
from garrison.launch.run.detached import lives, read_status
from garrison.net.thread_pool import ThreadPool
from garrison.testing.instances import MemoryDevices, MemoryInstances

pytestmark = pytest.mark.system

NAMES = ("a", "b", "c")
MOST = 2
STEPS = 14
LIKELY = ("ask", "ask", "ask", "start", "stop", "crash", "wait", "successor")
DEADLINE = 60.0


class Life:
    """A machine with room for two of three instances."""

    def __init__(self, root: Path, environ: Mapping[str, str]) -> None:
        self.pool = ThreadPool("instances", 8)
        self.runner = EngineRunner(Settings(data_dir=root), environ, ports=(18800, 18899), pool=self.pool)
        self.store = MemoryInstances()
        self.manager: InstanceManager
        self.asking: list[asyncio.Task[None]] = []

    async def server(self) -> None:
        settings = ManagerSettings(
            limits=Limits(MOST, residency=0.2, patience=2.0), idle=1.5, start_timeout=DEADLINE, drain_timeout=3.0
        )
        self.manager = InstanceManager(
            self.store, self.runner, MemoryDevices(), settings, clock=SystemClock(), pool=ThreadPool("store")
        )
        await self.manager.startup()

    async def ask(self, name: str) -> None:
        lease = await self.manager.acquire(name)
        try:
            async with httpx2.AsyncClient(trust_env=False, timeout=10) as client:
                headers = {"Authorization": f"Bearer {lease.upstream.key}"}
                body = {"model": lease.upstream.model, "prompt": "The quick brown fox jumps.", "max_tokens": 4}
                with contextlib.suppress(httpx2.TransportError):  # it was killed, or the request cut, just then
                    answer = await client.post(f"{lease.upstream.url}/v1/completions", json=body, headers=headers)
                    assert answer.status_code == 200, answer.text
        finally:
            lease.release()

    async def crash(self, name: str) -> None:
        status = read_status(self.runner.directory(name))
        if status is not None and status.main is not None and lives(status.main):
            os.kill(status.main.pid, signal.SIGKILL)

    async def successor(self) -> None:
        await self.manager.shutdown()
        await self.settle()
        await self.server()

    async def settle(self) -> None:
        for one in await asyncio.gather(*self.asking, return_exceptions=True):
            assert one is None or isinstance(one, GarrisonError), repr(one)
        self.asking.clear()

    def check(self) -> None:
        awake = [one for one in self.manager.list() if one.held is not None and not one.asleep]
        assert len(awake) <= MOST
        assert sorted(one.name for one in self.manager.list()) == list(NAMES)
        for one in self.manager.list():
            if one.state is State.STOPPED and one.start is None:
                assert one.engine is None


@pytest.fixture
async def life(tmp_path: Path, clean_environ: Mapping[str, str]) -> AsyncIterator[Life]:
    made = Life(tmp_path / "data", dict(clean_environ))
    await made.server()
    yield made
    await made.manager.shutdown(stop=True)
    for name in NAMES:  # while this loop can still take note of the end of its children
        status = read_status(made.runner.directory(name))
        async with asyncio.timeout(10):
            while status is not None and status.shim is not None and lives(status.shim):
                await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)
    made.pool.close(5)


async def test_a_random_life(life: Life, tiny_model: Path) -> None:
    draw = random.Random(6)
    options = {"model": str(tiny_model), "enable_sleep_mode": True}
    for name in NAMES:
        await life.manager.create(InstanceSpec(name=name, engine="sim", options=options, restart_delay=0.2))
    for _ in range(STEPS):
        name, step = (
            draw.choice(NAMES),
            draw.choice(["ask", "ask", "ask", "start", "stop", "crash", "wait", "successor"]),
        )
        if step == "ask":
            life.asking += [asyncio.create_task(life.ask(name)) for _ in range(3)]
        elif step == "start":
            await life.manager.start(name)
        elif step == "stop":
            await life.manager.stop(name)
        elif step == "crash":
            await life.crash(name)
        elif step == "successor":
            await life.successor()
        await asyncio.sleep(draw.uniform(0.0, 1.5 if step != "wait" else 3.0))
        life.check()
    async with asyncio.timeout(DEADLINE + 5):
        await life.settle()
    mains = []
    for name in NAMES:
        status = read_status(life.runner.directory(name))
        mains += [status.main] if status is not None and status.main is not None else []
    await life.manager.shutdown(stop=True)
    assert mains
    assert not [one for one in mains if lives(one)], "no engine is left"
