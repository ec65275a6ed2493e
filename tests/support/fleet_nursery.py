"""Garrison's processes for tests that kill them: see `fleet_child`."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests_environment import environment

PARALLEL = 2
SUPPORT = Path(__file__).parent


class Nursery:
    """Warm processes that fork a child for each job; one child each at a time."""

    def __init__(self, home: Path) -> None:
        env = environment(home) | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        argv = [sys.executable, str(SUPPORT / "fleet_child.py")]
        self._processes = [
            subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
            for _ in range(PARALLEL)
        ]
        self._free: asyncio.Queue[subprocess.Popen[str]] = asyncio.Queue()

    def open(self) -> None:
        """In this test's loop."""
        self._free = asyncio.Queue()
        for process in self._processes:
            self._free.put_nowait(process)

    async def run(self, **job: Any) -> dict[str, Any]:
        process = await self._free.get()
        try:
            return await asyncio.to_thread(self._ask, process, job)
        finally:
            self._free.put_nowait(process)

    def close(self) -> None:
        for process in self._processes:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.wait(20)
            process.stdout.close()

    @staticmethod
    def _ask(process: "subprocess.Popen[str]", job: dict[str, Any]) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        return answer
