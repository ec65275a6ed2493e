"""A running engine through its shim: measured and signalled directly, stopped by request."""

import asyncio
import contextlib
import signal
from typing import Any

from garrison.base.identity import ProcessId
from garrison.launch.run.shim_link import ShimLink
from garrison.launch.shim import VERSION
from garrison.processes.descendants import Descendants
from garrison.processes.local import local_processes

__all__ = ["EngineTree"]

_SLACK_SECONDS = 2.0
_POLL_SECONDS = 0.05


class EngineTree:
    """The part of `EngineProcess` that does not depend on where the output goes.

    Args:
        shim: the parent of the engine; everything below it is the engine.
        main: the engine's main process, where it is known.
    """

    def __init__(self, link: ShimLink, shim: ProcessId | None, main: ProcessId | None = None) -> None:
        self.main = main
        self.returncode: int | None = None
        self.lost = False
        self.unrecorded: str | None = None
        self._link = link
        self._shim_id = shim
        self._tree = Descendants(shim)
        self._tree.leader = main
        self._listener: asyncio.Task[None] | None = None

    def listen(self) -> None:
        """Begin to take events of the shim."""
        self._listener = asyncio.create_task(self._listen())

    @property
    def seen(self) -> tuple[ProcessId, ...]:
        # The main process may exit between two walks, and callers compare with it.
        return (*self._tree.seen, *((self.main,) if self.main and self.main not in self._tree.seen else ()))

    @property
    def shim_is_gone(self) -> bool:
        return self._listener is not None and self._listener.done()

    def alive(self) -> tuple[ProcessId, ...]:
        return self._tree.alive()

    def cpu_seconds(self) -> float:
        return self._tree.cpu_seconds()

    def memory_bytes(self) -> int:
        return self._tree.memory_bytes()

    def signal(self, number: int) -> bool:
        with contextlib.suppress(PermissionError):
            return self.main is not None and local_processes().signal(self.main, number)
        return False

    def kill(self) -> None:
        # The shim kills until nothing is left; the first round does not wait for it.
        self._tree.signal_all(signal.SIGKILL)
        self._ask("kill")

    async def stop(self, timeout: float) -> tuple[ProcessId, ...]:
        self._tree.alive()
        self._ask("stop", timeout=timeout)
        limit = timeout * 0.8 + max(1.0, timeout * 0.2) + _SLACK_SECONDS
        assert self._listener is not None
        await asyncio.wait([self._listener], timeout=limit)
        if not self._listener.done() or self.lost:
            await self._stop_without_shim(timeout)
        await self.end_of_shim()
        return self._left()

    async def end_of_shim(self) -> None:
        """Let go of the shim, which has nothing left to do."""
        raise NotImplementedError

    def close(self) -> None:
        self._link.close()

    async def _stop_without_shim(self, timeout: float) -> None:
        """Stop what the last walk found: the shim was killed or is stuck, so nothing reaps its descendants."""
        for number, seconds in ((signal.SIGTERM, timeout * 0.8), (signal.SIGKILL, 1.0)):
            for process in self._left():
                with contextlib.suppress(PermissionError):
                    local_processes().signal(process, number)
            for _ in range(int(seconds / _POLL_SECONDS)):
                if not self._left():
                    break
                await asyncio.sleep(_POLL_SECONDS)
        if self._shim_id is not None:
            with contextlib.suppress(PermissionError):
                local_processes().signal(self._shim_id, signal.SIGKILL)

    def _left(self) -> tuple[ProcessId, ...]:
        found = ((known, local_processes().stat(known.pid)) for known in self.seen)
        return tuple(known for known, process in found if process is not None and process.id == known)

    async def _listen(self) -> None:
        while (event := await self._link.event()) is not None:
            if event["event"] == "ended":
                self.returncode = event["status"]
        self.lost = self.returncode is None

    def _ask(self, verb: str, **fields: Any) -> None:
        self._link.request({"v": VERSION, "do": verb, **fields})
