"""Backends on real engines: programs of several words, and an engine that can demand no key."""

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import tiny_model as maker

from garrison.base.settings import Settings
from garrison.instances.engine_runner import EngineRunner
from garrison.instances.runner import Launch, RunningEngine
from garrison.instances.values.spec import InstanceSpec
from garrison.net.thread_pool import ThreadPool

pytestmark = pytest.mark.timeout(900)

FIRST = 29000 + os.getpid() % 300 * 10
Start = Callable[..., Any]


@pytest.fixture
async def start(home_with: Callable[[str], dict[str, str]]) -> AsyncIterator[Start]:
    """`await start("vllm", model, vllm_args=(…))`: an instance of a real engine, under these settings."""
    pool = ThreadPool("instances", 4)
    running: list[RunningEngine] = []

    async def run(engine: str, model: Path, **settings: Any) -> RunningEngine:
        environ = home_with(engine)
        chosen = replace(Settings(data_dir=Path(environ["GARRISON_DATA_DIR"])), **settings)
        runner = EngineRunner(chosen, environ, ports=(FIRST, FIRST + 9), pool=pool)
        spec = InstanceSpec(name="a", engine=engine, options={"model": str(model)})
        launch = Launch(spec, await runner.free_port(()))
        running.append(await runner.start(launch, lambda _: None))
        return running[-1]

    yield run
    for engine in running:
        await engine.stop("the test is over")
    pool.close(5)


def installed(engine: str, program: str) -> str:
    """The path of a program in the engine's environment."""
    home = Path(os.environ["GARRISON_TEST_ENGINES"]) / "engines" / engine
    return str(sorted(home.glob(f"*/bin/{program}"))[-1])


async def completes(engine: RunningEngine) -> int:
    headers = {"Authorization": f"Bearer {engine.upstream.key}"} if engine.upstream.key else {}
    body = {"model": engine.upstream.model, "prompt": "a b", "max_tokens": 3}
    async with httpx2.AsyncClient(trust_env=False, timeout=120) as client:
        answer = await client.post(f"{engine.upstream.url}/v1/completions", headers=headers, json=body)
    assert answer.json()["choices"][0]["text"]
    return answer.status_code


def command(engine: RunningEngine) -> list[str]:
    return Path(f"/proc/{engine.pid}/cmdline").read_text().split("\0")


@pytest.mark.engine("llama_cpp")
async def test_llama_cpp_behind_another_program(
    start: Start, home_with: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    home_with("llama_cpp")
    words = ("env", "GREETING=hello", installed("llama_cpp", "llama-server"))
    engine = await start("llama_cpp", maker.make_gguf(tmp_path / "tiny.gguf"), llama_executable=words)
    assert await completes(engine) == 200
    assert "GREETING=hello" in Path(f"/proc/{engine.pid}/environ").read_text().split("\0")


@pytest.mark.engine("mlx_lm")
async def test_mlx_listens_on_loopback_without_a_key(start: Start, tiny_model: Path) -> None:
    engine = await start("mlx_lm", tiny_model)
    assert engine.upstream.key is None
    assert await completes(engine) == 200
    assert command(engine)[command(engine).index("--host") + 1] == "127.0.0.1"


@pytest.mark.engine("vllm")
async def test_vllm_as_a_module(start: Start, home_with: Callable[[str], dict[str, str]], tiny_model: Path) -> None:
    home_with("vllm")
    words = (installed("vllm", "python"), "-m", "vllm.entrypoints.cli.main")
    args = ("--enforce-eager", "--dtype", "float", "--max-model-len", "512")
    engine = await start("vllm", tiny_model, vllm_executable=words, vllm_args=args)
    assert await completes(engine) == 200
    async with httpx2.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{engine.upstream.url}/v1/models")).status_code == 401
    assert command(engine)[2:6] == ["vllm.entrypoints.cli.main", "serve", str(tiny_model), "--host"]
