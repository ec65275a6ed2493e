"""Two runs of real engines in one process: one is stopped, the other serves on."""

import asyncio
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx2
import psutil
import pytest

from garrison.engines.engine import ServeOptions
from garrison.engines.executable import locate
from garrison.engines.registry import engine
from garrison.launch.run.engine_run import EngineRun, Job, State
from garrison.launch.run.patience import Patience
from garrison.testing.views import RecordingStartView

Home = Callable[[str], dict[str, str]]

READY_SECONDS = 240.0


def job(name: str, env: dict[str, str], model: Path, tmp_path: Path, *args: str) -> Job:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    kind = engine(name)
    program = locate(kind, data_dir=Path(env["GARRISON_DATA_DIR"]), environ=env).path
    served_name = kind.fixed_model_name or "tiny"
    command = kind.command(program, ServeOptions(model=str(model), port=port, served_name=served_name, args=args))
    return Job(
        engine=kind,
        command=command,
        endpoint=kind.endpoint(command.argv),
        environment=command.environment(env),
        log_path=tmp_path / f"{name}.log",
        patience=Patience(120.0, READY_SECONDS),
        stop_timeout=20.0,
        notes=tmp_path / "run",
    )


async def completes(one: Job) -> bool:
    url = f"http://127.0.0.1:{one.endpoint.port}/v1/chat/completions"
    body = {
        "model": one.engine.fixed_model_name or "tiny",
        # Long on purpose: on a CPU with AMX, a first prompt of four tokens kills vLLM 0.32.
        "messages": [
            {"role": "user", "content": "Hello there, tell me about the weather in the mountains today, please."}
        ],
        "max_tokens": 4,
    }
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as client:
        return (await client.post(url, json=body)).status_code == 200


@pytest.mark.engine("vllm")
@pytest.mark.engine("mlx_lm")
@pytest.mark.timeout(400)
async def test_one_is_stopped_and_the_other_serves_on(home_with: Home, tmp_path: Path, tiny_model: Path) -> None:
    quick = ("--enforce-eager", "--dtype", "bfloat16", "--max-model-len", "512")
    jobs = [
        job("vllm", home_with("vllm"), tiny_model, tmp_path, *quick),
        job("mlx_lm", home_with("mlx_lm"), tiny_model, tmp_path),
    ]
    other_child = subprocess.Popen(["sleep", "600"])
    runs = [EngineRun(one, RecordingStartView()) for one in jobs]
    tasks = [asyncio.create_task(run.run()) for run in runs]
    try:
        for run, task in zip(runs, tasks, strict=True):
            assert await run.started(), await task
        for one in jobs:
            assert await completes(one)
        assert runs[0].process is not None
        pids = [found.pid for found in runs[0].process.alive()]
        await runs[0].stop("enough")
        assert await tasks[0] is True
        assert not any(psutil.pid_exists(pid) for pid in pids)
        assert runs[1].state is State.READY
        assert await completes(jobs[1])
        assert other_child.poll() is None
    finally:
        for run, task in zip(runs, tasks, strict=True):
            await run.stop("the test's end")
            await asyncio.wait([task])
        other_child.terminate()
        assert other_child.wait(10) == -signal.SIGTERM
