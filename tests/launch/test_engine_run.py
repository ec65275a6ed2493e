"""Engine runs in this process: several at once, beside other children, and against the in-memory twin."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from garrison_serve import ENGINE, alive

from garrison.base.errors import EngineDiedError, EngineMissingError
from garrison.engines.engine import Endpoint, EngineCommand
from garrison.engines.registry import engine
from garrison.launch.run import engine_run as engine_run_module
from garrison.launch.run import spawn as spawn_module
from garrison.launch.run.engine_run import EngineRun, Job, State
from garrison.launch.run.patience import Patience
from garrison.testing.engines import MemorySpawner
from garrison.testing.views import RecordingStartView

SERVE_SECONDS = 60.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def job(
    tmp_path: Path, argv: list[str], *, name: str = "vllm", port: int = 0, protocol: str = "http", **env: str
) -> Job:
    return Job(
        engine=engine(name),
        command=EngineCommand(tuple(argv)),
        endpoint=Endpoint("127.0.0.1", port, protocol=protocol),
        environment={**os.environ, **env},
        log_path=tmp_path / "logs" / f"{name}-{port}.log",
        patience=Patience(60.0),
        stop_timeout=3.0,
        notes=tmp_path / "run",
    )


def fake(tmp_path: Path, number: int, **plan: Any) -> tuple[Job, Path]:
    """An engine that these tests write, and the directory of what it records."""
    record, port = tmp_path / f"record{number}", free_port()
    record.mkdir()
    argv = [sys.executable, "-I", "-c", ENGINE, "serve", "x", "--host", "127.0.0.1", "--port", str(port)]
    return job(tmp_path, argv, port=port, FAKE=json.dumps({"record": str(record), **plan})), record


def sim(tmp_path: Path) -> Job:
    port = free_port()
    argv = [sys.executable, "-P", "-m", "garrison.sim", "--model", "sim/tiny", "--port", str(port)]
    return job(tmp_path, argv, name="sim", port=port)


@contextlib.asynccontextmanager
async def ready(*jobs: Job) -> AsyncIterator[list[tuple[EngineRun, "asyncio.Task[bool]"]]]:
    """Runs of these jobs, all ready; ended after the body."""
    pairs = []
    for one in jobs:
        run = EngineRun(one, RecordingStartView())
        pairs.append((run, asyncio.create_task(run.run())))
    try:
        for run, task in pairs:
            assert await asyncio.wait_for(run.started(), SERVE_SECONDS), await task
        yield pairs
    finally:
        for run, task in pairs:
            await run.stop("the test's end")
            await asyncio.wait([task])


async def answers(one: Job) -> bool:
    async with httpx2.AsyncClient(trust_env=False, timeout=10) as client:
        with contextlib.suppress(httpx2.TransportError):
            return (await client.get(f"http://127.0.0.1:{one.endpoint.port}/health")).status_code == 200
    return False


def recorded(record: Path) -> list[int]:
    return [int(path.read_text()) for path in record.glob("*.pid")]


async def gone(pids: list[int], seconds: float = 10.0) -> bool:
    for _ in range(int(seconds / 0.05)):
        if not any(alive(pid) for pid in pids):
            return True
        await asyncio.sleep(0.05)
    return False


@pytest.mark.system
class TestTwoInOneProcess:
    async def test_one_is_stopped_and_the_other_serves_on(
        self, tmp_path: Path, clean_environ: Mapping[str, str]
    ) -> None:
        first, record = fake(tmp_path, 1, children=["setsid", "orphan", "stubborn"])
        second, other_record = fake(tmp_path, 2, children=["setsid", "orphan"])
        third = sim(tmp_path)
        async with ready(first, second, third) as runs:
            (run, task), *others = runs
            await run.stop("enough")
            assert await task is True
            assert run.state is State.STOPPED
            assert len(recorded(record)) == 4
            assert not any(alive(pid) for pid in recorded(record))
            assert all(alive(pid) for pid in recorded(other_record))
            assert [other.state for other, _ in others] == [State.READY, State.READY]
            assert await answers(second)
            assert await answers(third)
        assert not any(alive(pid) for pid in recorded(other_record))

    async def test_one_is_killed_and_the_other_serves_on(
        self, tmp_path: Path, clean_environ: Mapping[str, str]
    ) -> None:
        first, record = fake(tmp_path, 1, children=["setsid"])
        second, _ = fake(tmp_path, 2)
        async with ready(first, second) as ((run, task), (other, _)):
            run.kill()
            with pytest.raises(EngineDiedError, match="SIGKILL while it was serving"):
                await task
            assert not any(alive(pid) for pid in recorded(record))
            assert other.state is State.READY
            assert await answers(second)

    async def test_exit_statuses_of_other_children_are_right(
        self, tmp_path: Path, clean_environ: Mapping[str, str]
    ) -> None:
        before = subprocess.Popen(["sh", "-c", "read x; exit 7"], stdin=subprocess.PIPE)
        first, _ = fake(tmp_path, 1, children=["orphan"])
        second, _ = fake(tmp_path, 2)
        async with ready(first, second) as ((run, task), _):
            short = [subprocess.Popen(["sh", "-c", f"exit {code}"]) for code in range(1, 20)]
            during = subprocess.Popen(["sleep", "600"])
            forked = os.fork()
            if forked == 0:
                os._exit(9)
            await run.stop("enough")
            await task
            assert during.poll() is None
            assert before.poll() is None
            assert [child.wait(10) for child in short] == list(range(1, 20))
            assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 9
            during.kill()
            assert during.wait(10) == -signal.SIGKILL
        before.communicate(b"\n", timeout=10)
        assert before.returncode == 7

    async def test_signal_handlers_stay_as_they_were(self, tmp_path: Path, clean_environ: Mapping[str, str]) -> None:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)
        before = [signal.getsignal(number) for number in numbers]
        first, _ = fake(tmp_path, 1)
        async with ready(first):
            assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.system
class TestEnds:
    async def test_a_real_time_signal(self, tmp_path: Path, clean_environ: Mapping[str, str]) -> None:
        first, record = fake(tmp_path, 1)
        async with ready(first) as ((_, task),):
            os.kill(int((record / "engine.pid").read_text()), int(signal.SIGRTMIN) + 3)
            with pytest.raises(EngineDiedError, match=r"was killed by SIGRTMIN\+3 while it was serving"):
                await task

    async def test_the_shim_is_killed(self, tmp_path: Path, clean_environ: Mapping[str, str]) -> None:
        """The engine gets its signal from the kernel, and what outlives that is killed by what was last seen."""
        first, record = fake(tmp_path, 1, children=["setsid", "stubborn"])
        second, _ = fake(tmp_path, 2)
        async with ready(first, second) as ((run, task), _):
            assert run.process is not None
            assert len(run.process.alive()) == 3
            engine_pid = int((record / "engine.pid").read_text())
            os.kill(int(Path(f"/proc/{engine_pid}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
            with pytest.raises(EngineDiedError, match="lost its supervising process"):
                await task
            assert await gone(recorded(record))
            assert await answers(second)

    async def test_the_shim_is_killed_after_the_engine_has_started_another_worker(
        self, tmp_path: Path, clean_environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(engine_run_module, "_WALK_SECONDS", 0.1)
        stubborn = f"trap '' TERM; echo $$ > {tmp_path}/worker; while :; do sleep 1; done"
        script = f'while ! test -e {tmp_path}/go; do sleep 0.1; done; sh -c "{stubborn.replace("$", chr(92) + "$")}"'
        async with ready(job(tmp_path, ["/bin/sh", "-c", script], protocol="none")) as ((run, task),):
            assert run.process is not None
            assert run.process.main is not None
            (tmp_path / "go").touch()
            async with asyncio.timeout(10):
                while not (tmp_path / "worker").exists() or not (tmp_path / "worker").read_text():
                    await asyncio.sleep(0.05)
                worker = int((tmp_path / "worker").read_text())
                while worker not in [one.pid for one in run.process.seen]:
                    await asyncio.sleep(0.05)
            shim = int(Path(f"/proc/{run.process.main.pid}/stat").read_text().rpartition(")")[2].split()[1])
            os.kill(shim, signal.SIGKILL)
            with pytest.raises(EngineDiedError, match="lost its supervising process"):
                await task
            assert await gone([worker])

    async def test_in_a_thread_that_ends_before_the_process(
        self, tmp_path: Path, clean_environ: Mapping[str, str]
    ) -> None:
        """The thread that started an engine may end: nothing follows it."""
        first, record = fake(tmp_path, 1)

        def start_and_leave() -> list[str]:
            view = RecordingStartView()

            async def start() -> None:
                run = EngineRun(first, view)
                task = asyncio.create_task(run.run())
                assert await run.started()
                await run.stop("over")
                await task

            asyncio.run(start())
            return view.of("stopping")

        assert await asyncio.to_thread(start_and_leave) == ["over"]
        assert await gone(recorded(record))

    async def test_a_program_that_cannot_be_run(self, tmp_path: Path, clean_environ: Mapping[str, str]) -> None:
        for argv in (["/nonexistent/vllm"], [str(tmp_path)]):
            run = EngineRun(job(tmp_path, argv, port=free_port()), RecordingStartView())
            with pytest.raises(EngineMissingError, match=r"cannot run .*: (No such file|Permission denied)"):
                await run.run()
            assert run.state is State.STOPPED

    async def test_a_shim_that_does_not_answer(
        self, tmp_path: Path, clean_environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spawn_module, "_START_SECONDS", 0.0)
        first, record = fake(tmp_path, 1)
        with pytest.raises(EngineMissingError, match=r"its parent process did not start it within 0 s"):
            await EngineRun(first, RecordingStartView()).run()
        assert await gone(recorded(record))


class TestWithoutProcesses:
    def start(self, tmp_path: Path) -> tuple[EngineRun, MemorySpawner, RecordingStartView]:
        spawner, view = MemorySpawner(), RecordingStartView()
        made = job(tmp_path, ["/opt/vllm", "serve", "x", "--headless"], protocol="none")
        return EngineRun(made, view, spawner=spawner), spawner, view

    @pytest.mark.parametrize("reads", [True, False])
    async def test_the_hub_cache_is_there_for_an_engine_that_reads_it(self, tmp_path: Path, reads: bool) -> None:
        made = job(tmp_path, ["/opt/x", "serve", "x", "--headless"], protocol="none", HF_HUB_CACHE=f"{tmp_path}/a/hub")
        made = replace(made, command=replace(made.command, reads_hub_cache=reads))
        run = EngineRun(made, RecordingStartView(), spawner=MemorySpawner())
        task = asyncio.create_task(run.run())
        assert await run.started()
        assert (tmp_path / "a/hub").is_dir() == reads
        await run.stop("seen")
        await task

    async def test_a_stop(self, tmp_path: Path) -> None:
        run, spawner, view = self.start(tmp_path)
        task = asyncio.create_task(run.run())
        assert await run.started()
        assert run.state is State.READY
        run.signal(signal.SIGUSR1)
        await run.stop("idle")
        assert await task is True
        assert spawner.started[0].signals == [signal.SIGUSR1]
        assert spawner.started[0].stops == [3.0]
        assert view.of("stopping") == ["idle"]
        assert spawner.commands[0][0] == ("/opt/vllm", "serve", "x", "--headless")

    async def test_a_death(self, tmp_path: Path) -> None:
        run, spawner, _ = self.start(tmp_path)
        task = asyncio.create_task(run.run())
        assert await run.started()
        spawner.started[0].say(b"ValueError: odd\n")
        spawner.started[0].end(3)
        with pytest.raises(EngineDiedError, match="exited with 3 while it was serving"):
            await task
        assert "ValueError: odd" in run.log_path.read_text()

    async def test_a_death_at_its_start_wakes_whoever_waits(self, tmp_path: Path) -> None:
        run, spawner, _ = self.start(tmp_path)
        task = asyncio.create_task(run.run())
        waiting: asyncio.Task[bool] = asyncio.create_task(run.started())
        while not spawner.started:
            await asyncio.sleep(0)
        spawner.started[0].end(-signal.SIGSEGV)
        assert await waiting is False
        with pytest.raises(EngineDiedError, match="was killed by SIGSEGV at its start"):
            await task

    @pytest.mark.parametrize("serving", [True, False])
    async def test_an_engine_that_ends_with_the_request_to_stop_has_not_died(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serving: bool
    ) -> None:
        """systemd sends SIGTERM to every process of a service at once, and the engine may be the quicker one."""
        run, spawner, _ = self.start(tmp_path)

        async def drained() -> None:
            run.request_stop("SIGTERM")

        monkeypatch.setattr(run, "_drain", drained)
        task = asyncio.create_task(run.run())
        if serving:
            assert await run.started()
        while not spawner.started:
            await asyncio.sleep(0)
        spawner.started[0].end(-signal.SIGTERM)
        assert await task is serving

    async def test_what_outlives_a_kill_is_named(self, tmp_path: Path) -> None:
        run, spawner, view = self.start(tmp_path)
        task = asyncio.create_task(run.run())
        assert await run.started()
        spawner.started[0].ignores_stop = True
        spawner.started[0].say(b"")
        await run.stop("idle")
        await task
        assert view.of("note") == ["still running after SIGKILL: pid 100"]

    async def test_an_error_of_the_system_is_said(self, tmp_path: Path) -> None:
        run, spawner, _ = self.start(tmp_path)
        spawner.refuses = OSError(8, "Exec format error")
        with pytest.raises(EngineMissingError, match="cannot run /opt/vllm: Exec format error"):
            await run.run()

    async def test_a_stop_before_its_turn_starts_nothing(self, tmp_path: Path) -> None:
        """Whoever stops it does not wait for a task that has not begun, so nothing may be started after that."""
        run, spawner, _ = self.start(tmp_path)
        task = asyncio.create_task(run.run())
        await run.stop("changed my mind")
        assert await task is False
        assert (spawner.started, run.state) == ([], State.STOPPED)
        assert await run.started() is False

    async def test_a_kill_while_it_is_being_started(self, tmp_path: Path) -> None:
        run, spawner, _ = self.start(tmp_path)
        spawner.delay = asyncio.Event()
        task = asyncio.create_task(run.run())
        await asyncio.sleep(0.01)
        run.request_stop("SIGINT")
        run.kill()
        spawner.delay.set()
        assert await task is False
        assert spawner.started[0].returncode == -signal.SIGKILL

    async def test_a_stop_that_is_cancelled_releases_the_engine(self, tmp_path: Path) -> None:
        run, spawner, _ = self.start(tmp_path)
        task = asyncio.create_task(run.run())
        assert await run.started()
        stopping = spawner.started[0].stopping = asyncio.Event()
        waiting = asyncio.create_task(run.stop("idle"))
        async with asyncio.timeout(5):
            await stopping.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await waiting
        assert spawner.started[0].closed
        assert run.state is State.STOPPED
