"""Starting the shims of detached engines.

One is kept ready, because its interpreter takes longer to start than all the rest of an engine's start.
"""

import asyncio
import contextlib
import socket
import subprocess
from dataclasses import dataclass

from garrison.launch.run.spawn import reap, start_shim

__all__ = ["IdleShim", "Shims"]

_REFILL_SECONDS = 0.5
"""After a shim was taken: the engine that starts with it needs the processor first."""


@dataclass(frozen=True, slots=True)
class IdleShim:
    """A shim that waits to be told what to run. It exits when the socket closes.

    Attributes:
        reaper: ends with the exit status of `process`.
    """

    process: asyncio.subprocess.Process
    reaper: asyncio.Task[int]
    socket: socket.socket

    def kill(self) -> None:
        self.socket.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


class Shims:
    """Gives shims to engines that start. Belongs to one event loop.

    Args:
        spare: whether one is kept ready, from `prepare` to `close`.
    """

    def __init__(self, *, spare: bool = False) -> None:
        self._keeps_one = spare
        self._spare: IdleShim | None = None
        self._filling: asyncio.Task[None] | None = None

    def prepare(self) -> None:
        """Start the spare shim, in the background."""
        self._fill(after=0.0)

    async def take(self) -> IdleShim:
        """Return a shim, which belongs to the caller.

        Raises:
            OSError: none can be started.
        """
        spare, self._spare = self._spare, None
        self._fill(after=_REFILL_SECONDS)
        if spare is not None and not spare.reaper.done():
            return spare
        return await _start()

    async def close(self) -> None:
        """End the spare shim. `take` goes on to work."""
        self._keeps_one = False
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.wait([self._filling])
        if self._spare is not None:
            self._spare.kill()
            await self._spare.reaper
            self._spare = None

    def _fill(self, after: float) -> None:
        if self._keeps_one and (self._filling is None or self._filling.done()):
            self._filling = asyncio.create_task(self._keep_one(after), name="spare shim")

    async def _keep_one(self, after: float) -> None:
        await asyncio.sleep(after)
        with contextlib.suppress(OSError):  # the next start says why
            self._spare = self._spare or await _start()


async def _start() -> IdleShim:
    process, ours = await start_shim(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    return IdleShim(process, reap(process), ours)
