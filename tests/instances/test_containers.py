"""Instances in real containers of podman: the simulator in an image of vLLM."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from podman_lab import IMAGE, Podman
from reaped import all_reaped

from garrison.base.errors import GarrisonError
from garrison.base.identity import ProcessId, start_time
from garrison.base.settings import Settings
from garrison.instances.container_record import read_container
from garrison.instances.engine_runner import EngineRunner
from garrison.instances.runner import Launch, RunningEngine
from garrison.instances.values.spec import CustomServer, InstanceSpec
from garrison.launch.run.detached import read_status
from garrison.net.thread_pool import ThreadPool

pytestmark = pytest.mark.system

FIRST = 26000 + os.getpid() % 300 * 20
PORTS = (FIRST, FIRST + 19)


class Server:
    """A data directory on a machine with podman, and the runners that come and go on it."""

    def __init__(self, root: Path, environ: Mapping[str, str], podman: Podman) -> None:
        self.podman = podman
        self.environ = environ
        self.settings = replace(
            Settings(data_dir=root),
            container_program=podman.program,
            vllm_container=True,
            vllm_image=IMAGE,
            vllm_container_args=podman.arguments,
        )
        self.pool = ThreadPool("instances", 8)
        self.runner = self.new_runner()

    def new_runner(self) -> EngineRunner:
        return EngineRunner(self.settings, self.environ, ports=PORTS, pool=self.pool)

    async def start(self, spec: InstanceSpec, port: int | None = None) -> RunningEngine:
        free = port or await self.runner.free_port(())
        return await self.runner.start(Launch(spec, free, stop_timeout=10), lambda _: None)

    async def adopt(self, spec: InstanceSpec, engine: RunningEngine) -> RunningEngine | None:
        """As the server that comes after one that was killed."""
        self.runner = self.new_runner()
        left = await self.runner.find(Launch(spec, port_of(engine), stop_timeout=10))
        return None if left is None else await left.ready(lambda _: None)

    async def none_left(self) -> None:
        async with asyncio.timeout(20):
            while await asyncio.to_thread(self.podman.all):
                await asyncio.sleep(0.1)


@pytest.fixture
async def server(tmp_path: Path, clean_environ: Mapping[str, str], podman: Podman) -> AsyncIterator[Server]:
    made = Server(tmp_path / "data", dict(clean_environ), podman)
    yield made
    await all_reaped()
    made.pool.close(5)


def port_of(engine: RunningEngine) -> int:
    return int(engine.upstream.url.rpartition(":")[2])


def spec(model: Path, name: str = "a", **fields: object) -> InstanceSpec:
    options = {"model": str(model), **fields.pop("options", {})}  # type: ignore[dict-item]  # fields by name
    return InstanceSpec(name=name, engine="vllm", options=options, **fields)  # type: ignore[arg-type]  # fields by name


async def answers(engine: RunningEngine) -> list[str]:
    """The models that it serves; without its key it says nothing."""
    async with httpx2.AsyncClient(trust_env=False) as client:
        headers = {"Authorization": f"Bearer {engine.upstream.key}"}
        answer = await client.get(f"{engine.upstream.url}/v1/models", headers=headers)
        assert (await client.get(f"{engine.upstream.url}/v1/models")).status_code == 401
    return [one["id"] for one in answer.json()["data"]]


def identity(pid: int | None) -> ProcessId:
    assert pid is not None
    start = start_time(pid)
    assert start is not None
    return ProcessId(pid, start)


async def test_served_left_adopted_and_stopped(server: Server, tiny_model: Path) -> None:
    one = spec(tiny_model, env={"GREETING": "hello"})
    engine = await server.start(one)
    assert await answers(engine) == [engine.upstream.model]
    main = identity(engine.pid)
    assert b"garrison.sim" in Path(f"/proc/{main.pid}/cmdline").read_bytes()
    assert b"GREETING=hello" in Path(f"/proc/{main.pid}/environ").read_bytes()
    assert engine.memory_bytes() > 10 * 2**20
    assert main.pid in engine.pids()
    [name] = server.podman.all()
    assert name.startswith("garrison-")
    assert name.endswith("-a")
    command = read_status(server.runner.directory("a"))
    assert command is not None
    assert command.main is not None
    told = Path(f"/proc/{command.main.pid}/cmdline").read_bytes()
    assert (engine.upstream.key or "").encode() not in told
    assert b"hello" not in told

    await engine.leave()
    began = asyncio.get_running_loop().time()
    adopted = await server.adopt(one, engine)
    assert adopted is not None
    assert asyncio.get_running_loop().time() - began < 2
    assert adopted.pid == main.pid
    assert await answers(adopted) == [engine.upstream.model]
    assert adopted.memory_bytes() > 10 * 2**20

    await adopted.stop("done")
    assert start_time(main.pid) != main.start
    assert server.podman.all() == []


async def test_a_killed_shim_leaves_no_container(server: Server, tiny_model: Path) -> None:
    engine = await server.start(spec(tiny_model))
    status = read_status(server.runner.directory("a"))
    assert status is not None
    assert status.shim is not None
    main = identity(engine.pid)
    os.kill(status.shim.pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        error = await engine.ended()
    assert error is not None
    assert "lost its supervising process" in error.message
    await server.none_left()
    assert start_time(main.pid) != main.start


async def test_a_killed_shim_is_found_by_the_next_server(server: Server, tiny_model: Path) -> None:
    one = spec(tiny_model)
    engine = await server.start(one)
    main = identity(engine.pid)
    await engine.leave()
    status = read_status(server.runner.directory("a"))
    assert status is not None
    assert status.shim is not None
    assert status.main is not None
    # Without its program, which would pass on the signal of its parent's death, the container goes on.
    os.kill(status.main.pid, signal.SIGSTOP)
    os.kill(status.shim.pid, signal.SIGKILL)
    assert await server.adopt(one, engine) is None
    await server.none_left()
    assert start_time(main.pid) != main.start


async def test_a_killed_program_leaves_no_container(server: Server, tiny_model: Path) -> None:
    engine = await server.start(spec(tiny_model))
    status = read_status(server.runner.directory("a"))
    assert status is not None
    assert status.main is not None
    main = identity(engine.pid)
    os.kill(status.main.pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        error = await engine.ended()
    assert error is not None
    assert "SIGKILL" in error.message
    await server.none_left()
    assert start_time(main.pid) != main.start


@pytest.mark.parametrize("after", [0.0, 0.15, 0.4, 0.8])
async def test_a_stop_during_the_start_leaves_nothing(server: Server, tiny_model: Path, after: float) -> None:
    slow = spec(tiny_model, options={"startup_delay": 20})
    starting = asyncio.create_task(server.start(slow))
    while read_container(server.runner.directory("a")) is None:
        await asyncio.sleep(0.01)
    await asyncio.sleep(after)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert server.podman.all() == []
    engine = await server.start(spec(tiny_model))
    await engine.stop("done")


async def test_what_is_left_of_an_instance_is_removed_before_its_start(server: Server, tiny_model: Path) -> None:
    engine = await server.start(spec(tiny_model))
    [name] = server.podman.all()
    labels = server.podman.run("inspect", "--format", "{{json .Config.Labels}}", name)
    assert '"garrison.instance":"a"' in labels
    other = await server.start(spec(tiny_model, "b"))
    record = read_container(server.runner.directory("a"))
    assert record is not None
    await engine.stop("done")
    left = [word for pair in record.labels.items() for word in ("--label", "=".join(pair))]
    server.podman.run("create", "--name", name, "--network", "host", *left, IMAGE, "--help")
    again = await server.start(spec(tiny_model))
    assert await answers(again)
    assert await answers(other), "that of another instance stays"
    await again.stop("done")
    await other.stop("done")
    assert server.podman.all() == []


async def test_an_image_that_does_not_exist_says_so(server: Server, tiny_model: Path) -> None:
    server.settings = replace(server.settings, vllm_image="localhost/none:1")
    server.runner = server.new_runner()
    with pytest.raises(GarrisonError) as caught:
        await server.start(spec(tiny_model))
    assert "localhost/none:1" in str(caught.value.details["log_tail"])
    assert server.podman.all() == []


async def test_a_program_of_several_words_that_is_a_container(server: Server, tiny_model: Path) -> None:
    words = (*server.podman.program, "run", "--rm", *server.podman.arguments, "-e", "GREETING=hello", IMAGE)
    server.settings = replace(
        server.settings, vllm_container=False, vllm_executable=words, container_program=("docker",)
    )
    server.runner = server.new_runner()
    engine = await server.start(spec(tiny_model))
    assert await answers(engine)
    assert b"GREETING=hello" in Path(f"/proc/{engine.pid}/environ").read_bytes()
    await engine.stop("done")
    assert server.podman.all() == []


async def test_a_custom_server_in_a_container(server: Server) -> None:
    inside = (os.sys.executable, "-m", "http.server", "{port}", "--bind", "{host}")  # type: ignore[attr-defined]  # it has them
    words = (*server.podman.program, "run", *server.podman.arguments, "--entrypoint", inside[0], IMAGE, *inside[1:])
    custom = CustomServer(words, ready_path="/", apis=frozenset())
    one = InstanceSpec(name="files", engine="custom", custom=custom)
    engine = await server.start(one)
    async with httpx2.AsyncClient(trust_env=False) as client:
        assert (await client.get(engine.upstream.url)).status_code == 200
    assert engine.upstream.key is None
    await engine.leave()
    adopted = await server.adopt(one, engine)
    assert adopted is not None
    await adopted.stop("done")
    assert server.podman.all() == []
