"""Instances on real processes: the simulator below its shim."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from reaped import all_reaped

from garrison.base.clock import SystemClock
from garrison.base.errors import ConflictError, EngineDiedError, GarrisonError, PortForeignError
from garrison.base.identity import start_time
from garrison.base.procfs import WITHOUT_PROC
from garrison.base.redaction import redacted
from garrison.base.settings import Settings
from garrison.instances.engine_runner import EngineRunner
from garrison.instances.manager import InstanceManager
from garrison.instances.runner import Launch
from garrison.instances.settings import ManagerSettings
from garrison.instances.values.spec import CustomServer, InstanceSpec
from garrison.instances.values.state import State
from garrison.launch.run.detached import read_status
from garrison.net.thread_pool import ThreadPool
from garrison.testing.instances import MemoryDevices, MemoryInstances

pytestmark = pytest.mark.system

_FIRST = 20000 + os.getpid() % 300 * 20
PORTS = (_FIRST, _FIRST + 19)
"""Of this process: the tests of others, which run at the same time, have others."""


class Machine:
    """A data directory, and the servers that come and go on it."""

    def __init__(self, root: Path, environ: Mapping[str, str]) -> None:
        self.settings = Settings(data_dir=root)
        self.environ = environ
        self.store = MemoryInstances()
        self.pool = ThreadPool("instances", 8)
        self.runner = EngineRunner(self.settings, environ, ports=PORTS, pool=self.pool)
        self.manager: InstanceManager

    async def server(self) -> InstanceManager:
        self.manager = InstanceManager(
            self.store, self.runner, MemoryDevices(), ManagerSettings(), clock=SystemClock(), pool=ThreadPool("store")
        )
        await self.manager.startup()
        return self.manager


@pytest.fixture(params=["linux", "portable"])
async def machine(
    tmp_path: Path, clean_environ: Mapping[str, str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Machine]:
    """`portable` does without `/proc`, pidfds and subreapers, as on macOS."""
    if request.param == "portable":
        monkeypatch.setenv(WITHOUT_PROC, "1")
    made = Machine(tmp_path / "data", dict(clean_environ))
    await made.server()
    yield made
    await made.manager.shutdown(stop=True)
    await all_reaped()
    made.pool.close(5)


def spec(model: Path, name: str = "a", **fields: object) -> InstanceSpec:
    return InstanceSpec(name=name, engine="sim", options={"model": str(model)}, **fields)  # type: ignore[arg-type]  # fields by name


async def models(machine: Machine, name: str) -> list[str]:
    lease = await machine.manager.acquire(name)
    try:
        async with httpx2.AsyncClient(trust_env=False) as client:
            headers = {"Authorization": f"Bearer {lease.upstream.key}"}
            answer = await client.get(f"{lease.upstream.url}/v1/models", headers=headers)
            assert (await client.get(f"{lease.upstream.url}/v1/models")).status_code == 401
        return [one["id"] for one in answer.json()["data"]]
    finally:
        lease.release()


async def gone(pid: int, start: int | None) -> None:
    async with asyncio.timeout(20):
        while start_time(pid) == start:
            await asyncio.sleep(0.05)


async def test_a_request_starts_it_and_a_stop_leaves_nothing(machine: Machine, tiny_model: Path) -> None:
    await machine.manager.create(spec(tiny_model))
    assert await models(machine, "a")
    live = machine.manager.get("a")
    assert live.engine is not None
    assert live.engine.pid is not None
    assert (live.record.costs.start_seconds or 0) > 0.1
    pid, start = live.engine.pid, start_time(live.engine.pid)
    status = read_status(machine.runner.directory("a"))
    assert status is not None
    assert status.shim is not None
    await machine.manager.stop("a")
    assert start_time(pid) != start
    await gone(*vars_of(status.shim))
    assert machine.manager.get("a").state is State.STOPPED
    await machine.manager.delete("a")
    assert not machine.runner.directory("a").exists()


def vars_of(process: object) -> tuple[int, int]:
    return process.pid, process.start  # type: ignore[attr-defined]  # it has them


async def test_its_successor_adopts_it(machine: Machine, tiny_model: Path) -> None:
    await machine.manager.create(spec(tiny_model))
    await models(machine, "a")
    before = machine.manager.get("a").engine
    assert before is not None
    await machine.manager.shutdown()
    began = asyncio.get_running_loop().time()
    await machine.server()
    assert asyncio.get_running_loop().time() - began < 2
    after = machine.manager.get("a").engine
    assert after is not None
    assert after.pid == before.pid
    assert await models(machine, "a")
    os.kill(after.pid or 0, signal.SIGKILL)
    async with asyncio.timeout(20):
        while machine.manager.get("a").state is State.RUNNING:
            await machine.manager.changed(0.1)
    assert machine.manager.get("a").state is State.RESTARTING
    assert "killed by SIGKILL" in machine.manager.get("a").record.condition.reason


async def test_a_shim_that_is_killed_takes_its_engine_along(machine: Machine, tiny_model: Path) -> None:
    await machine.manager.create(spec(tiny_model, restart_delay=0.1))
    await models(machine, "a")
    status = read_status(machine.runner.directory("a"))
    assert status is not None
    assert status.shim is not None
    assert status.main is not None
    os.kill(status.shim.pid, signal.SIGKILL)
    await gone(status.main.pid, status.main.start)
    assert await models(machine, "a"), "it is started again"
    after = read_status(machine.runner.directory("a"))
    assert after is not None
    assert after.main != status.main


async def test_a_shim_that_was_killed_while_no_server_ran(machine: Machine, tiny_model: Path) -> None:
    await machine.manager.create(spec(tiny_model))
    await models(machine, "a")
    await machine.manager.shutdown()
    status = read_status(machine.runner.directory("a"))
    assert status is not None
    assert status.shim is not None
    assert status.main is not None
    os.kill(status.shim.pid, signal.SIGKILL)
    await machine.server()
    await gone(status.main.pid, status.main.start)
    assert await models(machine, "a")


async def test_a_start_that_fails_says_why(machine: Machine, tiny_model: Path) -> None:
    broken = InstanceSpec(name="b", engine="sim", options={"model": str(tiny_model), "max_model_len": "many"})
    await machine.manager.create(broken)
    with pytest.raises(EngineDiedError) as caught:
        await machine.manager.acquire("b", timeout=30)
    assert "many" in str(caught.value.details["log_tail"])
    assert machine.manager.get("b").state is State.FAILED
    await machine.manager.create(InstanceSpec(name="c", engine="sim"))
    with pytest.raises(GarrisonError, match="names no model"):
        await machine.manager.acquire("c")


async def test_two_instances_get_two_ports_that_can_be_bound(machine: Machine, tiny_model: Path) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", PORTS[0])
    async with server:
        for name in "ab":
            await machine.manager.create(spec(tiny_model, name))
        await asyncio.gather(models(machine, "a"), models(machine, "b"))
        ports = {machine.manager.get(name).record.port for name in "ab"}
        assert ports == {PORTS[0] + 1, PORTS[0] + 2}
    machine.runner = EngineRunner(
        machine.settings, machine.environ, ports=(PORTS[0] + 1, PORTS[0] + 1), pool=machine.pool
    )
    with pytest.raises(ConflictError, match="no port from"):
        await machine.runner.free_port(range(65536))


async def test_a_custom_server_is_started_adopted_and_stopped(machine: Machine, tiny_model: Path) -> None:
    argv = (sys.executable, "-m", "http.server", "{port}", "--bind", "{host}", "--directory", "{model}")
    custom = CustomServer(argv, ready_path="/config.json", apis=frozenset())
    await machine.manager.create(
        InstanceSpec(name="files", engine="custom", custom=custom, options={"model": str(tiny_model)})
    )
    lease = await machine.manager.acquire("files")
    before = machine.manager.get("files").engine
    assert before is not None
    async with httpx2.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{lease.upstream.url}/config.json")).status_code == 200
    assert lease.upstream.key is None
    lease.release()
    await machine.manager.shutdown()
    await machine.server()
    after = machine.manager.get("files").engine
    assert after is not None
    assert after.pid == before.pid
    pid, start = after.pid or 0, start_time(after.pid or 0)
    await machine.manager.stop("files")
    assert start_time(pid) != start


async def test_a_custom_server_that_is_never_ready_says_what_it_answers(machine: Machine, tiny_model: Path) -> None:
    machine.runner = EngineRunner(
        replace(machine.settings, ready_timeout=8, progress_window=8), machine.environ, ports=PORTS, pool=machine.pool
    )
    argv = (sys.executable, "-m", "http.server", "{port}", "--bind", "{host}", "--directory", str(tiny_model))
    custom = CustomServer(argv, ready_path="/none")
    with pytest.raises(GarrisonError, match="/none answers 404"):
        await machine.runner.start(
            Launch(InstanceSpec(name="files", engine="custom", custom=custom), PORTS[0]), lambda _: None
        )


async def test_a_program_of_several_words_and_its_environment(machine: Machine, tiny_model: Path) -> None:
    words = (sys.executable, "-P", "-m", "garrison.sim")
    machine.runner = EngineRunner(
        replace(machine.settings, vllm_executable=words, vllm_env=(("A", "backend"), ("B", "backend"))),
        machine.environ,
        ports=PORTS,
        pool=machine.pool,
    )
    await machine.manager.shutdown()
    await machine.server()
    own = InstanceSpec(name="a", options={"model": str(tiny_model)}, env={"B": "instance"})
    await machine.manager.create(own)
    assert await models(machine, "a")
    engine = machine.manager.get("a").engine
    assert engine is not None
    variables = Path(f"/proc/{engine.pid}/environ").read_bytes().split(b"\0")
    assert {b"A=backend", b"B=instance"} <= set(variables)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_a_fixed_port_that_is_held_names_its_holder(machine: Machine, tiny_model: Path, host: str) -> None:
    port = PORTS[0] + 7
    program = f"import socket, sys; s = socket.create_server(({host!r}, {port})); print(flush=True); sys.stdin.read()"
    pipe = asyncio.subprocess.PIPE
    holder = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdin=pipe, stdout=pipe)
    assert holder.stdout is not None
    await holder.stdout.readline()
    await machine.manager.create(spec(tiny_model, port=port))
    with pytest.raises(PortForeignError, match=f"instance a cannot have its port: .*{port}.*pid {holder.pid}"):
        await machine.manager.acquire("a")
    holder.kill()
    await holder.wait()


async def test_a_port_that_was_not_fixed_may_change_and_is_kept_otherwise(machine: Machine, tiny_model: Path) -> None:
    await machine.manager.create(spec(tiny_model))
    await models(machine, "a")
    first = machine.manager.get("a").record.port
    await machine.manager.stop("a")
    await models(machine, "a")
    assert machine.manager.get("a").record.port == first
    await machine.manager.stop("a")
    with socket.create_server(("0.0.0.0", first or 0)):
        await models(machine, "a")
        assert machine.manager.get("a").record.port not in (first, None)


LLAMA_SERVER = """\
import http.server, os, sys

arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert "--model" not in sys.argv and "--alias" not in sys.argv, sys.argv
assert os.environ["LLAMA_API_KEY"] not in sys.argv


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = " ".join(sys.argv[1:]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.HTTPServer((arguments["--host"], int(arguments["--port"])), Handler).serve_forever()
"""
"""Takes the arguments of a llama-server that is a router, and answers with them."""


async def test_a_router_gets_the_preset_that_it_has_at_each_start(machine: Machine, tmp_path: Path) -> None:
    script = tmp_path / "llama_server.py"
    script.write_text(LLAMA_SERVER)
    made = InstanceSpec(
        name="r",
        engine="llama_cpp",
        executable=(sys.executable, str(script)),
        preset_ini="[one]\nhf-token = a-secret-of-one\n",
    )
    preset = machine.runner.directory("r") / "preset.ini"

    async def arguments() -> str:
        lease = await machine.manager.acquire("r")
        assert lease.upstream.model == "", "the client's name is passed on"
        lease.release()
        async with httpx2.AsyncClient(trust_env=False) as client:
            return (await client.get(f"{lease.upstream.url}/")).text

    await machine.manager.create(made)
    assert f"--models-preset {preset}" in await arguments()
    assert redacted("it prints a-secret-of-one") == "it prints ***"
    assert (preset.read_text(), preset.stat().st_mode & 0o777) == (made.preset_ini, 0o600)
    await machine.manager.shutdown()
    await machine.server()
    assert f"--models-preset {preset}" in await arguments(), "adopted"
    await machine.manager.update("r", replace(made, preset_ini="[two]\n"))
    await arguments()
    assert preset.read_text() == "[two]\n"
    await machine.manager.update("r", replace(made, preset_ini=None, options={"models_dir": "/models"}))
    assert "--models-dir /models" in await arguments()
    assert not preset.exists()
