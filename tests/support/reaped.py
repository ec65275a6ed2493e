"""Shims whose engines were left to a later server: this process is their parent, and collects them when they end."""

import asyncio

__all__ = ["all_reaped"]


async def all_reaped(seconds: float = 10.0) -> None:
    """Wait until every shim that this loop has started is collected; otherwise it would outlive the loop."""
    if waits := [task for task in asyncio.all_tasks() if task.get_name() == "reap a shim"]:
        await asyncio.wait(waits, timeout=seconds)
