"""A deadline for what a request waits for."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from garrison.base.errors import NotReadyError

__all__ = ["within"]

T = TypeVar("T")


async def within(seconds: float, work: Awaitable[T], what: str) -> T:
    """Return the result of `work`.

    Raises:
        NotReadyError: it took longer; `what` completes "… did not answer".
    """
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise NotReadyError(
            f"{what} did not answer within {seconds:g} s", hint="Ask again later.", details={"retry_after": 10}
        ) from None
