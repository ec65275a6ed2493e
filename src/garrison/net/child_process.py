"""Ends a child process that was started in its own process group."""

import asyncio
import contextlib
import os
import signal

__all__ = ["end_group"]

_PIPE_SECONDS = 1.0
_PIECE_BYTES = 64 * 1024


async def end_group(child: asyncio.subprocess.Process) -> None:
    """Kill the group if its leader still runs, so that processes started by a script end, too, and close its pipes.

    The group's id cannot be reused before its leader was waited for. The rest of the output is read first: asyncio's
    `wait` does not return while an unread pipe is open. A process that left the group may hold the pipe; it is not
    waited for.
    """
    if child.returncode is None:
        # A program that changed its user, as `sudo` does, may not be signalled. It ends by itself, or is left behind.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PIPE_SECONDS):
                while child.stdout is not None and await child.stdout.read(_PIECE_BYTES):
                    pass
                await child.wait()
    finally:
        # There is no public way to the transport, and without this an open pipe outlives the loop. It kills, too.
        with contextlib.suppress(PermissionError):
            child._transport.close()  # type: ignore[attr-defined] # see above
