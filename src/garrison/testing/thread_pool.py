"""The twin of a pool of threads: calls are made at once, on the event loop."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from garrison.net.thread_pool import ThreadPool

__all__ = ["DirectPool"]

T = TypeVar("T")


class DirectPool(ThreadPool):
    """`ThreadPool` without threads. A call costs the loop one turn."""

    def __init__(self) -> None:
        super().__init__("direct")

    async def run(self, call: Callable[[], T], what: str) -> T:
        await asyncio.sleep(0)
        return call()
