"""Processes of Garrison's fleet for tests that kill them: `python fleet_child.py` imports everything once, then forks a
child for each job, a line of JSON on its standard input, and answers with a line of JSON when that child has ended.

    {"do": "apply", "db": …, "data": …, "declaration": {…}, "kill": 3}             dies at the checkpoint number 3
    {"do": "apply", …, "kill_at": ["declare", "before"]}                            dies around that call of the store
    {"do": "destroy", "db": …, "data": …, "stack": …}
    {"do": "agent", "db": …, "data": …}                                             one pass
    {"do": "agent", …, "seconds": 3600}                                             until it is killed
    {…, "die_after": 0.3}                                                           ended by the kernel, wherever it is

The answer: {"signal": 9 or null, "code": exit code or null, "passed": [checkpoints], "told": last words or null}.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from garrison.base.errors import GarrisonError
from garrison.fleet.agent.loop import Agent
from garrison.fleet.artifacts.disk import DiskArtifacts
from garrison.fleet.context import Fleet
from garrison.fleet.execute.steps import ExecuteOptions
from garrison.fleet.operations.apply import apply, destroy
from garrison.fleet.plan.context import PlanOptions
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.view import SilentView
from garrison.net.client import HttpDialer
from garrison.store.sql.store import open_store

Job = dict[str, Any]


def main() -> None:
    """One job after the other, until the input ends. No thread is ever made here, so that forking is safe."""
    for line in sys.stdin:
        job = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            os._exit(_run(job, writer))
        os.close(writer)
        with open(reader, encoding="utf-8") as told:
            words = told.read().splitlines()
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status)
        answer = {
            "signal": os.WTERMSIG(status) if killed else None,
            "code": None if killed else os.WEXITSTATUS(status),
            "passed": [word for word in words if not word.startswith(" ")],
            "told": next((word.strip() for word in words if word.startswith(" ")), None),
        }
        print(json.dumps(answer), flush=True)


def _run(job: Job, writer: int) -> int:
    passed = 0

    def checkpoint(name: str) -> None:
        nonlocal passed
        os.write(writer, f"{name}\n".encode())
        if passed == job.get("kill"):
            die()
        passed += 1

    if "die_after" in job:  # nobody handles it, so that it ends the process as SIGKILL does
        signal.setitimer(signal.ITIMER_REAL, job["die_after"])
    try:
        return asyncio.run(_work(job, checkpoint))
    except GarrisonError as error:
        os.write(writer, f" {type(error).__name__}: {error.message}\n".encode())
        return int(error.exit_code)
    except BaseException as error:  # noqa: BLE001 - the test gets it
        os.write(writer, f" {error!r}\n".encode())
        return 70


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def _work(job: Job, checkpoint: Callable[[str], None]) -> int:
    store = open_store(Path(job["db"]))
    artifacts = DiskArtifacts(Path(job["data"]), store.identity(), record=store)
    deadly: Any = Deadly(store, job.get("kill_at"))
    fleet = Fleet(store=deadly, dialer=HttpDialer(), artifacts=artifacts)
    try:
        if job["do"] == "agent":
            return await _agent(fleet, job)
        allowed = PlanOptions(**job.get("options", {}))
        if job["do"] == "destroy":
            done = await destroy(fleet, job["stack"], SilentView(), options=allowed)
            return int(done.exit_code)
        done = await apply(
            fleet,
            Declaration.from_json(job["declaration"]),
            SilentView(),
            options=allowed,
            execution=ExecuteOptions(checkpoint=checkpoint),
        )
        return int(done.exit_code)
    finally:
        fleet.close()


async def _agent(fleet: Fleet, job: Job) -> int:
    agent = Agent(fleet, SilentView())
    await agent.startup()
    if "seconds" in job:
        asyncio.get_running_loop().call_later(job["seconds"], agent.request_stop)
        await agent.main_loop()
    else:
        await agent.once()
    await agent.shutdown()
    return 0


class Deadly:
    """A store that ends the process `before` or `after` a call, where one is named."""

    def __init__(self, store: Any, at: list[str] | None) -> None:
        self._store = store
        self._name, self._when = at or ("", "")

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name != self._name:
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._when == "before":
                die()
            result = method(*args, **kwargs)
            die()
            return result

        return call


if __name__ == "__main__":
    main()
