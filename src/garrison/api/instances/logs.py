"""The log of an instance: its last lines, and what comes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from garrison.api.feed import FeedEvent
from garrison.base.redaction import redacted
from garrison.launch.log_follower import LogFollower, last_lines
from garrison.net.thread_pool import ThreadPool

__all__ = ["follow", "tail"]

_POLL_SECONDS = 0.25
_PING_SECONDS = 15.0
_MOST_LINE = 64 * 1024


async def tail(path: Path, count: int, pool: ThreadPool) -> str:
    """Return the last `count` lines, without secrets."""
    lines = await pool.run(lambda: last_lines(path, count), f"read {path}")
    return redacted("".join(f"{line}\n" for line in lines))


async def follow(
    path: Path, count: int, pool: ThreadPool, news: Callable[[], FeedEvent | None] = lambda: None
) -> AsyncIterator[FeedEvent]:
    """Yield the last `count` lines, then each line as it is written, through rotations.

    Args:
        news: asked when all that was written has been yielded; an event that it returns is yielded, too.
    """
    follower = await pool.run(lambda: LogFollower(path, from_end=True), f"open {path}")
    rest, quiet = b"", 0.0
    try:
        for line in (await tail(path, count, pool)).splitlines():
            yield FeedEvent("", "line", {"text": line})
        while True:
            data = await pool.run(follower.read_new, f"read {path}")
            *lines, rest = (rest + data).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            if len(rest) > _MOST_LINE:
                lines, rest = [*lines, rest], b""
            for raw in lines:
                yield FeedEvent("", "line", {"text": redacted(raw.decode("utf-8", "replace"))})
            if data:
                quiet = 0.0
                continue
            if (event := news()) is not None:
                yield event
            await asyncio.sleep(_POLL_SECONDS)
            quiet += _POLL_SECONDS
            if quiet >= _PING_SECONDS:
                quiet = 0.0
                yield FeedEvent("", "ping")
    finally:
        follower.close()
